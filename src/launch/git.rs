//! Every git command that is ever run for a job, as functions that give a [`CommandLine`], and what is read of
//! what git says. Pure.
//!
//! A repository is its author's, not the machine's owner's, so git is held short: it speaks https and ssh alone, also
//! for submodules; no hook and no program that the repository names runs; nothing waits for somebody to type. Who the
//! agent is comes from git's own settings: credential helpers, keys of ssh, `url.X.insteadOf`.
//!
//! Sources: git(1), git-config(1), gitmodules(5), ssh(1).

mod said;

use std::path::Path;

use crate::failure::{Error, Result};
use crate::launch::command::{CommandLine, Secret};
use crate::launch::network::Network;
pub use said::{explain, explain_patch, wants_everything};

/// The program. Found on the `PATH` of the agent.
pub const PROGRAM: &str = "git";

/// What a job's remote may look like, for hints.
const REMOTES: &str = "it is `https://HOST/PATH`, `ssh://HOST/PATH` or `USER@HOST:PATH`";

/// An error unless a job may have this remote: https or ssh, and nothing that git could take for an option, another
/// transport, a folder of this machine, or that carries a password.
pub fn check_remote(remote: &str) -> Result<()> {
    let refused = |why: &str, hint: &str| {
        Error::input(format!(
            "`{}` is not a remote that a job may have{why}",
            without_password(remote).escape_debug()
        ))
        .hint(hint)
    };
    let is_odd = |c: char| c.is_control() || c.is_whitespace();
    if remote.starts_with('-') || remote.contains(is_odd) {
        return Err(refused("", REMOTES));
    }
    let authority = match remote.split_once("://") {
        Some(("https" | "ssh", rest)) => rest.split('/').next().unwrap_or_default(),
        Some(_) => return Err(refused("", REMOTES)),
        None => scp_authority(remote).ok_or_else(|| refused("", REMOTES))?,
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err(refused(
            ", because it holds a password",
            "take it out, and give the agent's user a credential helper: `git help credentials`",
        ));
    }
    // ssh would take either for an option; git checks it too, in the versions that are held up to date.
    if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
        return Err(refused("", REMOTES));
    }
    Ok(())
}

/// `user@host` of `user@host:path`.
fn scp_authority(remote: &str) -> Option<&str> {
    let (authority, path) = remote.split_once(':')?;
    let (user, host) = authority.split_once('@')?;
    let is_plain = !authority.contains('/') && !path.starts_with(':');
    (is_plain && !user.is_empty() && !host.is_empty() && !path.is_empty()).then_some(authority)
}

fn without_password(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else {
        return remote.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("{scheme}://[redacted]@{host}{path}"),
        _ => remote.to_owned(),
    }
}

/// An error unless it can be the name of a commit, a branch or a tag (git-check-ref-format(1), and less than that).
pub fn check_commit(commit: &str) -> Result<()> {
    let is_odd = |c: char| c.is_control() || " ~^:?*[\\\"'".contains(c);
    if commit.is_empty()
        || commit.len() > 250
        || commit.starts_with(['-', '/', '.', '+'])
        || commit.contains(is_odd)
        || commit.contains("..")
        || commit.contains("@{")
    {
        return Err(Error::input(format!(
            "`{}` is not the name of a commit",
            commit.escape_debug()
        ))
        .hint("it is 40 hexadecimal digits, a branch or a tag"));
    }
    Ok(())
}

