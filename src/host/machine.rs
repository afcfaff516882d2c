//! What a policy asks of this machine: where a path leads, and whose a container is. Looks, and changes nothing.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};

use crate::host::engine;
use crate::launch::policy::{Machine, cleaned};

/// How many symbolic links a path may lead through, as in the kernel.
const MOST_LINKS: u32 = 40;

/// This machine.
pub fn machine() -> Machine {
    Machine {
        real_path,
        can_read,
        agent_of: engine::agent_of,
        engine_address,
        engine_folder,
    }
}

/// Asked once: whoever chooses another engine under a running agent takes its containers away.
fn engine_address() -> Option<String> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    ADDRESS.get_or_init(engine::address).clone()
}

/// Asked until the engine has answered once: it keeps its folder for as long as it runs.
fn engine_folder() -> Option<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOLDER.get() {
        return Some(folder.clone());
    }
    let folder = engine::data_root()?;
    Some(FOLDER.get_or_init(|| folder).clone())
}

/// Whether docker would hand out what is closed to the agent's user; see [`Machine::can_read`].
fn can_read(path: &Path) -> bool {
    let wanted = if path.is_dir() {
        AccessFlags::R_OK | AccessFlags::X_OK
    } else {
        AccessFlags::R_OK
    };
    !matches!(eaccess(path, wanted), Err(Errno::EACCES | Errno::EPERM))
}

/// Where docker finds a path; see [`Machine::real_path`].
fn real_path(path: &Path) -> Result<PathBuf, String> {
    let whole = std::path::absolute(path).map_err(|cause| cause.to_string())?;
    let mut links = MOST_LINKS;
    follow(&cleaned(&whole), &mut links)
}

/// Follows the links of a whole path. A name that is not there is taken as it is written: docker would make it there.
fn follow(path: &Path, links: &mut u32) -> Result<PathBuf, String> {
    let mut real = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            Component::Normal(name) => {
                let next = real.join(name);
                let is_link = match std::fs::symlink_metadata(&next) {
                    // Such as `/proc/self/cwd`: it leads every process to another place, and docker is another.
                    Ok(about) => about.is_symlink() && !next.starts_with("/proc"),
                    // A file on the way: nothing can be below it, and docker will say so.
                    Err(cause)
                        if [ErrorKind::NotFound, ErrorKind::NotADirectory]
                            .contains(&cause.kind()) =>
                    {
                        false
                    }
                    Err(cause) => return Err(format!("{}: {cause}", next.display())),
                };
                real = if is_link { target(&next, links)? } else { next };
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(real)
}

/// Where a link leads, which may be through further links.
fn target(link: &Path, links: &mut u32) -> Result<PathBuf, String> {
    *links = links
        .checked_sub(1)
        .ok_or_else(|| format!("{}: too many symbolic links", link.display()))?;
    let text = std::fs::read_link(link).map_err(|cause| format!("{}: {cause}", link.display()))?;
    let folder = link.parent().unwrap_or(link);
    follow(&folder.join(text), links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_and_what_is_not_there_is_taken_as_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        std::fs::create_dir_all(root.join("a/b")).expect("made");
        for (target, link) in [
            ("a/b", "relative"),
            ("/etc", "absolute"),
            ("relative/../x", "through"),
            ("nowhere/at/all", "dangling"),
            ("loop", "loop"),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        for (path, real) in [
            ("a/b", "a/b"),
            ("relative", "a/b"),
            ("relative/new/folder", "a/b/new/folder"),
            // Docker takes `..` by the text of the path, and the kernel takes that of a link by where it is.
            ("relative/../c", "c"),
            ("through", "a/x"),
            ("dangling/d", "nowhere/at/all/d"),
            ("a/./b//", "a/b"),
        ] {
            assert_eq!(real_path(&root.join(path)), Ok(root.join(real)), "{path}");
        }
        assert_eq!(
            real_path(&root.join("absolute/passwd")),
            Ok("/etc/passwd".into())
        );
        assert_eq!(real_path(Path::new("/../..")), Ok("/".into()));
        for path in ["/proc/self/cwd", "/proc/thread-self/root/etc", "/dev/fd/0"] {
            let real = real_path(Path::new(path)).expect("a path");
            assert!(real.starts_with("/proc"), "{path} is {}", real.display());
        }
        let error = real_path(&root.join("loop")).expect_err("a loop");
        assert!(error.contains("too many symbolic links"), "{error}");
    }

    #[test]
    fn a_relative_path_begins_where_the_agent_was_started() {
        let here = std::env::current_dir()
            .expect("a folder")
            .canonicalize()
            .expect("a real path");
        assert_eq!(real_path(Path::new("./x")), Ok(here.join("x")));
        assert_eq!(
            real_path(Path::new("..")),
            Ok(here.parent().expect("a parent").to_owned())
        );
    }
}
