//! Artifacts over W&B's protocol (PROTOCOL section 5, "Fetch sequence"): found by name or id, their manifest, and
//! their files by presigned addresses.

use std::collections::HashMap;
use std::io::Read;

use serde_json::{Value, json};

use super::client::{Client, edges, text};
use crate::failure::{Error, Kind, Result};
use crate::launch::job::ArtifactName;
use crate::queue::artifacts::{Artifact, ArtifactFile, Artifacts, read_manifest};

/// What is asked of an artifact, however it was found.
const ARTIFACT: &str = "id state versionIndex artifactSequence { name project { name entityName } } currentManifest { file { directUrl } }";

const FILE_ADDRESSES: &str = "query GetArtifactMembershipFileUrls($entity: String!, $project: String!, $collection: String!, $alias: String!, $cursor: String, $perPage: Int) {
  project(name: $project, entityName: $entity) { artifactCollection(name: $collection) { artifactMembership(aliasName: $alias) {
    files(after: $cursor, first: $perPage) { pageInfo { endCursor hasNextPage } edges { node { name directUrl } } } } } }
}";

/// Files on a page, as W&B's client asks for them.
const PAGE: usize = 5_000;

/// The most of a manifest that is read, in bytes.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// A page of the addresses of an artifact's files.
struct Page {
    /// Paths and addresses.
    files: Vec<(String, String)>,
    /// Where the next page begins.
    next: Option<String>,
}

impl Client {
    fn find(&self, name: &ArtifactName) -> Result<Value> {
        let (document, variables, place) = match name {
            ArtifactName::Id(id) => (
                format!("query ArtifactByID($id: ID!) {{ artifact(id: $id) {{ {ARTIFACT} }} }}"),
                json!({"id": id}),
                "/artifact",
            ),
            ArtifactName::Path {
                entity,
                project,
                name,
                alias,
            } => (
                format!(
                    "query ArtifactMembershipByName($entity: String!, $project: String!, $name: String!) {{ \
                     project(name: $project, entityName: $entity) {{ artifactCollectionMembership(name: $name) {{ \
                     artifact {{ {ARTIFACT} }} }} }} }}"
                ),
                json!({"entity": entity, "project": project, "name": format!("{name}:{alias}")}),
                "/project/artifactCollectionMembership/artifact",
            ),
        };
        let data = self.transport.repeated(&document, &variables)?;
        let found = data.pointer(place).cloned().unwrap_or_default();
        if found["state"] == "COMMITTED" {
            return Ok(found);
        }
        // The server tells an artifact that does not exist and one that is closed to us in the same way.
        Err(Error::new(
            Kind::NotFound,
            format!(
                "{} has no artifact `{name}`, or it is closed to this agent",
                self.base_url()
            ),
        )
        .hint("check entity, project, name and alias; the agent's key has to belong to the artifact's entity"))
    }

    fn manifest(&self, found: &Value) -> Result<Vec<ArtifactFile>> {
        let address = text(&found["currentManifest"]["file"], "directUrl")
            .ok_or_else(|| Error::input("it has no manifest"))?;
        let mut body = Vec::new();
        self.transport
            .download(&address)?
            .take(LARGEST_MANIFEST)
            .read_to_end(&mut body)
            .map_err(|cause| Error::system("its manifest broke off", cause))?;
        let manifest: Value = serde_json::from_slice(&body)
            .map_err(|cause| Error::input(format!("its manifest is not JSON: {cause}")))?;
        read_manifest(&manifest)
    }

    fn addresses(&self, artifact: &Artifact, cursor: Option<&str>) -> Result<Page> {
        let variables = json!({
            "entity": artifact.entity,
            "project": artifact.project,
            "collection": artifact.collection,
            "alias": format!("v{}", artifact.version),
            "cursor": cursor,
            "perPage": PAGE,
        });
        let data = self.transport.repeated(FILE_ADDRESSES, &variables)?;
        let page = &data["project"]["artifactCollection"]["artifactMembership"]["files"];
        let files = edges(page)
            .filter_map(|file| Some((text(file, "name")?, text(file, "directUrl")?)))
            .collect();
        let next = text(&page["pageInfo"], "endCursor")
            .filter(|_| page["pageInfo"]["hasNextPage"] == true);
        Ok(Page { files, next })
    }
}

impl Artifacts for Client {
    fn artifact(&self, name: &ArtifactName) -> Result<Artifact> {
        let found = self.find(name)?;
        let within = |error: Error| error.within(format_args!("artifact `{name}`"));
        let sequence = &found["artifactSequence"];
        let missing = || within(Error::input("the server does not say where it belongs"));
        Ok(Artifact {
            id: text(&found, "id").ok_or_else(missing)?,
            entity: text(&sequence["project"], "entityName").ok_or_else(missing)?,
            project: text(&sequence["project"], "name").ok_or_else(missing)?,
            collection: text(sequence, "name").ok_or_else(missing)?,
            version: found["versionIndex"].as_i64().ok_or_else(missing)?,
            files: self.manifest(&found).map_err(within)?,
        })
    }

    fn download(
        &self,
        artifact: &Artifact,
        wants: &dyn Fn(&ArtifactFile) -> bool,
        take: &mut dyn FnMut(&ArtifactFile, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut wanted: HashMap<&str, &ArtifactFile> = artifact
            .files
            .iter()
            .filter(|file| wants(file))
            .map(|file| (file.path.as_str(), file))
            .collect();
        let mut cursor = None;
        // Addresses are for minutes: those of a page are used before the next one is asked for.
        while !wanted.is_empty() {
            let page = self.addresses(artifact, cursor.as_deref())?;
            for (name, address) in page.files {
                if let Some(file) = wanted.remove(name.as_str()) {
                    take(file, &mut self.transport.download(&address)?)?;
                }
            }
            if page.next.is_none() || page.next == cursor {
                break;
            }
            cursor = page.next;
        }
        match wanted.keys().min() {
            None => Ok(()),
            Some(path) => Err(Error::input(format!(
                "{} gave no address for the file `{path}` of {}",
                self.base_url(),
                artifact.name()
            ))),
        }
    }
}
