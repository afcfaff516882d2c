//! The folder of a job's code: made plain, measured, and read without being led out of it by a link.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::refused;
use crate::failure::{Error, Result};
use crate::launch::job::{Job, check_entry_point as check_path, plain_path, script_of};

/// The most of a file that decides how a job is built, in bytes.
const LARGEST_TEXT: u64 = 4 << 20;

/// What is in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Bytes of the files.
    pub bytes: u64,
    /// How many there are.
    pub files: usize,
}

/// Measures a folder. Links are not followed.
pub fn sum(folder: &Path) -> Result<Sum> {
    let mut sum = Sum::default();
    walk(folder, &mut |_, meta| {
        if !meta.is_dir() {
            sum.bytes += meta.len();
            sum.files += 1;
        }
        Ok(true)
    })?;
    Ok(sum)
}

/// Makes a folder hold a job's files and nothing else: what git keeps for itself goes, everything can be read by
/// whatever user a container runs as, and a script can be run. Measures what stays.
pub fn settle(folder: &Path) -> Result<Sum> {
    let mut sum = Sum::default();
    allow(folder, 0o755)?;
    walk(folder, &mut |path, meta| {
        if path.file_name().is_some_and(|name| name == ".git") {
            let removed = if meta.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            removed.map_err(|cause| refused("remove", path, &cause))?;
            return Ok(false);
        }
        if meta.is_dir() {
            allow(path, 0o755)?;
        } else {
            if meta.is_file() {
                // Artifacts keep no permissions; a program that names its interpreter was one.
                let runs = meta.permissions().mode() & 0o100 != 0 || begins_as_script(path);
                allow(path, if runs { 0o755 } else { 0o644 })?;
            }
            sum.bytes += meta.len();
            sum.files += 1;
        }
        Ok(true)
    })?;
    Ok(sum)
}

fn allow(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|cause| refused("change", path, &cause))
}

fn begins_as_script(path: &Path) -> bool {
    let mut first = [0; 2];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut first))
        .is_ok_and(|()| first == *b"#!")
}

/// Visits everything under `folder`, a folder before what is in it, without following links. `visit` says whether to
/// go into a folder.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<bool>) -> Result<()> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|cause| refused("read", &folder, &cause))?;
        for entry in entries {
            let path = entry
                .map_err(|cause| refused("read", &folder, &cause))?
                .path();
            let meta =
                fs::symlink_metadata(&path).map_err(|cause| refused("read", &path, &cause))?;
            if visit(&path, &meta)? && meta.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

/// The text of a file of the code, by its path in it; `None` when there is no such file. A link out of the code is an
/// error: what the agent reads ends up in an image or a log.
pub fn read_text(folder: &Path, path: &str) -> Result<Option<String>> {
    let Some(place) = place(folder, path)? else {
        return Ok(None);
    };
    let unreadable = |why: &dyn std::fmt::Display| {
        Error::input(format!(
            "the file `{path}` of the job's code cannot be read: {why}"
        ))
    };
    let meta = fs::metadata(&place).map_err(|cause| unreadable(&cause))?;
    if !meta.is_file() {
        return Ok(None);
    }
    if meta.len() > LARGEST_TEXT {
        return Err(unreadable(&format_args!(
            "it has {} bytes, and at most {LARGEST_TEXT} are read",
            meta.len()
        )));
    }
    let bytes = fs::read(&place).map_err(|cause| unreadable(&cause))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(unreadable(&"it is not UTF-8 text")),
    }
}

/// Where a path of the code really is; `None` when there is nothing.
pub fn place(folder: &Path, path: &str) -> Result<Option<PathBuf>> {
    let folder = folder
        .canonicalize()
        .map_err(|cause| refused("read", folder, &cause))?;
    let place = match folder.join(plain_path(path)).canonicalize() {
        Ok(place) => place,
        Err(cause) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&cause.kind()) => {
            return Ok(None);
        }
        Err(cause) => {
            let error = Error::input(format!(
                "`{path}` of the job's code cannot be read: {cause}"
            ));
            return Err(error);
        }
    };
    if !place.starts_with(&folder) {
        return Err(Error::input(format!(
            "`{path}` of the job's code is a link to a file outside of it"
        ))
        .hint("put the file itself into the code"));
    }
    Ok(Some(place))
}

