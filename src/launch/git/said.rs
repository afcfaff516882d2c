//! What git's last words mean for the job's owner, and for the machine's. Pure.

use crate::failure::{Error, Kind};

/// Did the server only refuse to give one commit by itself, so that fetching everything may help?
pub fn wants_everything(said: &str) -> bool {
    [
        "not our ref",
        "unadvertised object",
        "couldn't find remote ref",
        "shallow",
        "no such remote ref",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// What git's last words mean for the job's owner, and for the machine's. `what` was attempted.
pub fn explain(what: &str, remote: &str, said: &str) -> Error {
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let error = |kind, why: &str| Error::new(kind, format!("{what}: {why}"));
    if has(&["No space left on device", "Disk quota exceeded"]) {
        return error(Kind::System, "no space left on the agent's disk")
            .hint("the agent's owner has to make room where its cache is (`XDG_CACHE_HOME`)");
    }
    if has(&[
        "Host key verification failed",
        "authenticity of host",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
    ]) {
        return error(Kind::Input, "ssh does not know the host's key, or it has changed").hint(
            "the agent's owner adds it as the agent's user: `ssh-keyscan HOST >> ~/.ssh/known_hosts`",
        );
    }
    if has(&[
        "could not read Username",
        "could not read Password",
        "terminal prompts disabled",
        "Authentication failed",
        "Permission denied (",
        "Access denied",
        "returned error: 401",
        "returned error: 403",
    ]) {
        let hint = if remote.starts_with("https") {
            "the agent's user needs a credential helper of git for this host (`git help credentials`), or the job a remote that needs no login"
        } else {
            "the agent's user needs an ssh key that this host takes, without a passphrase or in an ssh-agent"
        };
        return error(
            Kind::Input,
            "the repository needs a login, and the agent has none that it takes",
        )
        .hint(hint);
    }
    if has(&[
        "epository not found",
        "not found",
        "does not appear to be a git repository",
        "does not exist",
        "returned error: 404",
    ]) && !has(&["unable to find", "command not found"])
    {
        return error(
            Kind::Input,
            "there is no such repository, or it is closed to the agent's user",
        )
        .hint(
            "check the remote; a private repository needs a credential helper of git or an ssh key",
        );
    }
    if has(&["transport '", "protocol '"]) && has(&["not allowed"]) {
        return error(
            Kind::Input,
            &format!(
                "it goes over a transport that a job may not use: {}",
                last_words(said)
            ),
        )
        .hint("submodules too are fetched by https or ssh alone");
    }
    if has(&[
        "Could not resolve host",
        "Could not resolve hostname",
        "Connection refused",
        "Connection timed out",
        "Connection reset",
        "Failed to connect",
        "Network is unreachable",
        "Operation too slow",
    ]) {
        return error(
            Kind::Input,
            &format!("its host cannot be reached: {}", last_words(said)),
        )
        .hint("check the remote and the agent's network: git goes through `network.proxy` of launch-config.yaml, or else `https_proxy`");
    }
    if has(&["certificate"]) {
        return error(
            Kind::Input,
            &format!(
                "its host's certificate is not trusted: {}",
                last_words(said)
            ),
        )
        .hint("name your company's certificates in `network.ca_bundle` of launch-config.yaml");
    }
    error(Kind::Input, &last_words(said))
}

/// The line that says most: the first of ssh, or of git with `fatal:` or `error:`, or else the last one.
fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let telling = lines.iter().find(|line| {
        ["ssh:", "fatal:", "error:"]
            .iter()
            .any(|start| line.starts_with(start))
    });
    telling.or(lines.last()).map_or_else(
        || "git gave no reason".to_owned(),
        |line| (*line).to_owned(),
    )
}

/// What is wrong with a patch, in git's words: the first line that names a file.
pub fn explain_patch(said: &str) -> Error {
    let first = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("error: "))
        .map(|line| line.strip_prefix("patch failed: ").unwrap_or(line))
        .next();
    let place = first.map_or_else(|| last_words(said), str::to_owned);
    Error::input(format!("the job's `diff.patch` does not apply: {place}"))
        .hint("the patch is what was not committed when the job was made: commit it, and create the job again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_becomes_what_to_do() {
        for (said, means) in [
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                "needs a login",
            ),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                "needs a login",
            ),
            (
                "Host key verification failed.",
                "does not know the host's key",
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://h/r/' not found",
                "no such repository",
            ),
            (
                "fatal: unable to access 'https://h/': Could not resolve host: h",
                "cannot be reached",
            ),
            (
                "ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.",
                "cannot be reached: ssh: connect to host h port 22: Connection refused",
            ),
            (
                "fatal: unable to access 'https://h/': SSL certificate problem: self-signed",
                "is not trusted",
            ),
            (
                "error: file write error: No space left on device\nfatal: x",
                "no space left",
            ),
            (
                "fatal: transport 'file' not allowed",
                "a transport that a job may not use",
            ),
            (
                "warning: a\nfatal: something new\nmore",
                ": fatal: something new",
            ),
            ("", "git gave no reason"),
        ] {
            let error = explain("cannot fetch", "https://h/r", said);
            assert!(error.message.contains(means), "{said}: {error}");
        }
        assert_eq!(
            explain_patch(
                "error: patch failed: train.py:3\nerror: train.py: patch does not apply\n"
            )
            .message,
            "the job's `diff.patch` does not apply: train.py:3"
        );
    }
}
