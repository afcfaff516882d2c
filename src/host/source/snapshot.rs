//! The files of a folder that are a job's code: all but those that its `.gitignore` and `.dockerignore` files leave
//! out, and what is never code. Looks, and changes nothing.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::failure::{Error, Result};
use crate::host::files::spell_size;

/// Folders that are never code: those of git, of W&B's client, and what Python and its tools make by themselves.
const NEVER: [&str; 6] = [
    ".git",
    "wandb",
    "__pycache__",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".pytest_cache",
];

/// A virtual environment has this file.
const ENVIRONMENT: &str = "pyvenv.cfg";

/// Files for each megabyte of the limit.
const FILES_A_MEGABYTE: usize = 100;

/// A file of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its path in the folder.
    pub path: String,
    /// Where it is; the end of the link, when it is one.
    pub place: PathBuf,
    /// Its bytes.
    pub size: u64,
}

/// The code in a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The files, by path.
    pub files: Vec<Taken>,
    /// What was left out, each with the reason: `data/ (.gitignore)`.
    pub left_out: Vec<String>,
}

/// Looks at a folder, whose code may have at most `megabytes`, and [`FILES_A_MEGABYTE`] files for each of them.
pub fn take(folder: &Path, megabytes: u64) -> Result<Snapshot> {
    let root = folder
        .canonicalize()
        .map_err(|cause| unreadable(folder, &cause))?;
    if !root.is_dir() {
        return Err(Error::input(format!("{} is no folder", folder.display()))
            .hint("name the folder that the code is in; its entry point is `-E`"));
    }
    let mut walk = Walk {
        docker: docker_rules(&root)?,
        rules: rules_above(&root)?,
        root,
        within: Vec::new(),
        found: Snapshot::default(),
    };
    walk.folder(&walk.root.clone(), "")?;
    let mut found = walk.found;
    found.files.sort_by(|a, b| a.path.cmp(&b.path));
    check_size(folder, &found, megabytes)?;
    Ok(found)
}

fn check_size(folder: &Path, found: &Snapshot, megabytes: u64) -> Result<()> {
    if found.files.is_empty() {
        return Err(Error::input(format!(
            "there is no code in {}",
            folder.display()
        )));
    }
    let bytes: u64 = found.files.iter().map(|file| file.size).sum();
    let most = usize::try_from(megabytes)
        .unwrap_or(usize::MAX)
        .saturating_mul(FILES_A_MEGABYTE);
    if bytes <= megabytes.saturating_mul(1_000_000) && found.files.len() <= most {
        return Ok(());
    }
    let mut largest: Vec<&Taken> = found.files.iter().collect();
    largest.sort_by_key(|file| std::cmp::Reverse(file.size));
    let largest: Vec<String> = largest
        .iter()
        .take(3)
        .map(|file| format!("`{}` ({})", file.path, spell_size(file.size)))
        .collect();
    Err(Error::input(format!(
        "the code in {} has {} in {} files, and at most {megabytes} MB in {most} files are pushed; the largest are {}",
        folder.display(),
        spell_size(bytes),
        found.files.len(),
        largest.join(", ")
    ))
    .hint("name data in `.dockerignore` and mount it with the queue's `volume`, or raise the limit with `--code-limit MB`"))
}

struct Walk {
    root: PathBuf,
    /// The rules of `.gitignore` files, from the outermost folder to where the walk is.
    rules: Vec<Gitignore>,
    docker: Vec<(bool, Gitignore)>,
    /// The folders that the walk is in, without links, so that a link to one of them is no endless way.
    within: Vec<PathBuf>,
    found: Snapshot,
}

