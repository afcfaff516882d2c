//! The files of artifacts, kept by what they hold, so that a job that runs again downloads nothing. Several agents of
//! one user share the folder; it may be emptied at any time.
//!
//! An artifact comes into its place whole, by a rename, and its files are checked again each time they are used: what
//! is on the disk for months may have changed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::files;
use super::{MOST_BYTES, MOST_FILES, refused, too_large};
use crate::failure::{Error, Kind, Result};
use crate::host::stop::Stop;
use crate::queue::artifacts::{Artifact, ArtifactFile, Artifacts};

/// What stays in the cache, in bytes. The artifacts that were not used for the longest time go first.
const KEPT_BYTES: u64 = 2 << 30;

/// How often whoever waits for another job's download looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// How the folder of a download that goes on is called.
const INCOMING: &str = ".incoming-";

/// A download that was begun this long ago will not go on.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

/// The length of an artifact's digest, which is the name of its folder.
const DIGEST: usize = 64;

/// How often a file is downloaded that does not come as its manifest says.
const ROUNDS: usize = 2;

/// The cache of artifacts.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in the agent's folder for such things.
    pub fn new(cache: &Path) -> Cache {
        Cache {
            folder: cache.join("artifacts"),
        }
    }

    /// Copies the files of `artifact` into the folder `into`, checked, downloading them when they are not here.
    pub fn provide(
        &self,
        artifact: &Artifact,
        from: &dyn Artifacts,
        into: &Path,
        stop: &Stop,
    ) -> Result<()> {
        let (bytes, files) = (artifact.size(), artifact.files.len());
        if bytes > MOST_BYTES || files > MOST_FILES {
            return Err(too_large(&artifact.name(), bytes, files));
        }
        let digest = artifact.digest();
        let home = self.folder.join(&digest);
        let lock = self.lock(&digest, stop)?;
        if !copy(artifact, &home, into, stop)? {
            remove(&home)?;
            self.download(artifact, from, &home, stop)?;
            if !copy(artifact, &home, into, stop)? {
                let why = format!("{} does not keep what is written to it", home.display());
                return Err(Error::new(Kind::System, why));
            }
            drop(lock);
            self.prune(&home, KEPT_BYTES);
        }
        // The time of the folder says when it was used last.
        let _ = File::open(&home).and_then(|folder| folder.set_modified(SystemTime::now()));
        Ok(())
    }

    fn download(
        &self,
        artifact: &Artifact,
        from: &dyn Artifacts,
        home: &Path,
        stop: &Stop,
    ) -> Result<()> {
        let incoming = tempfile::Builder::new()
            .prefix(INCOMING)
            .tempdir_in(&self.folder)
            .map_err(|cause| refused("make a folder in", &self.folder, &cause))?;
        let mut missing: BTreeMap<String, String> = artifact
            .files
            .iter()
            .map(|file| (file.path.clone(), String::new()))
            .collect();
        for _ in 0..ROUNDS {
            let mut failed = BTreeMap::new();
            from.download(
                artifact,
                &|file| missing.contains_key(&file.path),
                &mut |file, content| {
                    if let Some(why) = store(file, content, incoming.path(), stop)? {
                        log::warn!("{}: `{}` {why}", artifact.name(), file.path);
                        failed.insert(file.path.clone(), why);
                    }
                    Ok(())
                },
            )?;
            missing = failed;
            if missing.is_empty() {
                return fs::rename(incoming.keep(), home)
                    .map_err(|cause| refused("make", home, &cause));
            }
        }
        let (path, why) = missing.pop_first().unwrap_or_default();
        Err(Error::input(format!(
            "the file `{path}` of {} {why}, twice",
            artifact.name()
        ))
        .hint("it is damaged where it is kept: make the job again"))
    }

    /// Waits for whoever uses or downloads artifacts of this kind, in this process or another.
    fn lock(&self, digest: &str, stop: &Stop) -> Result<File> {
        let file = self.lock_file(digest)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    stop.check()?;
                    std::thread::sleep(LOOK);
                }
                Err(TryLockError::Error(cause)) => {
                    return Err(refused("lock the cache in", &self.folder, &cause));
                }
            }
        }
    }

    /// One of 256 locks: files that are made once and never removed, so that all see the same one.
    fn lock_file(&self, digest: &str) -> Result<File> {
        let folder = self.folder.join("locks");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|cause| refused("make the folder", &folder, &cause))?;
        let path = folder.join(digest.get(..2).unwrap_or(digest));
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|cause| refused("open", &path, &cause))
    }

    /// Removes what was not used for the longest time until at most `most` bytes stay; `latest` stays in any case.
    /// That this fails is no job's trouble.
    fn prune(&self, latest: &Path, most: u64) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let modified = fs::symlink_metadata(&path).and_then(|meta| meta.modified());
            let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
            if name.starts_with(INCOMING) {
                let age = SystemTime::now().duration_since(modified);
                if age.is_ok_and(|age| age > ABANDONED) {
                    let _ = fs::remove_dir_all(&path);
                }
            } else if name.len() == DIGEST {
                let bytes = files::sum(&path).map_or(0, |sum| sum.bytes);
                all.push((modified, bytes, path));
            }
        }
        all.sort();
        let mut total: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in all.iter().filter(|(_, _, path)| path != latest) {
            if total <= most {
                return;
            }
            let digest = path.file_name().unwrap_or_default().to_string_lossy();
            let lock = self.lock_file(&digest);
            if lock.is_ok_and(|file| file.try_lock().is_ok() && remove(path).is_ok()) {
                total -= bytes;
            }
        }
    }
}

