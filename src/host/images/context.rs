//! Looks at the folder that a build is about to see: how large it is, and whether it is whole.

use std::path::{Path, PathBuf};

use crate::failure::{Error, Result};
use crate::host::files::spell_size;

/// From here on the owner of the job is told what takes so long, in bytes.
const LARGE: u64 = 1_000_000_000;

/// More is refused, in bytes: docker copies all of it for every build.
const TOO_LARGE: u64 = 10_000_000_000;

/// How many names are said.
const NAMED: usize = 3;

/// What is in the folder.
#[derive(Debug, Default)]
struct Found {
    bytes: u64,
    /// The largest files, the largest first.
    largest: Vec<(u64, PathBuf)>,
}

/// Checks that the folder belongs to the code in `code` and holds nothing else, and gives a warning when it is large.
pub fn check(context: &Path, code: &Path) -> Result<Option<String>> {
    let context = &inside(context, code)?;
    let mut found = Found::default();
    visit(context, context, &mut found)?;
    if found.bytes < LARGE {
        return Ok(None);
    }
    let names: Vec<String> = found
        .largest
        .iter()
        .map(|(bytes, path)| format!("`{}` ({})", path.display(), spell_size(*bytes)))
        .collect();
    let what = format!(
        "the job's code has {}, the most of it in {}",
        spell_size(found.bytes),
        names.join(", ")
    );
    if found.bytes > TOO_LARGE {
        return Err(Error::input(format!(
            "{what}; an image is built of at most {}",
            spell_size(TOO_LARGE)
        ))
        .hint("leave data out of the code: mount it with `volume` in the queue's config, or use an artifact"));
    }
    Ok(Some(format!(
        "{what}: each build copies it. Data is better mounted with `volume`, or left out by `.dockerignore`"
    )))
}

/// Where the folder really is. Docker goes where a link leads, and would copy a folder of this machine into the image.
fn inside(context: &Path, code: &Path) -> Result<PathBuf> {
    let name = context.strip_prefix(code).unwrap_or(context).display();
    let unreadable = |cause| Error::system(format_args!("cannot read {}", code.display()), cause);
    let code = code.canonicalize().map_err(unreadable)?;
    let real = match context.canonicalize() {
        Ok(real) if real.is_dir() => real,
        _ => {
            return Err(Error::input(format!(
                "the job's `build_context` is `{name}`, and its code has no such folder"
            ))
            .hint("give the folder's path from the top of the code"));
        }
    };
    if real.starts_with(code) {
        return Ok(real);
    }
    Err(Error::input(format!(
        "the job's `build_context` is `{name}`, a symbolic link that leads out of its code"
    ))
    .hint("put the folder itself into the code"))
}

fn visit(folder: &Path, context: &Path, found: &mut Found) -> Result<()> {
    let unreadable = |cause| Error::system(format_args!("cannot read {}", folder.display()), cause);
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let metadata = path.symlink_metadata().map_err(unreadable)?;
        if metadata.is_symlink() {
            check_link(&path, context)?;
        } else if metadata.is_dir() {
            visit(&path, context, found)?;
        } else if metadata.is_file() {
            found.bytes += metadata.len();
            let name = path.strip_prefix(context).unwrap_or(&path).to_owned();
            found.largest.push((metadata.len(), name));
            found.largest.sort_by(|a, b| b.cmp(a));
            found.largest.truncate(NAMED);
        }
    }
    Ok(())
}

/// A link is copied as a link, so one that leads out of the folder leads to something else in the image.
fn check_link(link: &Path, context: &Path) -> Result<()> {
    let target = std::fs::read_link(link)
        .map_err(|cause| Error::system(format_args!("cannot read {}", link.display()), cause))?;
    // Counting words is not enough: another link on the way may lead upwards. One that leads nowhere has no such end.
    let ends_outside = link
        .canonicalize()
        .is_ok_and(|end| !end.starts_with(context));
    let mut depth = link
        .strip_prefix(context)
        .map_or(0, |inside| inside.components().count().saturating_sub(1));
    let leaves = ends_outside
        || target.is_absolute()
        || target.components().any(|part| match part {
            std::path::Component::ParentDir if depth == 0 => true,
            std::path::Component::ParentDir => {
                depth -= 1;
                false
            }
            std::path::Component::Normal(_) => {
                depth += 1;
                false
            }
            _ => false,
        });
    if !leaves {
        return Ok(());
    }
    let name = link.strip_prefix(context).unwrap_or(link);
    Err(Error::input(format!(
        "the job's code has a symbolic link that leads out of it: `{}` to `{}`",
        name.display(),
        target.display()
    ))
    .hint("put the file itself into the code"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    /// A file that says it is large and takes no room.
    fn large(path: &Path, bytes: u64) {
        File::create(path)
            .and_then(|file| file.set_len(bytes))
            .expect("a sparse file");
    }

    #[test]
    fn large_code_is_said_by_name_and_too_large_code_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::create_dir(root.join("data")).expect("a folder");
        fs::write(root.join("train.py"), "pass").expect("written");
        assert_eq!(check(root, root).expect("small"), None);
        large(&root.join("data/set.bin"), 1_200_000_000);
        assert_eq!(
            check(root, root).expect("large").expect("a warning"),
            "the job's code has 1.2 GB, the most of it in `data/set.bin` (1.2 GB), `train.py` (4 bytes): each build copies it. \
             Data is better mounted with `volume`, or left out by `.dockerignore`"
        );
        large(&root.join("more.bin"), 9_000_000_000);
        let error = check(root, root).expect_err("too large");
        assert_eq!(
            error.message,
            "the job's code has 10.2 GB, the most of it in `more.bin` (9.0 GB), `data/set.bin` (1.2 GB), `train.py` (4 bytes); \
             an image is built of at most 10.0 GB"
        );
    }

    #[test]
    fn a_link_may_lead_anywhere_inside() {
        for (link, target, good) in [
            ("a", "train.py", true),
            ("sub/a", "../train.py", true),
            ("sub/a", "../sub/../train.py", true),
            ("a", "nowhere", true),
            ("a", "up/../train.py", false),
            ("a", "../train.py", false),
            ("sub/a", "../../etc/passwd", false),
            ("a", "/etc/passwd", false),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let root = &folder.path().join("code");
            fs::create_dir_all(root.join("sub")).expect("a folder");
            // To the folder itself: what follows it with `..` is outside, in as few words as inside.
            symlink(".", root.join("up")).expect("a link");
            symlink(target, root.join(link)).expect("a link");
            fs::write(folder.path().join("train.py"), "").expect("written");
            let checked = check(root, root);
            assert_eq!(checked.is_ok(), good, "{link} -> {target}: {checked:?}");
        }
    }
}