/// The path in the code of the script that the entry point names, which may be written as from the folder that a build
/// with its own Dockerfile sees.
pub fn find_script(job: &Job, folder: &Path) -> Result<Option<String>> {
    let Some(script) = script_of(&job.entry_point) else {
        return Ok(None);
    };
    let script = plain_path(script).to_owned();
    let context = job.build_context.as_ref();
    for path in context
        .map(|context| format!("{context}/{script}"))
        .into_iter()
        .chain([script])
    {
        if place(folder, &path)?.is_some_and(|place| place.is_file()) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// An error when the script that the entry point names is not in the code.
pub fn check_entry_point(job: &Job, folder: &Path) -> Result<()> {
    check_path(&job.entry_point)
        .map_err(|error| error.within(format_args!("the entry point of job `{}`", job.name)))?;
    let Some(script) = script_of(&job.entry_point) else {
        return Ok(());
    };
    if find_script(job, folder)?.is_some() {
        return Ok(());
    }
    let mut names: Vec<String> = Vec::new();
    walk(folder, &mut |path, meta| {
        if let Ok(path) = path.strip_prefix(folder)
            && meta.is_file()
        {
            names.push(path.to_string_lossy().into_owned());
        }
        Ok(true)
    })?;
    names.sort();
    let error = Error::input(format!(
        "the entry point of job `{}` is `{}`, and its code has no file `{script}`",
        job.name,
        job.entry_point.join(" ")
    ))
    .hint("name the file by its path in the code; what a `.gitignore` leaves out is not in it");
    // The same name in another folder says more than a similar one.
    let name = script.rsplit('/').next().unwrap_or(script);
    let same = |path: &&String| path.rsplit('/').next() == Some(name);
    Err(match names.iter().find(same) {
        Some(path) => error.hint(format!("did you mean `{path}`?")),
        None => error.closest(script, names.iter().map(String::as_str)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::job::JobSource;

    fn job(entry_point: &[&str], build_context: Option<&str>) -> Job {
        Job {
            name: "e/p/j:v0".to_owned(),
            source: JobSource::Image(String::new()),
            entry_point: entry_point.iter().map(|&word| word.to_owned()).collect(),
            is_notebook: false,
            python: None,
            base_image: None,
            dockerfile: None,
            build_context: build_context.map(str::to_owned),
        }
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("written");
        }
        folder
    }

    #[test]
    fn an_entry_point_names_a_file_of_the_code_or_none() {
        let code = folder(&[("src/train.py", ""), ("run", "")]);
        for (entry_point, context) in [
            (&["python", "src/train.py"][..], None),
            (&["python", "./src/train.py", "--x", "1"], None),
            (&["python", "train.py"], Some("src")),
            (&["python", "-m", "src.train"], None),
            (&["sh", "-c", "python nowhere.py"], None),
            (&["./run"], None),
            (&["/usr/bin/env", "python"], None),
        ] {
            check_entry_point(&job(entry_point, context), code.path())
                .unwrap_or_else(|error| panic!("{entry_point:?}: {error}"));
        }
        for (entry_point, message, hint) in [
            (
                &["python", "train.py"][..],
                "is `python train.py`, and its code has no file `train.py`",
                "did you mean `src/train.py`?",
            ),
            (
                &["python", "src/trian.py"],
                "has no file `src/trian.py`",
                "did you mean `src/train.py`?",
            ),
            (&["./go"], "has no file `./go`", "name the file by its path"),
            (
                &["python", "/src/train.py"],
                "`/src/train.py` leads out of the job's code",
                "by its path in the job's code",
            ),
        ] {
            let error =
                check_entry_point(&job(entry_point, None), code.path()).expect_err("missing");
            assert!(error.message.contains(message), "{error}");
            assert!(
                error
                    .hint
                    .as_ref()
                    .is_some_and(|found| found.contains(hint)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_git_keeps_goes_and_scripts_can_be_run() {
        let code = folder(&[
            (".git/config", "x"),
            ("lib/.git", "gitdir: x"),
            ("lib/a.py", "1"),
            ("go", "#!/bin/sh\n"),
        ]);
        fs::set_permissions(code.path().join("lib"), fs::Permissions::from_mode(0o700))
            .expect("changed");
        let sum = settle(code.path()).expect("settled");
        assert_eq!(
            sum,
            Sum {
                bytes: 11,
                files: 2
            }
        );
        let mode = |path: &str| {
            fs::metadata(code.path().join(path))
                .expect(path)
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(
            (mode("lib"), mode("lib/a.py"), mode("go")),
            (0o755, 0o644, 0o755)
        );
        assert!(!code.path().join(".git").exists() && !code.path().join("lib/.git").exists());
    }

    #[test]
    fn a_link_leads_nowhere_outside() {
        let outside = folder(&[("secret", "sesame")]);
        let code = folder(&[("real.txt", "1")]);
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, code.path().join(name)).expect("a link");
        };
        link(&outside.path().join("secret"), "requirements.txt");
        link(outside.path(), "folder");
        link(Path::new("real.txt"), "inside.txt");
        for path in ["requirements.txt", "folder/secret", "../secret"] {
            let read = read_text(code.path(), path);
            assert!(!matches!(read, Ok(Some(_))), "{path}");
        }
        let error = read_text(code.path(), "requirements.txt").expect_err("a link");
        assert!(error.message.contains("outside of it"), "{error}");
        assert_eq!(
            read_text(code.path(), "inside.txt")
                .expect("read")
                .as_deref(),
            Some("1")
        );
        assert_eq!(read_text(code.path(), "nothing").expect("read"), None);
    }
}
