//! Runs git for a job: one commit, its submodules, its patch. What git may do is decided in `launch/git.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use super::{Progress, refused};
use crate::failure::{Error, Result};
use crate::host::process::{self, Ending};
use crate::host::stop::{Activity, Stop};
use crate::launch::command::CommandLine;
use crate::launch::git::{self, Access, explain, explain_patch, is_full_name};
use crate::launch::network::Network;
use crate::queue::artifacts::hex;

/// How long one step may take: a fetch of a large repository over a slow line.
const STEP: Duration = Duration::from_secs(1_800);

/// How long a question to git on this machine, or to a remote about its names, may take.
const QUESTION: Duration = Duration::from_secs(60);

/// How much of what git says is looked at when it fails.
const REMEMBERED: usize = 16 * 1024;

/// What git needs of its surroundings.
pub struct Fetching<'a> {
    /// The agent's environment.
    pub environment: &'a BTreeMap<String, String>,
    /// How this machine reaches the world.
    pub network: &'a Network,
    /// Whether the job shall stop.
    pub stop: &'a Stop,
}

impl Fetching<'_> {
    /// Writes the files of a commit into the empty folder `folder` and applies the patch. Gives their identity.
    pub fn fetch(
        &self,
        remote: &str,
        commit: &str,
        patch: Option<&Path>,
        folder: &Path,
        log: &mut dyn Progress,
    ) -> Result<String> {
        git::check_remote(remote)?;
        git::check_commit(commit)?;
        let access = access(self.environment, self.network)?;
        self.must(
            &access.init(folder),
            "cannot make a repository",
            remote,
            log,
        )?;
        let cannot = format!("cannot fetch `{commit}` of {remote}");
        self.must(&access.add_remote(folder, remote), &cannot, remote, log)?;
        let name = self.fetch_commit(&access, remote, commit, folder, log)?;
        self.must(&access.checkout(folder, &name), &cannot, remote, log)?;
        if folder.join(".gitmodules").exists() {
            self.submodules(&access, remote, folder, log)?;
        }
        warn_of_large_files(folder, log);
        let mut identity = format!("git:{remote}@{name}");
        if let Some(patch) = patch {
            let text = fs::read(patch).map_err(|cause| refused("read", patch, &cause))?;
            if !text.trim_ascii().is_empty() {
                let ran = self.run(&access.apply(folder, patch), log)?;
                if !ran.succeeded {
                    return Err(explain_patch(&ran.said));
                }
                identity.push('+');
                identity.push_str(&hex(&Sha256::digest(&text)));
            }
        }
        Ok(identity)
    }

    /// Fetches a commit, alone where the server gives it, else with everything. Gives its full name.
    fn fetch_commit(
        &self,
        access: &Access,
        remote: &str,
        commit: &str,
        folder: &Path,
        log: &mut dyn Progress,
    ) -> Result<String> {
        let cannot = format!("cannot fetch `{commit}` of {remote}");
        let alone = self.run(&access.fetch_one(folder, commit), log)?;
        if alone.succeeded {
            if let Some(name) = self.name_of(access, folder, "FETCH_HEAD")? {
                return Ok(name);
            }
        } else if !git::wants_everything(&alone.said) {
            return Err(explain(&cannot, remote, &alone.said));
        }
        self.must(&access.fetch_all(folder), &cannot, remote, log)?;
        for name in [format!("refs/remotes/origin/{commit}"), commit.to_owned()] {
            if let Some(name) = self.name_of(access, folder, &name)? {
                return Ok(name);
            }
        }
        let what = if is_full_name(commit) {
            "commit"
        } else {
            "commit, branch or tag"
        };
        Err(Error::input(format!("{remote} has no {what} `{commit}`"))
            .hint("it may never have been pushed there, or a branch was rewritten: push it, and create the job again"))
    }

    fn submodules(
        &self,
        access: &Access,
        remote: &str,
        folder: &Path,
        log: &mut dyn Progress,
    ) -> Result<()> {
        let shallow = self.run(&access.submodules(folder, true), log)?;
        if shallow.succeeded {
            return Ok(());
        }
        let cannot = format!("cannot fetch the submodules of {remote}");
        if !git::wants_everything(&shallow.said) {
            return Err(explain(&cannot, remote, &shallow.said));
        }
        // What was fetched without its history stays so: git would ask for the one commit again, and not for all.
        self.must(&access.no_submodules(folder), &cannot, remote, log)?;
        let kept = folder.join(".git/modules");
        match fs::remove_dir_all(&kept) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(refused("remove", &kept, &cause));
            }
            _ => {}
        }
        self.must(&access.submodules(folder, false), &cannot, remote, log)
    }

    fn name_of(&self, access: &Access, folder: &Path, name: &str) -> Result<Option<String>> {
        self.stop.check()?;
        let output = process::output(&access.name_of(folder, name), QUESTION)?;
        let name = output.stdout.trim().to_owned();
        Ok(Some(name).filter(|name| output.is_success() && is_full_name(name)))
    }

    fn must(
        &self,
        command: &CommandLine,
        cannot: &str,
        remote: &str,
        log: &mut dyn Progress,
    ) -> Result<()> {
        let ran = self.run(command, log)?;
        if ran.succeeded {
            return Ok(());
        }
        Err(explain(cannot, remote, &ran.said))
    }

    /// Runs a command to its end, to the job's stop, or until it has had its time.
    fn run(&self, command: &CommandLine, log: &mut dyn Progress) -> Result<Ran> {
        self.stop.check()?;
        log.note(command);
        let mut said: Vec<u8> = Vec::new();
        let late = AtomicBool::new(false);
        let (ended, waiting) = channel::<()>();
        let ending = std::thread::scope(|scope| {
            let late = &late;
            let ending = process::stream(
                command,
                |group| {
                    self.stop.now(Activity::Command(group));
                    scope.spawn(move || {
                        if waiting.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                            late.store(true, Ordering::Relaxed);
                            group.signal(Signal::SIGKILL);
                        }
                    });
                },
                |bytes| {
                    log.output(bytes);
                    said.extend_from_slice(bytes);
                    let over = said.len().saturating_sub(REMEMBERED);
                    said.drain(..over);
                },
            );
            // Whoever waits hears that the other side is gone.
            drop(ended);
            ending
        });
        self.stop.now(Activity::Between);
        self.stop.check()?;
        let ending = ending?;
        if late.load(Ordering::Relaxed) {
            return Err(Error::input(format!(
                "`{command}` took more than {} minutes and was ended",
                STEP.as_secs() / 60
            ))
            .hint("the repository is too large, or its host too slow; a job made of a code artifact needs no git"));
        }
        Ok(Ran {
            succeeded: ending == Ending::Code(0),
            said: String::from_utf8_lossy(&said).into_owned(),
        })
    }
}