/// Is it the full name of a commit?
pub fn is_full_name(commit: &str) -> bool {
    [40, 64].contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `URL` and `REF` of `URL[@REF]`, where the `@` of `user@host` is none of ours.
pub fn split_ref(text: &str) -> (&str, Option<&str>) {
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.find('/').map(|slash| text.len() - rest.len() + slash),
        None => text.find(':'),
    };
    let at = path.and_then(|path| text[path..].rfind('@').map(|at| path + at));
    match at {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// How git reaches remotes without anybody at the keyboard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// `GIT_SSH_COMMAND` or `core.sshCommand`: how the machine's owner wants ssh to be called.
    pub ssh_command: Option<String>,
    /// How this machine reaches the world.
    pub network: Network,
}

/// Prints how the machine's owner wants ssh to be called, if at all.
pub fn ssh_command() -> CommandLine {
    CommandLine::new(PROGRAM).args(["config", "--get", "core.sshCommand"])
}

impl Access {
    fn git(&self, folder: Option<&Path>) -> CommandLine {
        let mut git = CommandLine::new(PROGRAM);
        if let Some(folder) = folder {
            git = git.arg("-C").arg(folder.to_string_lossy());
        }
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "protocol.ext.allow=never",
            "protocol.file.allow=never",
            "submodule.recurse=false",
        ] {
            git = git.args(["-c", setting]);
        }
        let ssh = self.ssh_command.as_deref().unwrap_or("ssh");
        let ssh = format!(
            "{ssh} -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
        );
        for (name, value) in [
            // The list wins over every `protocol.*.allow`, and reaches the processes that fetch submodules.
            ("GIT_ALLOW_PROTOCOL", "https:ssh"),
            ("GIT_TERMINAL_PROMPT", "0"),
            // Empty is no program; that of SSH_ASKPASS, which ssh then always asks, says no.
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS", "false"),
            ("SSH_ASKPASS_REQUIRE", "force"),
            ("GCM_INTERACTIVE", "never"),
            ("GIT_SSH_COMMAND", &ssh),
            // `.lfsconfig` of the repository could send the agent's credentials anywhere.
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_HTTP_LOW_SPEED_LIMIT", "1000"),
            ("GIT_HTTP_LOW_SPEED_TIME", "60"),
            // What git says is looked at, so it says it in one language.
            ("LC_ALL", "C.UTF-8"),
        ] {
            git.env.insert(name.to_owned(), Secret::new(value));
        }
        for (name, value) in self.network.variables() {
            git.env.insert(name.to_owned(), value);
        }
        git
    }

    /// Makes an empty repository, without the machine's template for new ones.
    pub fn init(&self, folder: &Path) -> CommandLine {
        self.git(None)
            .args(["init", "--quiet", "--template="])
            .arg(folder.to_string_lossy())
    }

    /// Names the remote, which relative addresses of submodules start from.
    pub fn add_remote(&self, folder: &Path, remote: &str) -> CommandLine {
        self.git(Some(folder))
            .args(["remote", "add", "--", "origin", remote])
    }

    /// Fetches one commit, branch or tag without its history. Not every server allows that for a commit.
    pub fn fetch_one(&self, folder: &Path, commit: &str) -> CommandLine {
        self.git(Some(folder)).args([
            "fetch",
            "--no-tags",
            "--depth",
            "1",
            "--no-recurse-submodules",
            "--",
            "origin",
            commit,
        ])
    }

    /// Fetches everything.
    pub fn fetch_all(&self, folder: &Path) -> CommandLine {
        self.git(Some(folder)).args([
            "fetch",
            "--no-recurse-submodules",
            "--",
            "origin",
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
        ])
    }

    /// Prints the full name of a commit that is here; fails when it is not.
    pub fn name_of(&self, folder: &Path, commit: &str) -> CommandLine {
        self.git(Some(folder))
            .args(["rev-parse", "--quiet", "--verify", "--end-of-options"])
            .arg(format!("{commit}^{{commit}}"))
    }

    /// Writes the files of a commit.
    pub fn checkout(&self, folder: &Path, commit: &str) -> CommandLine {
        self.git(Some(folder)).args([
            "-c",
            "advice.detachedHead=false",
            "checkout",
            "--quiet",
            "--detach",
            commit,
            "--",
        ])
    }

    /// Writes the files of the submodules, with their history or without it.
    pub fn submodules(&self, folder: &Path, shallow: bool) -> CommandLine {
        let git = self.git(Some(folder)).args([
            "submodule",
            "update",
            "--init",
            "--recursive",
            "--force",
        ]);
        if shallow {
            return git.args(["--depth", "1"]);
        }
        git
    }

    /// Takes the files of all submodules away again.
    pub fn no_submodules(&self, folder: &Path) -> CommandLine {
        self.git(Some(folder))
            .args(["submodule", "deinit", "--quiet", "--force", "--all"])
    }

    /// Applies a patch to the files.
    pub fn apply(&self, folder: &Path, patch: &Path) -> CommandLine {
        self.git(Some(folder))
            .args(["apply", "--whitespace=nowarn", "--"])
            .arg(patch.to_string_lossy())
    }

    /// Prints the commits that the names of a remote stand for, a line each.
    pub fn ls_remote(&self, remote: &str) -> CommandLine {
        self.git(None).args(["ls-remote", "--", remote])
    }
}

/// The commit that a name stands for, among the lines of `git ls-remote`: `SHA<TAB>NAME`. Branches go before tags, and
/// a tag with a text of its own stands for its commit.
pub fn pick_commit(lines: &str, name: &str) -> Option<String> {
    let wanted = [
        format!("refs/heads/{name}"),
        format!("refs/tags/{name}^{{}}"),
        format!("refs/tags/{name}"),
        name.to_owned(),
    ];
    wanted.iter().find_map(|wanted| {
        lines
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find(|(sha, found)| found == wanted && is_full_name(sha))
            .map(|(sha, _)| sha.to_owned())
    })
}

