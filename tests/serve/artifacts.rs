//! Artifacts over the wire: begun, filled, committed, found by alias, and that they are their entity's alone.

use serde_json::{Value, json};

use super::files::{nobody, path};
use super::{served, text};
use crate::common::server::{Client, Server};

pub const CREATE: &str = "mutation c($i: CreateArtifactInput!) { createArtifact(input: $i) { artifact { id state artifactSequence { latestArtifact { id } } } } }";
pub const MANIFEST: &str = "mutation m($a: ID!, $d: String!, $u: Boolean!, $t: ArtifactManifestType!) {
  createArtifactManifest(input: {artifactID: $a, name: \"wandb_manifest.json\", digest: $d, entityName: \"team\", projectName: \"demo\", runName: \"r\", type: $t}) {
    artifactManifest { id file { id uploadUrl @include(if: $u) uploadHeaders @include(if: $u) } } } }";
const FILES: &str = "mutation f($i: CreateArtifactFilesInput!) { createArtifactFiles(input: $i) { files { edges { node { storagePath uploadUrl uploadHeaders artifact { id } } } } } }";
const COMMIT: &str = "mutation c($a: ID!) { commitArtifact(input: {artifactID: $a}) { artifact { id digest state versionIndex } } }";
const BY_ID: &str = "query a($id: ID!) { artifact(id: $id) { id state versionIndex size fileCount aliases { alias } currentManifest { file { directUrl } } } }";
const BY_NAME: &str = "query n($e: String!, $n: String!) { project(name: \"demo\", entityName: $e) { artifactCollectionMembership(name: $n) {
  id versionIndex aliases { alias } artifactCollection { __typename name ... on ArtifactSequence { latestArtifact { id } } } artifact { id state artifactType { name } }
  files(first: 5000) { edges { node { name directUrl sizeBytes } } } } } }";
const ALIAS: &str = "mutation a($i: AddAliasesInput!) { addAliases(input: $i) { success } }";

/// MD5 of `hello\n`.
pub const HELLO: &str = "sZRqySSS0jR8YjW00mERhA==";

pub fn new(client: &Client, digest: &str, aliases: &[&str]) -> Value {
    let aliases: Vec<Value> = aliases
        .iter()
        .map(|alias| json!({"alias": alias, "artifactCollectionName": "thing"}))
        .collect();
    let input = json!({"entityName": "team", "projectName": "demo", "artifactTypeName": "job", "digest": digest,
        "artifactCollectionNames": ["thing"], "digestAlgorithm": "MANIFEST_MD5", "clientID": format!("c-{digest}-{}", aliases.len()),
        "enableDigestDeduplication": true, "aliases": aliases, "tags": []});
    client.data(CREATE, &json!({"i": input}))["createArtifact"]["artifact"].clone()
}

fn announce(client: &Client, id: &str, name: &str, md5: &str) -> String {
    let input = json!({"storageLayout": "V2", "cloudRegionID": null,
        "artifactFiles": [{"artifactID": id, "artifactManifestID": null, "name": name, "md5": md5}]});
    let data = client.data(FILES, &json!({"i": input}));
    path(&data["createArtifactFiles"]["files"]["edges"][0]["node"]["uploadUrl"])
}

/// Uploads a manifest that names one file.
fn manifest(server: &Server, client: &Client, id: &str, name: &str, md5: &str) {
    let document = json!({"version": 1, "storagePolicy": "wandb-storage-policy-v1",
        "contents": {name: {"digest": md5, "size": 6}, "far": {"digest": "x", "ref": "s3://a/b"}}});
    upload_manifest(server, client, id, &document.to_string());
}

fn upload_manifest(server: &Server, client: &Client, id: &str, document: &str) {
    let variables = json!({"a": id, "d": "", "u": true, "t": "FULL"});
    let data = client.data(MANIFEST, &variables);
    let put = path(&data["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"]);
    let status = nobody(server)
        .request("PUT", &put, "", document.as_bytes())
        .0;
    assert_eq!(status, 200);
}

