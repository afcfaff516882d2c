//! Jobs by name: made, kept, fetched and made ready, from the embedded queue, over the wire, and from git.

mod git;
mod local;
#[cfg(feature = "serve")]
mod wire;

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::path::Path;

use launch_agent::agent::code::{Fetch, fetch};
use launch_agent::failure::Result;
use launch_agent::host::source::{Progress, Scratch};
use launch_agent::host::stop::Stop;
use launch_agent::launch::job::Code;
use launch_agent::launch::network::Network;
use launch_agent::launch::spec::LaunchSpec;
use launch_agent::queue::artifacts::Artifacts;
use serde_json::{Value, json};

/// What was said while a job was fetched.
#[derive(Default)]
struct Said(String);

impl Progress for Said {
    fn note(&mut self, line: &dyn Display) {
        let _ = writeln!(self.0, "{line}");
    }

    fn output(&mut self, bytes: &[u8]) {
        self.0.push_str(&String::from_utf8_lossy(bytes));
    }
}

/// A job that was fetched; its folder is there for as long as this is.
struct Fetched {
    scratch: Scratch,
    code: Result<Code>,
    said: String,
}

impl Fetched {
    fn code(&self) -> &Code {
        self.code
            .as_ref()
            .unwrap_or_else(|error| panic!("{error} ({:?})\n{}", error.hint, self.said))
    }

    fn identity(&self) -> &str {
        &self.code().source.as_ref().expect("a source").identity
    }

    fn error(&self) -> String {
        self.code.as_ref().expect_err("an error").message.clone()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.scratch.code().join(path)).unwrap_or_default()
    }
}

/// Fetches the job that a spec names.
fn fetch_spec(
    artifacts: &dyn Artifacts,
    spec: &Value,
    cache: &Path,
    environment: &BTreeMap<String, String>,
) -> Fetched {
    let (spec, _) = LaunchSpec::parse(spec).expect("a spec");
    let scratch = Scratch::make(cache).expect("a folder");
    let mut said = Said::default();
    let from = Fetch {
        artifacts,
        cache,
        scratch: &scratch,
        environment,
        network: &Network::default(),
        stop: &Stop::default(),
    };
    let code = fetch(&spec, &from, &mut said);
    Fetched {
        scratch,
        code,
        said: said.0,
    }
}

fn fetch_job(
    artifacts: &dyn Artifacts,
    job: &str,
    cache: &Path,
    environment: &BTreeMap<String, String>,
) -> Fetched {
    let spec = json!({"project": "demo", "job": job});
    fetch_spec(artifacts, &spec, cache, environment)
}