impl Walk {
    /// Walks through `folder`, whose path in the code is `prefix`: empty, or with a slash at its end.
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let here = folder
            .canonicalize()
            .map_err(|cause| unreadable(folder, &cause))?;
        if self.within.contains(&here) {
            self.leave(prefix, "it leads back into itself");
            return Ok(());
        }
        self.within.push(here);
        let rules = git_rules(folder)?;
        let has_rules = rules.is_some();
        self.rules.extend(rules);
        let entries = fs::read_dir(folder).map_err(|cause| unreadable(folder, &cause))?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<PathBuf>>>()
            .map_err(|cause| unreadable(folder, &cause))?;
        paths.sort();
        for path in paths {
            self.entry(&path, prefix)?;
        }
        if has_rules {
            self.rules.pop();
        }
        self.within.pop();
        Ok(())
    }

    fn entry(&mut self, place: &Path, prefix: &str) -> Result<()> {
        let name = place.file_name().unwrap_or_default();
        let Some(name) = name
            .to_str()
            .filter(|name| !name.contains(char::is_control) && !name.contains('\\'))
        else {
            return Err(Error::input(format!(
                "the name of {} cannot be kept: it is not plain text",
                place.display()
            ))
            .hint("rename it, or name it in `.dockerignore`"));
        };
        let path = format!("{prefix}{name}");
        let link = fs::symlink_metadata(place).map_err(|cause| unreadable(place, &cause))?;
        let is_folder = place.is_dir();
        if let Some(why) = self.why_not(place, &path, name, is_folder) {
            let slash = if is_folder { "/" } else { "" };
            self.leave(&format!("{path}{slash}"), why);
            return Ok(());
        }
        let mut real = place.to_owned();
        if link.is_symlink() {
            let Ok(end) = place.canonicalize() else {
                self.leave(&path, "a link to nothing");
                return Ok(());
            };
            real = end;
            if !real.starts_with(&self.root) {
                return Err(Error::input(format!(
                    "`{path}` is a link that leaves the folder, to {}",
                    real.display()
                ))
                .hint("put the file itself there, or name the link in `.dockerignore`"));
            }
        }
        if is_folder {
            return self.folder(place, &format!("{path}/"));
        }
        let meta = fs::metadata(&real).map_err(|cause| unreadable(place, &cause))?;
        if !meta.is_file() {
            self.leave(&path, "not a file");
            return Ok(());
        }
        self.found.files.push(Taken {
            path,
            place: real,
            size: meta.len(),
        });
        Ok(())
    }

    fn leave(&mut self, path: &str, why: &str) {
        self.found.left_out.push(format!("{path} ({why})"));
    }

    /// Why something is no code, if it is none.
    fn why_not(
        &self,
        place: &Path,
        path: &str,
        name: &str,
        is_folder: bool,
    ) -> Option<&'static str> {
        if NEVER.contains(&name) {
            return Some("never code");
        }
        if is_folder && place.join(ENVIRONMENT).is_file() {
            return Some("a virtual environment");
        }
        // The innermost file that says anything decides, as for git.
        let says = self
            .rules
            .iter()
            .rev()
            .map(|rules| rules.matched(place, is_folder))
            .find(|says| !says.is_none());
        if says.is_some_and(|says| says.is_ignore()) {
            return Some(".gitignore");
        }
        // Docker builds with a Dockerfile that `.dockerignore` leaves out all the same, and so do we.
        if !is_folder && name.starts_with("Dockerfile") {
            return None;
        }
        let mut is_out = false;
        for (out, rule) in &self.docker {
            if rule
                .matched_path_or_any_parents(self.root.join(path), is_folder)
                .is_ignore()
            {
                is_out = *out;
            }
        }
        // A folder that is out may hold exceptions.
        let may_come_back = is_folder && self.docker.iter().any(|(out, _)| !out);
        (is_out && !may_come_back).then_some(".dockerignore")
    }
}

/// The rules of a folder's own `.gitignore`.
fn git_rules(folder: &Path) -> Result<Option<Gitignore>> {
    let path = folder.join(".gitignore");
    let Some(text) = read_rules(&path)? else {
        return Ok(None);
    };
    let mut builder = GitignoreBuilder::new(folder);
    for line in text.lines() {
        add(&mut builder, line, &path)?;
    }
    build(&builder, &path).map(Some)
}

/// The rules of the folders above, as far as they belong to the same git repository.
fn rules_above(root: &Path) -> Result<Vec<Gitignore>> {
    let Some(top) = root.ancestors().find(|folder| folder.join(".git").exists()) else {
        return Ok(Vec::new());
    };
    let above: Vec<&Path> = root
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(top))
        .collect();
    let rules = above.into_iter().rev().map(git_rules);
    rules.filter_map(Result::transpose).collect()
}

/// The rules of `.dockerignore`, each with whether it leaves out. Unlike git's they all start at the top, and the last
/// one that fits decides, whatever it says of the folder above.
fn docker_rules(root: &Path) -> Result<Vec<(bool, Gitignore)>> {
    let path = root.join(".dockerignore");
    let text = read_rules(&path)?.unwrap_or_default();
    let mut rules = Vec::new();
    for line in text.lines().map(str::trim) {
        let (out, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (false, pattern.trim()),
            None => (true, line),
        };
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        if pattern.is_empty() || pattern == "." || line.starts_with('#') {
            continue;
        }
        let mut builder = GitignoreBuilder::new(root);
        add(&mut builder, &format!("/{pattern}"), &path)?;
        rules.push((out, build(&builder, &path)?));
    }
    Ok(rules)
}

fn read_rules(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(unreadable(path, &cause)),
    }
}

fn add(builder: &mut GitignoreBuilder, line: &str, path: &Path) -> Result<()> {
    match builder.add_line(None, line) {
        Ok(_) => Ok(()),
        Err(cause) => Err(Error::input(format!("{}: {cause}", path.display()))),
    }
}

fn build(builder: &GitignoreBuilder, path: &Path) -> Result<Gitignore> {
    builder
        .build()
        .map_err(|cause| Error::input(format!("{}: {cause}", path.display())))
}

/// Opens a file of a snapshot.
pub fn open(file: &Taken) -> Result<File> {
    File::open(&file.place).map_err(|cause| unreadable(&file.place, &cause))
}