/// A committed artifact with one file, and its id.
pub fn commit(server: &Server, client: &Client, digest: &str, aliases: &[&str]) -> String {
    let id = text(&new(client, digest, aliases)["id"]);
    let put = announce(client, &id, "a/b.txt", HELLO);
    assert_eq!(nobody(server).request("PUT", &put, "", b"hello\n").0, 200);
    manifest(server, client, &id, "a/b.txt", HELLO);
    client.data(COMMIT, &json!({"a": id}));
    id
}

fn membership(client: &Client, name: &str) -> Value {
    let data = client.data(BY_NAME, &json!({"e": "team", "n": name}));
    data["project"]["artifactCollectionMembership"].clone()
}

#[test]
fn an_artifact_is_found_by_its_aliases_and_downloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let id = commit(&server, &client, "d0", &["best"]);
    for name in ["thing:best", "thing:latest", "thing:v0", "thing"] {
        assert_eq!(
            membership(&client, name)["artifact"]["id"],
            id.as_str(),
            "{name}"
        );
    }
    for name in ["thing:v1", "thing:v00", "thing:other", "other:latest"] {
        assert_eq!(membership(&client, name), Value::Null, "{name}");
    }
    let found = membership(&client, "thing:best");
    assert_eq!(
        found["artifactCollection"]["__typename"],
        "ArtifactSequence"
    );
    let file = &found["files"]["edges"][0]["node"];
    assert_eq!(file["name"], "a/b.txt");
    let get = path(&file["directUrl"]);
    assert_eq!(nobody(&server).request("GET", &get, "", b"").1, b"hello\n");
    let artifact = client.data(BY_ID, &json!({"id": id}))["artifact"].clone();
    assert_eq!(
        (&artifact["size"], &artifact["fileCount"]),
        (&json!(6), &json!(1))
    );
    let get = path(&artifact["currentManifest"]["file"]["directUrl"]);
    let (status, body) = nobody(&server).request("GET", &get, "", b"");
    assert_eq!(status, 200);
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["contents"]["a/b.txt"]["digest"], HELLO);
}

#[test]
fn the_same_content_is_the_same_version_and_another_is_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let first = commit(&server, &client, "d0", &[]);
    let again = new(&client, "d0", &["more"]);
    assert_eq!(
        (&again["id"], &again["state"]),
        (&json!(first), &json!("COMMITTED"))
    );
    assert_eq!(membership(&client, "thing:more")["versionIndex"], 0);
    let second = commit(&server, &client, "d1", &["more"]);
    assert_eq!(
        membership(&client, "thing:latest")["artifact"]["id"],
        second.as_str()
    );
    assert_eq!(membership(&client, "thing:more")["versionIndex"], 1);
    assert_eq!(membership(&client, "thing:v0")["aliases"], json!([]));
    // A version is never given twice, whatever was deleted.
    let delete =
        "mutation d($i: DeleteArtifactInput!) { deleteArtifact(input: $i) { artifact { id } } }";
    let error = client.error(delete, &json!({"i": {"artifactID": second}}));
    assert!(error.contains("aliases"), "{error}");
    client.data(
        delete,
        &json!({"i": {"artifactID": second, "deleteAliases": true}}),
    );
    assert_eq!(membership(&client, "thing:v1"), Value::Null);
    commit(&server, &client, "d2", &[]);
    assert_eq!(membership(&client, "thing:latest")["versionIndex"], 2);
}