fn remove(home: &Path) -> Result<()> {
    match fs::remove_dir_all(home) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(refused("remove", home, &cause))
        }
        _ => Ok(()),
    }
}

/// Writes a file that comes in. Gives what is wrong with it, if anything is.
fn store(
    file: &ArtifactFile,
    content: &mut dyn Read,
    folder: &Path,
    stop: &Stop,
) -> Result<Option<String>> {
    let path = folder.join(&file.path);
    make_parent(&path)?;
    let mut written = File::create(&path).map_err(|cause| refused("write", &path, &cause))?;
    // One byte more than there should be, so that a file that is too long is seen and not stored for ever.
    let mut content = content.take(file.size + 1);
    match transfer(&mut content, &mut written, stop) {
        Ok((md5, _)) if md5 == file.md5 => Ok(None),
        Ok((md5, bytes)) => Ok(Some(format!(
            "came with {bytes} bytes and the MD5 {md5}, but its manifest says {} and {}",
            file.size, file.md5
        ))),
        Err(Broken::Reading(cause)) => Ok(Some(format!("broke off: {cause}"))),
        Err(Broken::Writing(cause)) => Err(refused("write", &path, &cause)),
        Err(Broken::Stopped(error)) => Err(error),
    }
}

/// Copies the files of an artifact; `false` when one is missing or not what it should be.
fn copy(artifact: &Artifact, home: &Path, into: &Path, stop: &Stop) -> Result<bool> {
    if !home.is_dir() {
        return Ok(false);
    }
    for file in &artifact.files {
        let Ok(mut kept) = File::open(home.join(&file.path)) else {
            return Ok(false);
        };
        let path = into.join(&file.path);
        make_parent(&path)?;
        let mut written = File::create(&path).map_err(|cause| refused("write", &path, &cause))?;
        match transfer(&mut kept, &mut written, stop) {
            Ok((md5, _)) if md5 == file.md5 => {}
            Ok(_) | Err(Broken::Reading(_)) => return Ok(false),
            Err(Broken::Writing(cause)) => return Err(refused("write", &path, &cause)),
            Err(Broken::Stopped(error)) => return Err(error),
        }
    }
    Ok(true)
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|cause| refused("make the folder", parent, &cause))
}

/// Why a file was not transferred.
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
    Stopped(Error),
}

