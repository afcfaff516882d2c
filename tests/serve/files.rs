//! Files of runs over the wire: signed addresses, what they let in, and that nothing leaves the folder.

use std::path::Path;

use launch_agent::queue::local::LocalQueue;
use serde_json::{Value, json};

use super::contract::Here;
use super::runs::begin;
use super::{served, text};
use crate::common::server::{Client, Server, read_answer};

pub const CREATE: &str = "mutation c($e: String!, $r: String!, $f: [String!]!) {
  createRunFiles(input: {entityName: $e, projectName: \"demo\", runName: $r, files: $f}) { runID uploadHeaders files { name uploadUrl } }
}";
const FILES: &str = "query f($e: String!, $r: String!, $n: [String] = [], $p: String) { project(name: \"demo\", entityName: $e) { run(name: $r) {
  fileCount files(names: $n, pattern: $p, first: 50) { edges { node { id name directUrl sizeBytes md5 } } pageInfo { hasNextPage } }
} } }";

/// The path of an address of this server.
pub fn path(url: &Value) -> String {
    let url = text(url);
    url[url.find("/storage/").expect("an address of a file")..].to_owned()
}

/// Nobody: addresses of files need no key.
pub fn nobody(server: &Server) -> Client {
    server.client("")
}

pub fn upload_path(client: &Client, run: &str, name: &str) -> String {
    let data = client.data(CREATE, &json!({"e": "team", "r": run, "f": [name]}));
    path(&data["createRunFiles"]["files"][0]["uploadUrl"])
}

pub fn files(client: &Client, more: &Value) -> Vec<Value> {
    let mut variables = json!({"e": "team", "r": "r1"});
    for (key, value) in more.as_object().expect("an object") {
        variables[key] = value.clone();
    }
    let data = client.data(FILES, &variables);
    let edges = data["project"]["run"]["files"]["edges"].as_array();
    edges
        .expect("files")
        .iter()
        .map(|edge| edge["node"].clone())
        .collect()
}

/// All files below the folder of the server's files, with what they hold.
pub fn stored(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.join("queue.files")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let bytes = std::fs::read(entry.path()).expect("a file");
                found.push((entry.path().display().to_string(), bytes));
            }
        }
    }
    found
}

#[test]
fn a_file_is_uploaded_listed_and_downloaded_by_its_addresses() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    begin(&client, "r1");
    let put = upload_path(&client, "r1", "media/a b:c.txt");
    assert!(files(&client, &json!({})).is_empty(), "nothing came yet");
    assert_eq!(nobody(&server).request("PUT", &put, "", b"hello\n").0, 200);
    let all = files(&client, &json!({"n": ["media/a b:c.txt"]}));
    assert_eq!(all[0]["name"], "media/a b:c.txt");
    assert_eq!(all[0]["sizeBytes"], 6);
    assert_eq!(all[0]["md5"], "sZRqySSS0jR8YjW00mERhA==");
    let get = path(&all[0]["directUrl"]);
    assert_eq!(
        nobody(&server).request("GET", &get, "", b""),
        (200, b"hello\n".to_vec())
    );
    // A new content takes the place of the old one, which goes.
    let put = upload_path(&client, "r1", "media/a b:c.txt");
    nobody(&server).request("PUT", &put, "", b"again");
    assert_eq!(nobody(&server).request("GET", &get, "", b"").1, b"again");
    let on_disk: Vec<Vec<u8>> = stored(folder.path())
        .into_iter()
        .map(|file| file.1)
        .collect();
    assert_eq!(on_disk, [b"again".to_vec()]);
    let both = files(&client, &json!({"n": ["other", "media/a b:c.txt"]}));
    assert_eq!((both.len(), &both[1]["name"]), (2, &json!("other")));
    assert_eq!(
        (&both[1]["md5"], &both[1]["sizeBytes"]),
        (&json!("0"), &json!(0))
    );
    let nothing = path(&both[1]["directUrl"]);
    assert_eq!(nobody(&server).request("GET", &nothing, "", b"").0, 404);
    assert_eq!(files(&client, &json!({"p": "media/%"})).len(), 1);
    // It goes with its run.
    let delete =
        "mutation d($f: [ID!]!) { deleteFiles(input: {files: $f, projectId: 1}) { success } }";
    client.data(delete, &json!({"f": [all[0]["id"]]}));
    assert_eq!(nobody(&server).request("GET", &get, "", b"").0, 404);
    assert!(stored(folder.path()).is_empty());
}