#[test]
fn an_artifact_that_is_not_whole_is_not_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let id = text(&new(&client, "d0", &[])["id"]);
    let refused = |expected: &str| {
        let error = client.error(COMMIT, &json!({"a": id}));
        assert!(error.contains(expected), "{error}");
        assert_eq!(membership(&client, "thing:latest"), Value::Null);
    };
    refused("manifest of the artifact was not uploaded");
    manifest(&server, &client, &id, "a.txt", HELLO);
    refused("`a.txt` of the artifact was not uploaded");
    let put = announce(&client, &id, "a.txt", HELLO);
    assert_eq!(
        nobody(&server).request("PUT", &put, "", b"other\n").0,
        400,
        "not that MD5"
    );
    refused("`a.txt` of the artifact was not uploaded");
    assert_eq!(nobody(&server).request("PUT", &put, "", b"hello\n").0, 200);
    manifest(&server, &client, &id, "a.txt", "1B2M2Y8AsgTpgAmY7PhCfg==");
    refused("is not what its manifest says");
    manifest(&server, &client, &id, "../a.txt", HELLO);
    refused("cannot be the name of a file");
    upload_manifest(&server, &client, &id, "{");
    refused("the manifest is not JSON");
    let many = format!("[{}1]", "1,".repeat(4_000_000));
    upload_manifest(&server, &client, &id, &many);
    refused("more than four million values");
    manifest(&server, &client, &id, "a.txt", HELLO);
    for _ in 0..2 {
        let data = client.data(COMMIT, &json!({"a": id}));
        assert_eq!(data["commitArtifact"]["artifact"]["versionIndex"], 0);
    }
    // What is committed does not change any more; what was sent twice is answered as before.
    assert_eq!(nobody(&server).request("PUT", &put, "", b"hello\n").0, 200);
    let input = json!({"artifactFiles": [{"artifactID": id, "name": "b.txt", "md5": HELLO}]});
    client.error(FILES, &json!({"i": input}));
    client.error(MANIFEST, &json!({"a": id, "d": "", "u": true, "t": "FULL"}));
}

#[test]
fn a_draft_has_the_files_of_the_version_that_it_began_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    commit(&server, &client, "d0", &[]);
    let document = |name: &str| {
        json!({"version": 1, "contents": {
            "a/b.txt": {"digest": HELLO, "size": 6}, name: {"digest": HELLO, "size": 6}}})
    };
    // Its client uploads only what is new in it.
    let draft = text(&new(&client, "d1", &[])["id"]);
    upload_manifest(&server, &client, &draft, &document("new").to_string());
    let told = client.error(COMMIT, &json!({"a": draft}));
    assert!(
        told.contains("`new` of the artifact was not uploaded"),
        "{told}"
    );
    let put = announce(&client, &draft, "new", HELLO);
    assert_eq!(nobody(&server).request("PUT", &put, "", b"hello\n").0, 200);
    client.data(COMMIT, &json!({"a": draft}));
    let found = membership(&client, "thing:v1");
    let files = found["files"]["edges"].as_array().expect("files");
    assert_eq!(files.len(), 2);
    for file in files {
        let get = path(&file["node"]["directUrl"]);
        assert_eq!(nobody(&server).request("GET", &get, "", b"").1, b"hello\n");
    }
    // Those of another collection are not of an earlier version.
    let input = json!({"entityName": "team", "projectName": "demo", "artifactTypeName": "job", "digest": "d0",
        "artifactCollectionNames": ["other"], "digestAlgorithm": "MANIFEST_MD5", "clientID": "c"});
    let other = client.data(CREATE, &json!({"i": input}));
    let other = text(&other["createArtifact"]["artifact"]["id"]);
    manifest(&server, &client, &other, "a/b.txt", HELLO);
    let told = client.error(COMMIT, &json!({"a": other}));
    assert!(told.contains("was not uploaded"), "{told}");
}

#[test]
fn names_and_aliases_that_lead_astray_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let id = commit(&server, &client, "d0", &[]);
    let input = |name: &str| {
        json!({"i": {"entityName": "team", "projectName": "demo", "artifactTypeName": "job",
            "digest": "x", "artifactCollectionName": name}})
    };
    for name in ["", "a/b", "a:b", "..\u{0}", &"x".repeat(129)] {
        client.error(CREATE, &input(name));
    }
    let error = client.error(
        CREATE,
        &json!({"i": {"entityName": "team", "projectName": "demo",
        "artifactTypeName": "model", "digest": "x", "artifactCollectionName": "thing"}}),
    );
    assert!(error.contains("of the type `job`"), "{error}");
    for alias in ["v1", "a/b", "a:b", ""] {
        let alias = json!({"alias": alias, "artifactCollectionName": "thing", "entityName": "team", "projectName": "demo"});
        client.error(ALIAS, &json!({"i": {"artifactID": id, "aliases": [alias]}}));
    }
    let error = client.error(
        MANIFEST,
        &json!({"a": id, "d": "", "u": true, "t": "PATCH"}),
    );
    assert!(error.contains("whole manifests only"), "{error}");
}