/// The branches and tags among the lines of `git ls-remote`.
pub fn names(lines: &str) -> Vec<&str> {
    lines
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(_, name)| {
            name.strip_prefix("refs/heads/")
                .or_else(|| name.strip_prefix("refs/tags/"))
        })
        .filter(|name| !name.ends_with("^{}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_remotes_of_https_and_ssh_are_taken() {
        for remote in [
            "https://github.com/me/repo.git",
            "https://me@host:8443/repo",
            "ssh://git@host:22/repo",
            "git@github.com:me/repo.git",
            "me@host:repo",
        ] {
            check_remote(remote).expect(remote);
        }
        for remote in [
            "",
            "-u",
            "--upload-pack=touch /tmp/x",
            "http://h/r",
            "git://h/r",
            "file:///etc",
            "/etc",
            "./repo",
            "ext::sh -c id",
            "me@host:",
            "@host:p",
            "host:path",
            "me@ho/st:p",
            "https://",
            "https:///p",
            "ssh://-oProxyCommand=id/p",
            "me@-oProxyCommand=id:p",
            "-me@host:p",
            "https://h/a b",
            "https://h/\n",
            "fd::7",
            "HTTPS://h/r",
            "a@ext::sh",
            "transport::https://h/r",
        ] {
            let error = check_remote(remote).expect_err(remote);
            assert!(error.message.contains("is not a remote"), "{error}");
        }
        let error = check_remote("https://me:sesame@host/repo").expect_err("a password");
        assert_eq!(
            error.message,
            "`https://[redacted]@host/repo` is not a remote that a job may have, because it holds a password"
        );
    }

    #[test]
    fn names_of_commits_are_no_options_and_no_expressions() {
        for commit in [
            &"a".repeat(40),
            "main",
            "v1.2.3",
            "feature/x",
            "HEAD",
            "me@work",
        ] {
            check_commit(commit).expect(commit);
        }
        for commit in [
            "", "-f", "a..b", "main~1", "a^", "a:b", "a b", "+main", "@{u}", "x@{1}", ".a", "\n",
        ] {
            check_commit(commit).expect_err(commit);
        }
    }

    #[test]
    fn the_ref_is_what_follows_the_path() {
        for (text, url, name) in [
            ("https://h/me/r", "https://h/me/r", None),
            ("https://h/me/r@main", "https://h/me/r", Some("main")),
            (
                "https://me@h/r@feature/x",
                "https://me@h/r",
                Some("feature/x"),
            ),
            ("https://me@h/r", "https://me@h/r", None),
            ("git@h:me/r.git", "git@h:me/r.git", None),
            ("git@h:me/r.git@v1", "git@h:me/r.git", Some("v1")),
            ("ssh://git@h/r@v1", "ssh://git@h/r", Some("v1")),
        ] {
            assert_eq!(split_ref(text), (url, name), "{text}");
        }
    }

    #[test]
    fn git_gets_no_way_to_ask_and_no_other_transport() {
        let access = Access {
            ssh_command: Some("ssh -i key".to_owned()),
            network: Network {
                ca_bundle: Some("/etc/company.pem".into()),
                proxy: Some(Secret::new("http://me:sesame@proxy:1")),
                no_proxy: None,
            },
        };
        let fetch = access.fetch_one(Path::new("/w/code"), "main");
        assert_eq!(
            fetch.to_string(),
            "git -C /w/code -c core.hooksPath=/dev/null -c core.fsmonitor=false -c protocol.ext.allow=never \
             -c protocol.file.allow=never -c submodule.recurse=false fetch --no-tags --depth 1 --no-recurse-submodules -- origin main"
        );
        let env = |name: &str| fetch.env[name].expose();
        assert_eq!(env("GIT_ALLOW_PROTOCOL"), "https:ssh");
        assert_eq!(env("GIT_TERMINAL_PROMPT"), "0");
        assert_eq!(env("GIT_SSL_CAINFO"), "/etc/company.pem");
        assert_eq!(env("https_proxy"), "http://me:sesame@proxy:1");
        assert!(env("GIT_SSH_COMMAND").starts_with("ssh -i key -o BatchMode=yes"));
    }

    #[test]
    fn a_name_stands_for_its_branch_then_its_tag() {
        let (a, b, c, d) = (
            "a".repeat(40),
            "b".repeat(40),
            "c".repeat(40),
            "d".repeat(40),
        );
        let lines = format!(
            "{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/heads/x/main\n{c}\trefs/tags/v1\n{d}\trefs/tags/v1^{{}}\nwarning\n"
        );
        for (name, commit) in [
            ("HEAD", Some(&a)),
            ("main", Some(&a)),
            ("v1", Some(&d)),
            ("x/main", Some(&b)),
            ("refs/tags/v1", Some(&c)),
            ("nope", None),
        ] {
            assert_eq!(pick_commit(&lines, name).as_ref(), commit, "{name}");
        }
        assert_eq!(names(&lines), ["main", "x/main", "v1"]);
    }
}