struct Ran {
    succeeded: bool,
    said: String,
}

/// The commit that a branch, a tag or `HEAD` of a remote stands for now.
pub fn pin(
    remote: &str,
    name: Option<&str>,
    environment: &BTreeMap<String, String>,
    network: &Network,
) -> Result<String> {
    git::check_remote(remote)?;
    let name = name.unwrap_or("HEAD");
    git::check_commit(name)?;
    if is_full_name(name) {
        return Ok(name.to_owned());
    }
    let output = process::output(&access(environment, network)?.ls_remote(remote), QUESTION)?;
    if !output.is_success() {
        return Err(explain(
            &format!("cannot ask {remote} for `{name}`"),
            remote,
            &output.stderr,
        ));
    }
    git::pick_commit(&output.stdout, name).ok_or_else(|| {
        Error::input(format!("{remote} has no branch or tag `{name}`"))
            .hint("name a branch, a tag or all 40 digits of a commit: `--git URL@REF`")
            .closest(name, git::names(&output.stdout))
    })
}

/// How the machine's owner wants ssh to be called; git's own settings are asked where the environment does not say.
fn access(environment: &BTreeMap<String, String>, network: &Network) -> Result<Access> {
    let ssh_command = match environment.get("GIT_SSH_COMMAND") {
        Some(command) if !command.is_empty() => Some(command.clone()),
        _ => {
            let said = process::output(&git::ssh_command(), QUESTION).map_err(|error| {
                error.hint("jobs from git repositories need `git` on the agent's machine")
            })?;
            Some(said.stdout.trim().to_owned()).filter(|command| !command.is_empty())
        }
    };
    Ok(Access {
        ssh_command,
        network: network.clone(),
    })
}

fn warn_of_large_files(folder: &Path, log: &mut dyn Progress) {
    let attributes = fs::read_to_string(folder.join(".gitattributes")).unwrap_or_default();
    if attributes.contains("filter=lfs") {
        log.note(&"[launch-agent: the repository keeps files in Git LFS, which are not fetched: the job finds their pointers]");
    }
}