fn unreadable(path: &Path, cause: &std::io::Error) -> Error {
    Error::input(format!("cannot read {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("written");
        }
        folder
    }

    fn paths(snapshot: &Snapshot) -> Vec<&str> {
        snapshot
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect()
    }

    #[test]
    fn what_git_and_docker_leave_out_is_left_out_and_said() {
        let code = folder(&[
            (".gitignore", "*.log\n/data/\n!keep.log\n"),
            (
                ".dockerignore",
                "# a comment\nnotes\n**/*.tmp\nbig/*\n!big/small.txt\n",
            ),
            (".git/config", ""),
            ("wandb/run/x", ""),
            ("pkg/__pycache__/a.pyc", ""),
            ("env/pyvenv.cfg", ""),
            ("env/lib/x", ""),
            ("train.py", "1"),
            ("pkg/a.py", ""),
            ("pkg/a.log", ""),
            ("keep.log", ""),
            ("data/x", ""),
            ("pkg/data/x", ""),
            ("pkg/.gitignore", "local.py\n"),
            ("pkg/local.py", ""),
            ("local.py", ""),
            ("notes", ""),
            ("pkg/notes", ""),
            ("pkg/x.tmp", ""),
            ("big/large.bin", ""),
            ("big/small.txt", ""),
        ]);
        let found = take(code.path(), 1).expect("a snapshot");
        assert_eq!(
            paths(&found),
            [
                ".dockerignore",
                ".gitignore",
                "big/small.txt",
                "keep.log",
                "local.py",
                "pkg/.gitignore",
                "pkg/a.py",
                "pkg/data/x",
                "pkg/notes",
                "train.py"
            ]
        );
        assert_eq!(
            found.left_out,
            [
                ".git/ (never code)",
                "big/large.bin (.dockerignore)",
                "data/ (.gitignore)",
                "env/ (a virtual environment)",
                "notes (.dockerignore)",
                "pkg/__pycache__/ (never code)",
                "pkg/a.log (.gitignore)",
                "pkg/local.py (.gitignore)",
                "pkg/x.tmp (.dockerignore)",
                "wandb/ (never code)",
            ]
        );
    }

    #[test]
    fn a_folder_of_a_repository_heeds_the_rules_above_it_and_no_others() {
        let code = folder(&[
            (".gitignore", "*\n"),
            ("repo/.git/HEAD", ""),
            ("repo/.gitignore", "*.log\n"),
            ("repo/job/a.log", ""),
            ("repo/job/a.py", ""),
        ]);
        let found = take(&code.path().join("repo/job"), 1).expect("a snapshot");
        assert_eq!(paths(&found), ["a.py"]);
    }

    #[test]
    fn a_dockerfile_that_dockerignore_leaves_out_is_taken_as_docker_takes_it() {
        let code = folder(&[
            (".dockerignore", "**/Dockerfile*\n*\n!a.py\n"),
            ("Dockerfile.wandb", ""),
            ("sub/Dockerfile", ""),
            ("a.py", ""),
            ("b.py", ""),
        ]);
        let found = take(code.path(), 1).expect("a snapshot");
        assert_eq!(
            paths(&found),
            ["Dockerfile.wandb", "a.py", "sub/Dockerfile"]
        );
    }

    #[test]
    fn links_stay_in_the_folder() {
        let code = folder(&[("a.py", "1"), ("sub/b.py", "2")]);
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, code.path().join(name)).expect("a link");
        };
        link("a.py", "copy.py");
        link("nothing", "broken");
        link("..", "sub/up");
        let found = take(code.path(), 1).expect("a snapshot");
        assert_eq!(paths(&found), ["a.py", "copy.py", "sub/b.py"]);
        assert_eq!(
            found.left_out,
            [
                "broken (a link to nothing)",
                "sub/up/ (it leads back into itself)"
            ]
        );
        link("/etc/hostname", "out");
        let error = take(code.path(), 1).expect_err("a link that leaves");
        assert!(
            error
                .message
                .starts_with("`out` is a link that leaves the folder"),
            "{error}"
        );
        fs::write(code.path().join(".dockerignore"), "out\n").expect("written");
        take(code.path(), 1).expect("what is left out leads nowhere");
    }

    #[test]
    fn more_than_code_is_refused_with_its_largest_files() {
        let code = folder(&[("a.py", "1"), ("data.bin", &"x".repeat(1_000_001))]);
        let error = take(code.path(), 1).expect_err("too large");
        assert!(
            error.message.contains(
                "at most 1 MB in 100 files are pushed; the largest are `data.bin` (1 MB)"
            ),
            "{error}"
        );
        take(code.path(), 2).expect("a higher limit");
        let many: Vec<(String, String)> = (0..101)
            .map(|number| (format!("{number}"), String::new()))
            .collect();
        let many: Vec<(&str, &str)> = many
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        take(folder(&many).path(), 1).expect_err("too many");
        take(folder(&[(".git/x", "")]).path(), 1).expect_err("no code");
        take(&code.path().join("a.py"), 1).expect_err("no folder");
    }
}