#[test]
fn an_address_is_of_one_file_and_one_direction() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    begin(&client, "r1");
    let put = upload_path(&client, "r1", "a.txt");
    let nobody = nobody(&server);
    assert_eq!(nobody.request("GET", &put, "", b"").0, 405);
    assert_eq!(nobody.request("DELETE", &put, "", b"").0, 405);
    nobody.request("PUT", &put, "", b"a");
    let get = path(&files(&client, &json!({}))[0]["directUrl"]);
    assert_eq!(nobody.request("PUT", &get, "", b"b").0, 405);
    let mut forged = get.clone();
    forged.pop();
    for wrong in [
        forged.as_str(),
        "/storage/",
        "/storage/../queue.db",
        "/storage/..%2fqueue.db",
        "/storage//etc/passwd",
        "/storage/cHV0.c2ln",
    ] {
        assert_eq!(nobody.request("GET", wrong, "", b"").0, 403, "{wrong}");
        assert_eq!(
            client.request("GET", wrong, "", b"").0,
            403,
            "a key helps nothing: {wrong}"
        );
    }
}

#[test]
fn no_name_leaves_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    begin(&client, "r1");
    for name in [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/.",
        "a\u{0}b",
        "a\nb",
        "..\\x",
        &"x".repeat(1025),
    ] {
        let error = client.error(CREATE, &json!({"e": "team", "r": "r1", "f": [name]}));
        assert!(error.contains("cannot be the name of a file"), "{error}");
    }
    // A long name with many parts is only a name: it lies under its content's digest like any other.
    let long = "d/".repeat(500) + "f";
    let put = upload_path(&client, "r1", &long);
    assert_eq!(nobody(&server).request("PUT", &put, "", b"x").0, 200);
    let (place, _) = stored(folder.path()).pop().expect("a file");
    // A link in the place of a content is not followed.
    std::fs::remove_file(&place).expect("removed");
    std::os::unix::fs::symlink(folder.path().join("queue.db"), &place).expect("linked");
    let get = path(&files(&client, &json!({}))[0]["directUrl"]);
    assert_eq!(nobody(&server).request("GET", &get, "", b"").0, 503);
}

#[test]
fn an_upload_that_breaks_off_never_becomes_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    begin(&client, "r1");
    let put = upload_path(&client, "r1", "a.txt");
    {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&server.address).expect("connected");
        let head = format!("PUT {put} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(files(&client, &json!({})).is_empty());
    assert!(stored(folder.path()).is_empty());
    let wrong = "Content-MD5: sZRqySSS0jR8YjW00mERhA==\r\n";
    assert_eq!(nobody(&server).request("PUT", &put, wrong, b"other").0, 400);
    assert!(stored(folder.path()).is_empty());
}

#[test]
fn there_is_no_more_room_than_the_quota() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_with(
        folder.path(),
        &["--listen", "127.0.0.1:0", "--disk-quota", "0"],
    );
    let client = server.client(&server.key("alice", &["team"]));
    let team = super::Member {
        client: &client,
        entity: "team",
    };
    let config = folder.path().join("config.json");
    std::fs::write(&config, "{}").expect("written");
    let config = config.to_str().expect("UTF-8");
    server.cli(&["queue", "create", "team/q", "--config", config]);
    let spec = json!({"project": "demo", "docker": {"docker_image": "a:1"}});
    let told = client.error(super::PUSH, &team.push_variables("q", &spec));
    assert!(told.contains("no room left"), "{told}");
    let save = "mutation s { createDefaultResourceConfig(input: {entityName: \"team\", resource: \"local-container\", config: \"{}\"}) { defaultResourceConfigID } }";
    let told = client.error(save, &json!({}));
    assert!(told.contains("no room left"), "{told}");
    let more = json!({"e": "team", "q": "more", "c": "{}", "v": "{}", "m": "V0"});
    let told = client.error(super::UPSERT_QUEUE, &more);
    assert!(told.contains("no room left"), "{told}");
    begin(&client, "r1");
    let put = upload_path(&client, "r1", "a.txt");
    let (status, body) = nobody(&server).request("PUT", &put, "", b"x");
    assert_eq!(status, 413);
    assert!(String::from_utf8_lossy(&body).contains("no room left"));
    assert!(stored(folder.path()).is_empty());
    let path = "/files/team/demo/r1/file_stream";
    let line = json!({"files": {"output.log": {"offset": 0, "content": ["x"]}}, "complete": true, "exitcode": 0});
    assert_eq!(
        client
            .request("POST", path, "", line.to_string().as_bytes())
            .0,
        413
    );
    let place = json!({"e": "team", "p": "demo", "r": "r1"});
    let run = client.data(super::RUN, &place);
    assert_eq!(
        run["project"]["run"]["state"], "finished",
        "how it ended takes no room"
    );
}

