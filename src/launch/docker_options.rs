//! The options of `docker run`: their names, and whether they take a value. Pure: a table, and a reader for the
//! text of `docker run --help`.
//!
//! Knowing this is what keeps the image in its place: an unknown option could take the image for its value, and a
//! value for an option that takes none would become the image.
//!
//! Source: `docker run --help` of docker 28 and docker/cli's `cli/command/container/opts.go`, which also has the
//! options that the help hides.

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true` and `=false`.
    Flag,
    /// One value; of several, docker takes the last.
    Value,
    /// A value each time that it is given.
    List,
    /// The same, where each value is `KEY=VALUE`.
    KeyValue,
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownOption {
    /// The long name, without dashes.
    pub name: String,
    /// The one-letter name, where there is one.
    pub letter: Option<char>,
    /// What it takes.
    pub kind: Kind,
}

/// Each option by what it takes, its one-letter name before the long one.
const DOCKER_28: [(Kind, &[&str]); 4] = [
    (
        Kind::Flag,
        &[
            "d detach",
            "disable-content-trust",
            "help",
            "init",
            "i interactive",
            "no-healthcheck",
            "oom-kill-disable",
            "privileged",
            "P publish-all",
            "q quiet",
            "read-only",
            "rm",
            "sig-proxy",
            "t tty",
            "use-api-socket",
        ],
    ),
    (
        Kind::Value,
        &[
            "blkio-weight",
            "cgroup-parent",
            "cgroupns",
            "cidfile",
            "cpu-count",
            "cpu-percent",
            "cpu-period",
            "cpu-quota",
            "cpu-rt-period",
            "cpu-rt-runtime",
            "c cpu-shares",
            "cpus",
            "cpuset-cpus",
            "cpuset-mems",
            "detach-keys",
            "domainname",
            "entrypoint",
            "health-cmd",
            "health-interval",
            "health-retries",
            "health-start-interval",
            "health-start-period",
            "health-timeout",
            "h hostname",
            "io-maxbandwidth",
            "io-maxiops",
            "ip",
            "ip6",
            "ipc",
            "isolation",
            "kernel-memory",
            "log-driver",
            "mac-address",
            "m memory",
            "memory-reservation",
            "memory-swap",
            "memory-swappiness",
            "name",
            "oom-score-adj",
            "pid",
            "pids-limit",
            "platform",
            "pull",
            "restart",
            "runtime",
            "shm-size",
            "stop-signal",
            "stop-timeout",
            "u user",
            "userns",
            "uts",
            "volume-driver",
            "w workdir",
        ],
    ),
    (
        Kind::List,
        &[
            "add-host",
            "a attach",
            "blkio-weight-device",
            "cap-add",
            "cap-drop",
            "device",
            "device-cgroup-rule",
            "device-read-bps",
            "device-read-iops",
            "device-write-bps",
            "device-write-iops",
            "dns",
            "dns-opt",
            "dns-option",
            "dns-search",
            "env-file",
            "expose",
            "gpus",
            "group-add",
            "label-file",
            "link",
            "link-local-ip",
            "mount",
            "net",
            "net-alias",
            "network",
            "network-alias",
            "p publish",
            "security-opt",
            "tmpfs",
            "v volume",
            "volumes-from",
        ],
    ),
    (
        Kind::KeyValue,
        &[
            "annotation",
            "e env",
            "l label",
            "log-opt",
            "storage-opt",
            "sysctl",
            "ulimit",
        ],
    ),
];

/// Older names that docker keeps beside the ones it recommends.
const SAME_AS: [(&str, &str); 3] = [
    ("dns-opt", "dns-option"),
    ("net", "network"),
    ("net-alias", "network-alias"),
];

/// The options that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionTable(Vec<KnownOption>);

impl OptionTable {
    /// All options of `docker run` in docker 28.
    pub fn docker_28() -> Self {
        let options = DOCKER_28.iter().flat_map(|(kind, names)| {
            names.iter().map(|names| {
                let (letter, name) = names.split_once(' ').unwrap_or(("", names));
                KnownOption {
                    name: name.to_owned(),
                    letter: letter.chars().next(),
                    kind: *kind,
                }
            })
        });
        OptionTable(options.collect())
    }

    /// Adds what the text of `docker run --help` knows beyond the table: an installed docker may be newer. What is
    /// known already stays as it is, because the help does not tell a list from a value that is given once.
    #[must_use]
    pub fn with_help(mut self, help: &str) -> Self {
        let options = help
            .lines()
            .skip_while(|line| !line.trim().eq_ignore_ascii_case("options:"));
        for option in options.filter_map(option_of_help) {
            if self.find(&option.name).is_none() {
                let letter = option
                    .letter
                    .filter(|letter| self.find(&letter.to_string()).is_none());
                self.0.push(KnownOption { letter, ..option });
            }
        }
        self
    }

    /// The option that a key of a queue config means, see [`plain`].
    pub fn find(&self, key: &str) -> Option<&KnownOption> {
        let name = plain(key);
        self.0
            .iter()
            .find(|option| option.name == name || is_letter(option.letter, &name))
    }

    /// The one name for all spellings of an option: `-e`, `--env` and `env` are `env`, `net` is `network`.
    pub fn canonical(&self, key: &str) -> String {
        let name = self
            .find(key)
            .map_or_else(|| plain(key), |option| option.name.clone());
        SAME_AS
            .iter()
            .find(|(older, _)| *older == name)
            .map_or(name, |(_, newer)| (*newer).to_owned())
    }

    /// The long names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|option| option.name.as_str())
    }
}

/// A key of a queue config as an option's name: blanks around it and leading dashes gone, `_` as `-`.
pub fn plain(key: &str) -> String {
    key.trim()
        .trim_start_matches('-')
        .trim_start()
        .replace('_', "-")
}

fn is_letter(letter: Option<char>, name: &str) -> bool {
    let mut chars = name.chars();
    letter.is_some() && chars.next() == letter && chars.next().is_none()
}

/// Reads a line such as `  -e, --env list    Set environment variables`. Lines that go on with a description are
/// further in than any option.
fn option_of_help(line: &str) -> Option<KnownOption> {
    let text = line.trim_start();
    if line.len() - text.len() > 8 {
        return None;
    }
    let option = text.strip_prefix('-')?;
    let (letter, text) = if let Some(long) = option.strip_prefix('-') {
        (None, long)
    } else {
        let (letter, long) = option.split_once(", --")?;
        (letter.chars().next(), long)
    };
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    // One blank and a word is the type of the value; more blanks lead to the description.
    let kind = match rest.strip_prefix(' ') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => kind_of_help(rest),
        _ => Kind::Flag,
    };
    Some(KnownOption {
        name: name.to_owned(),
        letter,
        kind,
    })
}

fn kind_of_help(rest: &str) -> Kind {
    match rest.split_whitespace().next() {
        Some("list" | "map" | "strings" | "stringArray") => Kind::List,
        _ => Kind::Value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "
Usage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]

      --not-an-option string   before the list begins

Options:
  -e, --env list                       Set environment variables
      --teleport place                 Where to
                                       go, see
                                       --teleport-back
      --turbo                          Run faster
  -T, --tag-me list                    Tags
      --blkio-weight-device-of-all-devices uint16
                                       A long one
      --quietly
  -v, --vroom                          Takes a letter that is taken
";

    #[test]
    fn names_are_there_once() {
        let table = OptionTable::docker_28();
        let names: std::collections::BTreeSet<&str> = table.names().collect();
        assert_eq!(names.len(), table.names().count());
        assert_eq!(names.len(), 107);
    }

    #[test]
    fn every_spelling_is_found() {
        let table = OptionTable::docker_28();
        for (key, canonical) in [
            ("env", "env"),
            ("e", "env"),
            ("-e", "env"),
            (" --shm_size ", "shm-size"),
            ("net", "network"),
            ("P", "publish-all"),
            ("p", "publish"),
            ("dns_opt", "dns-option"),
            ("wurst", "wurst"),
        ] {
            assert_eq!(table.canonical(key), canonical, "{key:?}");
        }
        assert!(table.find("").is_none());
        assert!(table.find("E").is_none());
    }

    #[test]
    fn help_adds_what_is_new() {
        let table = OptionTable::docker_28().with_help(HELP);
        let kind = |name| table.find(name).map(|option| option.kind);
        assert_eq!(kind("env"), Some(Kind::KeyValue));
        assert_eq!(kind("teleport"), Some(Kind::Value));
        assert_eq!(kind("turbo"), Some(Kind::Flag));
        assert_eq!(kind("T"), Some(Kind::List));
        assert_eq!(kind("quietly"), Some(Kind::Flag));
        assert_eq!(
            kind("blkio-weight-device-of-all-devices"),
            Some(Kind::Value)
        );
        assert_eq!(kind("vroom"), Some(Kind::Flag));
        assert_eq!(table.canonical("v"), "volume");
        assert_eq!(kind("not-an-option"), None);
        assert_eq!(kind("teleport-back"), None);
    }
}