#[test]
fn another_entitys_artifact_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let id = commit(&server, &client, "d0", &["best"]);
    let pending = text(&new(&client, "d1", &[])["id"]);
    let stranger = server.client(&server.key("mallory", &["other"]));
    assert_eq!(
        stranger.data(BY_ID, &json!({"id": id}))["artifact"],
        Value::Null
    );
    let data = stranger.data(BY_NAME, &json!({"e": "team", "n": "thing:best"}));
    assert_eq!(data["project"], Value::Null);
    let mapping = "query m($c: ID!) { clientIDMapping(clientID: $c) { serverID } }";
    assert_eq!(
        stranger.data(mapping, &json!({"c": "c-d0-1"}))["clientIDMapping"],
        Value::Null
    );
    assert_eq!(
        client.data(mapping, &json!({"c": "c-d0-1"}))["clientIDMapping"]["serverID"],
        id.as_str()
    );
    stranger.error(COMMIT, &json!({"a": pending}));
    stranger.error(
        MANIFEST,
        &json!({"a": pending, "d": "", "u": true, "t": "FULL"}),
    );
    let files = json!({"artifactFiles": [{"artifactID": pending, "name": "b.txt", "md5": HELLO}]});
    stranger.error(FILES, &json!({"i": files}));
    let create = json!({"entityName": "team", "projectName": "demo", "artifactTypeName": "job", "digest": "x",
        "artifactCollectionName": "thing"});
    stranger.error(CREATE, &json!({"i": create}));
    let alias = json!({"alias": "mine", "artifactCollectionName": "thing", "entityName": "team", "projectName": "demo"});
    stranger.error(ALIAS, &json!({"i": {"artifactID": id, "aliases": [alias]}}));
    stranger.error(
        "mutation d($i: DeleteArtifactInput!) { deleteArtifact(input: $i) { artifact { id } } }",
        &json!({"i": {"artifactID": id, "deleteAliases": true}}),
    );
    stranger.error(
        "mutation u($i: UpdateArtifactInput!) { updateArtifact(input: $i) { artifact { id } } }",
        &json!({"i": {"artifactID": id, "description": "mine"}}),
    );
    stranger.error(
        "mutation u($i: UseArtifactInput!) { useArtifact(input: $i) { artifact { id } } }",
        &json!({"i": {"artifactID": id, "entityName": "other", "projectName": "demo", "runName": "r"}}),
    );
    assert_eq!(
        membership(&client, "thing:best")["aliases"],
        json!([{"alias": "best"}, {"alias": "latest"}])
    );
}

#[test]
fn artifacts_with_long_metadata_are_not_read_all_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    for n in 0..5 {
        let id = commit(&server, &client, &format!("d{n}"), &[]);
        let metadata = json!({"text": "x".repeat(15 * 1024 * 1024)}).to_string();
        let change = "mutation u($i: UpdateArtifactInput!) { updateArtifact(input: $i) { artifact { id } } }";
        client.data(
            change,
            &json!({"i": {"artifactID": id, "metadata": metadata}}),
        );
    }
    let page = |first: usize| {
        format!("query {{ project(name: \"demo\", entityName: \"team\") {{ artifactCollection(name: \"thing\") {{
          artifacts(first: {first}) {{ edges {{ node {{ id }} }} }} }} }} }}")
    };
    client.data(&page(2), &json!({}));
    let told = client.error(&page(50), &json!({}));
    assert!(told.contains("ask for fewer at once"), "{told}");
}
