//! The places of a machine that no job may see, unless its owner says so. Pure: paths compared as paths.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// A place that is not handed to jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A file or folder with everything below it; or, with `stem`, everything whose path begins with this text.
    pub path: PathBuf,
    /// What it is, as the rest of the sentence "it is ..".
    pub what: &'static str,
    /// Whether `path` is only how the paths begin.
    pub stem: bool,
}

impl Place {
    /// A file or folder with everything below it.
    pub fn tree(path: impl Into<PathBuf>, what: &'static str) -> Self {
        Place {
            path: path.into(),
            what,
            stem: false,
        }
    }

    /// All paths that begin with this text.
    pub fn stem(path: impl Into<PathBuf>, what: &'static str) -> Self {
        Place {
            stem: true,
            ..Place::tree(path, what)
        }
    }

    /// Is this path in the place?
    pub fn has(&self, path: &Path) -> bool {
        if self.stem {
            let stem = self.path.as_os_str().as_encoded_bytes();
            return path.as_os_str().as_encoded_bytes().starts_with(stem);
        }
        path.starts_with(&self.path)
    }

    /// Is the place, or a part of it, somewhere below this path?
    pub fn is_below(&self, path: &Path) -> bool {
        let folder = if self.stem {
            self.path.parent().unwrap_or(&self.path)
        } else {
            &self.path
        };
        folder.starts_with(path)
    }
}

/// What belongs to the system on every machine. `true` is a stem.
const SYSTEM: &[(&str, bool, &str)] = &[
    ("/var/run/docker.sock", false, "docker's socket"),
    ("/run/docker.sock", false, "docker's socket"),
    ("/run/containerd", false, "the socket of docker's engine"),
    ("/run/podman", false, "podman's socket"),
    ("/var/lib/docker", false, "docker's own folder"),
    ("/var/lib/containerd", false, "docker's own folder"),
    ("/bin", false, "a system folder"),
    ("/boot", false, "a system folder"),
    ("/dev", false, "a system folder"),
    ("/efi", false, "a system folder"),
    ("/etc", false, "a system folder"),
    ("/gnu", false, "a system folder"),
    ("/lib", false, "a system folder"),
    ("/lib32", false, "a system folder"),
    ("/lib64", false, "a system folder"),
    ("/libx32", false, "a system folder"),
    ("/lost+found", false, "a system folder"),
    ("/nix", false, "a system folder"),
    ("/opt", false, "a system folder"),
    ("/ostree", false, "a system folder"),
    ("/proc", false, "a system folder"),
    ("/run", false, "a system folder"),
    ("/sbin", false, "a system folder"),
    ("/snap", false, "a system folder"),
    ("/sys", false, "a system folder"),
    ("/sysroot", false, "a system folder"),
    ("/timeshift", false, "a system folder"),
    ("/usr", false, "a system folder"),
    ("/var/backups", false, "a system folder"),
    ("/var/cache", false, "a system folder"),
    ("/var/crash", false, "a system folder"),
    ("/var/db", false, "a system folder"),
    ("/var/kerberos", false, "a system folder"),
    ("/var/lib", false, "a system folder"),
    ("/var/log", false, "a system folder"),
    ("/var/mail", false, "a system folder"),
    ("/var/opt", false, "a system folder"),
    ("/var/run", false, "a system folder"),
    ("/var/snap", false, "a system folder"),
    ("/var/spool", false, "a system folder"),
    ("/var/www", false, "a system folder"),
    ("/swap.img", false, "the machine's swapped memory"),
    ("/swapfile", false, "the machine's swapped memory"),
    (
        "/tmp/.ICE-unix",
        false,
        "where programs of this machine meet",
    ),
    (
        "/tmp/.X11-unix",
        false,
        "where programs of this machine meet",
    ),
    ("/tmp/ssh-", true, "where programs of this machine meet"),
    ("/tmp/tmux-", true, "where programs of this machine meet"),
    ("/tmp/systemd-private-", true, "a service's own folder"),
    ("/var/tmp/systemd-private-", true, "a service's own folder"),
];

/// The places of the system.
pub fn system() -> impl Iterator<Item = Place> {
    SYSTEM.iter().map(|(path, stem, what)| Place {
        path: PathBuf::from(path),
        what,
        stem: *stem,
    })
}