/// Gives the MD5 of what was transferred, in base64, and its bytes.
fn transfer(
    from: &mut impl Read,
    into: &mut File,
    stop: &Stop,
) -> std::result::Result<(String, u64), Broken> {
    let (mut md5, mut bytes) = (Md5::new(), 0);
    let mut piece = vec![0; 64 * 1024];
    loop {
        stop.check().map_err(Broken::Stopped)?;
        let count = from.read(&mut piece).map_err(Broken::Reading)?;
        if count == 0 {
            return Ok((STANDARD.encode(md5.finalize()), bytes));
        }
        md5.update(&piece[..count]);
        bytes += count as u64;
        into.write_all(&piece[..count]).map_err(Broken::Writing)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::job::ArtifactName;
    use std::sync::Mutex;

    /// An artifact with one file, and what a reader of it gets, one answer after the other.
    struct Served(Mutex<Vec<&'static str>>);

    /// MD5 of `hello`.
    const HELLO: &str = "XUFAKrxLKna5cZ2REBfFkg==";

    fn artifact(path: &str) -> Artifact {
        Artifact {
            id: "1".to_owned(),
            entity: "e".to_owned(),
            project: "p".to_owned(),
            collection: "c".to_owned(),
            version: 0,
            files: vec![ArtifactFile {
                path: path.to_owned(),
                size: 5,
                md5: HELLO.to_owned(),
            }],
        }
    }

    impl Artifacts for Served {
        fn artifact(&self, _name: &ArtifactName) -> Result<Artifact> {
            Ok(artifact("a/b"))
        }

        fn download(
            &self,
            artifact: &Artifact,
            wants: &dyn Fn(&ArtifactFile) -> bool,
            take: &mut dyn FnMut(&ArtifactFile, &mut dyn Read) -> Result<()>,
        ) -> Result<()> {
            for file in artifact.files.iter().filter(|file| wants(file)) {
                let text = self.0.lock().expect("no panic").remove(0);
                take(file, &mut text.as_bytes())?;
            }
            Ok(())
        }
    }

    fn provide(cache: &Path, answers: &[&'static str]) -> (Result<()>, String, usize) {
        let (served, into) = (
            Served(Mutex::new(answers.to_vec())),
            tempfile::tempdir().expect("a folder"),
        );
        let result =
            Cache::new(cache).provide(&artifact("a/b"), &served, into.path(), &Stop::default());
        let text = fs::read_to_string(into.path().join("a/b")).unwrap_or_default();
        let left = served.0.lock().expect("no panic").len();
        (result, text, left)
    }

    #[test]
    fn a_file_that_came_wrong_is_asked_for_once_more() {
        for wrong in ["hellO", "hell", "hello and more"] {
            let cache = tempfile::tempdir().expect("a folder");
            let (result, text, left) = provide(cache.path(), &[wrong, "hello", "unused"]);
            result.expect(wrong);
            assert_eq!((text.as_str(), left), ("hello", 1), "{wrong}");
            let (result, ..) = provide(
                tempfile::tempdir().expect("a folder").path(),
                &[wrong, wrong],
            );
            let error = result.expect_err(wrong);
            assert!(
                error
                    .message
                    .starts_with("the file `a/b` of e/p/c:v0 came with"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_here_is_not_downloaded_and_what_has_changed_is() {
        let cache = tempfile::tempdir().expect("a folder");
        provide(cache.path(), &["hello"]).0.expect("downloaded");
        let (result, text, _) = provide(cache.path(), &[]);
        result.expect("from the cache");
        assert_eq!(text, "hello");
        let home = cache
            .path()
            .join("artifacts")
            .join(artifact("a/b").digest());
        fs::write(home.join("a/b"), "jello").expect("written");
        let (result, text, left) = provide(cache.path(), &["hello"]);
        result.expect("downloaded again");
        assert_eq!((text.as_str(), left), ("hello", 0));
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path());
        let mut homes = Vec::new();
        for (age, letter) in [(30, "a"), (10, "b"), (20, "c")] {
            let home = folder.path().join("artifacts").join(letter.repeat(DIGEST));
            fs::create_dir_all(&home).expect("a folder");
            fs::write(home.join("x"), "12345").expect("written");
            let time = SystemTime::now() - Duration::from_secs(age);
            File::open(&home)
                .and_then(|home| home.set_modified(time))
                .expect("a time");
            homes.push(home);
        }
        cache.prune(Path::new("/"), 10);
        let left: Vec<bool> = homes.iter().map(|home| home.exists()).collect();
        assert_eq!(left, [false, true, true]);
        cache.prune(&homes[2], 0);
        let left: Vec<bool> = homes.iter().map(|home| home.exists()).collect();
        assert_eq!(left, [false, false, true]);
    }

    #[test]
    fn a_stopped_job_does_not_wait_for_anothers_download() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path());
        let digest = artifact("a/b").digest();
        let _held = cache.lock(&digest, &Stop::default()).expect("a lock");
        let stop = Stop::default();
        stop.request(crate::queue::StopReason::Requested);
        let error = cache.lock(&digest, &stop).expect_err("stopped");
        assert!(error.message.starts_with("stopped"), "{error}");
    }
}