#[test]
fn another_entitys_files_are_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    begin(&client, "r1");
    let put = upload_path(&client, "r1", "a.txt");
    nobody(&server).request("PUT", &put, "", b"a");
    let id = files(&client, &json!({}))[0]["id"].clone();
    let stranger = server.client(&server.key("mallory", &["other"]));
    stranger.error(CREATE, &json!({"e": "team", "r": "r1", "f": ["b.txt"]}));
    stranger.error(CREATE, &json!({"e": "other", "r": "r1", "f": ["b.txt"]}));
    stranger.error(
        "mutation d($f: [ID!]!) { deleteFiles(input: {files: $f}) { success } }",
        &json!({"f": [id]}),
    );
    let data = stranger.data(FILES, &json!({"e": "team", "r": "r1"}));
    assert_eq!(data["project"], Value::Null);
    assert_eq!(files(&client, &json!({})).len(), 1);
}

#[test]
fn a_file_of_a_run_that_is_gone_has_no_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let id = begin(&client, "r1");
    let put = upload_path(&client, "r1", "a.txt");
    nobody(&server).request("PUT", &put, "", b"a");
    let delete = "mutation d($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }";
    client.data(delete, &json!({"id": id}));
    assert!(stored(folder.path()).is_empty(), "its files went with it");
    assert_eq!(nobody(&server).request("PUT", &put, "", b"b").0, 404);
    assert!(stored(folder.path()).is_empty());
}

/// A server whose files may take 100,000 bytes.
fn small(folder: &Path) -> (Here, Client) {
    let queue = LocalQueue::open(&folder.join("queue.db")).expect("a queue");
    let team = ["team".to_owned()];
    let key = queue.create_key("alice", &team).expect("a key").key;
    let server = Here::start(queue, 100_000);
    let address = server.address.to_string();
    (server, Client { address, key })
}

#[test]
fn lines_without_a_letter_take_room_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = small(folder.path());
    begin(&client, "r1");
    let path = "/files/team/demo/r1/file_stream";
    let post = |offset: usize, count: usize| {
        let report =
            json!({"files": {"output.log": {"offset": offset, "content": vec![""; count]}}});
        let path = "/files/team/demo/r1/file_stream";
        client
            .request("POST", path, "", report.to_string().as_bytes())
            .0
    };
    // The same lines again are the same lines.
    let statuses: Vec<u16> = [(0, 1_000), (0, 1_000), (1_000, 1_000), (2_000, 2_000)]
        .map(|(offset, count)| post(offset, count))
        .to_vec();
    assert_eq!(statuses, [200, 200, 200, 413]);
    // A new life gives back what the old one took.
    let ended = json!({"complete": true, "exitcode": 1}).to_string();
    assert_eq!(client.request("POST", path, "", ended.as_bytes()).0, 200);
    begin(&client, "r1");
    assert_eq!([post(0, 1), post(1, 2_500)], [200, 200]);
}

#[test]
fn uploads_at_the_same_time_have_one_quota_together() {
    use std::io::{BufReader, Write};

    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = small(folder.path());
    begin(&client, "r1");
    let upload = |name: &str| {
        let put = upload_path(&client, "r1", name);
        let mut stream = std::net::TcpStream::connect(server.address).expect("connected");
        let head = format!("PUT {put} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(&[b'a'; 10_000]).expect("sent");
        stream
    };
    // Each of them alone has room. The second one ends while the first one is still on its way.
    let mut uploads = [upload("a.bin"), upload("b.bin")];
    let statuses = [1, 0].map(|which| {
        let stream = &mut uploads[which];
        let rest = vec![b'0' + u8::try_from(which).expect("a digit"); 50_000];
        // Who is refused may be cut off before all is sent.
        let _ = stream.write_all(&rest);
        read_answer(&mut BufReader::new(stream))
            .expect("an answer")
            .0
    });
    assert_eq!(statuses, [200, 413]);
    let bytes: usize = stored(folder.path()).iter().map(|file| file.1.len()).sum();
    assert_eq!(bytes, 60_000);
}

#[test]
fn an_address_ends_with_the_key_that_it_was_given_out_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let other = server.client(&server.key("bob", &["team"]));
    begin(&client, "r1");
    let put = upload_path(&client, "r1", "a.txt");
    assert_eq!(nobody(&server).request("PUT", &put, "", b"a").0, 200);
    let get = path(&files(&client, &json!({}))[0]["directUrl"]);
    let others = path(&files(&other, &json!({}))[0]["directUrl"]);
    assert_eq!(nobody(&server).request("GET", &get, "", b"").0, 200);
    server.cli(&["serve", "key", "revoke", "1"]);
    for (method, path) in [("PUT", &put), ("GET", &get)] {
        let (status, body) = nobody(&server).request(method, path, "", b"");
        assert_eq!(status, 403, "{method}");
        assert!(String::from_utf8_lossy(&body).contains("is revoked"));
    }
    assert_eq!(nobody(&server).request("GET", &others, "", b"").0, 200);
}