/// What is hidden at the root of the disk that this path is at or in: there systems keep older copies of themselves,
/// such as `/.snapshots`.
pub fn hidden_at_root(path: &Path) -> Option<PathBuf> {
    let first = path.strip_prefix("/").ok()?.components().next()?;
    let name = first.as_os_str();
    is_hidden(name).then(|| Path::new("/").join(name))
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// The home folders of a machine, with their links followed and as they are written.
#[derive(Debug, Clone)]
pub struct Homes {
    /// Each by itself: the owner's, and root's.
    pub single: Vec<PathBuf>,
    /// The folders of which each entry is one: `/home`.
    pub parents: Vec<PathBuf>,
}

/// Why a path is not handed over for the home folder that it is, holds, or is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeRefusal {
    /// It is a home folder, or holds some: the whole is more than a job needs.
    Whole(&'static str),
    /// It is in this entry of a home folder.
    Entry(PathBuf),
}

impl Homes {
    /// `None` for what is nobody's secret in a home folder: what is not hidden, and the caches of programs.
    pub fn refusal(&self, path: &Path) -> Option<HomeRefusal> {
        let mut single = self.single.iter();
        if single.any(|home| home != path && home.starts_with(path))
            || self.parents.iter().any(|parent| parent.starts_with(path))
        {
            return Some(HomeRefusal::Whole("holds home folders"));
        }
        let home = self.home_of(path)?;
        // Beside the homes are older copies of them.
        if !self.single.contains(&home) && home.file_name().is_some_and(is_hidden) {
            return Some(HomeRefusal::Entry(home));
        }
        let mut below = path.strip_prefix(&home).ok()?.components();
        let Some(Component::Normal(first)) = below.next() else {
            let why = "is a home folder, with keys and start-up files in it";
            return Some(HomeRefusal::Whole(why));
        };
        if first == ".cache"
            && let Some(cache) = below.next()
        {
            let in_cache = below.next().map(Component::as_os_str);
            return holds_login(cache.as_os_str(), in_cache)
                .then(|| HomeRefusal::Entry(home.join(first).join(cache)));
        }
        // Below `snap` programs keep what they hide elsewhere, docker its logins.
        let has_programs = first == "bin" || first == "snap";
        (is_hidden(first) || has_programs).then(|| HomeRefusal::Entry(home.join(first)))
    }

    /// The home folder that a path is in.
    fn home_of(&self, path: &Path) -> Option<PathBuf> {
        if let Some(home) = self.single.iter().find(|home| path.starts_with(home)) {
            return Some(home.clone());
        }
        self.parents.iter().find_map(|parent| {
            let name = path.strip_prefix(parent).ok()?.components().next()?;
            Some(parent.join(name))
        })
    }
}

/// Is the owner's login in this program's cache, or in what is mounted of it? Hugging Face keeps it beside the models.
fn holds_login(cache: &OsStr, entry: Option<&OsStr>) -> bool {
    cache == "huggingface" && entry.is_none_or(|entry| entry == "token" || entry == "stored_tokens")
}

/// The path without `.`, `..` and doubled slashes, by its text alone: what docker does with a path before it follows
/// a link.
pub fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_keeps_what_is_hidden_except_caches() {
        let homes = Homes {
            single: ["/data/me", "/root", "/var/roothome", "/srv/.me"]
                .map(Into::into)
                .into(),
            parents: ["/home", "/big/home"].map(Into::into).into(),
        };
        for (path, refused) in [
            ("/data/me", true),
            ("/data", true),
            ("/", true),
            ("/home", true),
            ("/home/bob", true),
            ("/root", true),
            ("/data/me/.ssh/id_ed25519", true),
            ("/home/bob/.bashrc", true),
            ("/root/.docker", true),
            ("/data/me/.cache", true),
            ("/data/me/bin", true),
            ("/home/bob/snap/docker/1/.docker/config.json", true),
            ("/var/roothome/.ssh", true),
            ("/var", true),
            ("/big", true),
            ("/big/home", true),
            ("/big/home/bob/.ssh", true),
            ("/home/.snapshots/1/bob/data", true),
            ("/data/me/.cache/huggingface", true),
            ("/data/me/.cache/huggingface/token", true),
            ("/data/me/.cache/huggingface/stored_tokens", true),
            ("/data/me/.cache/huggingface/hub", false),
            ("/data/me/.cache/torch", false),
            ("/big/home/bob/data", false),
            ("/srv/.me/data", false),
            ("/big/sets", false),
            ("/data/me/data", false),
            ("/home/bob/data/.hidden", false),
            ("/data/you", false),
            ("/mnt", false),
        ] {
            assert_eq!(homes.refusal(Path::new(path)).is_some(), refused, "{path}");
        }
    }

    #[test]
    fn what_is_hidden_at_the_root_is_known() {
        for (path, entry) in [
            ("/.snapshots/1/snapshot/etc", Some("/.snapshots")),
            ("/.zfs", Some("/.zfs")),
            ("/data/.hidden", None),
            ("/", None),
        ] {
            let found = hidden_at_root(Path::new(path));
            assert_eq!(found.as_deref(), entry.map(Path::new), "{path}");
        }
    }

    #[test]
    fn places_have_what_is_in_them_and_are_below_what_holds_them() {
        let tree = Place::tree("/a/b", "x");
        let stem = Place::stem("/a/queue.", "x");
        for (place, path, has, below) in [
            (&tree, "/a/b", true, true),
            (&tree, "/a/b/c", true, false),
            (&tree, "/a/bc", false, false),
            (&tree, "/a", false, true),
            (&stem, "/a/queue.db", true, false),
            (&stem, "/a/queue.logs/1.log", true, false),
            (&stem, "/a/queues", false, false),
            (&stem, "/a", false, true),
        ] {
            let path = Path::new(path);
            assert_eq!(place.has(path), has, "{place:?} {path:?}");
            assert_eq!(place.is_below(path), below, "{place:?} {path:?}");
        }
    }

    #[test]
    fn paths_are_cleaned_as_docker_cleans_them() {
        for (path, clean) in [
            ("/a/./b//c/", "/a/b/c"),
            ("/a/link/../b", "/a/b"),
            ("/../../etc", "/etc"),
            ("//etc", "/etc"),
        ] {
            assert_eq!(cleaned(Path::new(path)), Path::new(clean), "{path}");
        }
    }
}
