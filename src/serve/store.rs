//! Uploads and downloads: bytes between a signed address and the queue's files. What did not come whole, or is not
//! what was announced, never becomes a file; all files and lines together stay within a quota.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::exchange::{Content, Head, Response};
use super::signed::Address;
use crate::failure::{Error, Kind};
use crate::queue::local::{Blob, Complete, Kept, LocalQueue};

/// The files of a queue, with the room that there is for them.
pub struct Store {
    queue: Arc<LocalQueue>,
    quota: u64,
    /// Bytes of uploads that are on their way, and not yet counted by the queue.
    coming: AtomicU64,
}

/// An upload asks anew how much is stored when so many bytes of it have come: others have ended since.
const LOOK_AGAIN: u64 = 8 * 1024 * 1024;

/// Bytes that an upload has claimed; given back when it ends.
struct Claim<'a> {
    store: &'a Store,
    bytes: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.coming.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Store {
    /// The files of that queue, which may take `quota` bytes.
    pub fn new(queue: Arc<LocalQueue>, quota: u64) -> Store {
        Store {
            queue,
            quota,
            coming: AtomicU64::new(0),
        }
    }

    /// The bytes that files and lines of runs may take.
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// The bytes that an upload may have.
    pub fn room(&self, head: &Head) -> Result<u64, Response> {
        let stored = self.queue.stored_bytes().map_err(|error| told(&error))?;
        let taken = stored.saturating_add(self.coming.load(Ordering::Relaxed));
        let room = self.quota.saturating_sub(taken);
        let length = head
            .header("content-length")
            .and_then(|length| length.parse::<u64>().ok());
        if length.unwrap_or(0) > room {
            return Err(self.full());
        }
        Ok(room)
    }

    /// There is no room. A client repeats what was answered with 507 for many minutes, and takes a 413 for the answer.
    pub fn full(&self) -> Response {
        Response::error(
            413,
            &format!(
                "the server's files may take {} MiB, and there is no room left for this",
                self.quota / (1024 * 1024)
            ),
        )
    }

    /// Takes in what is uploaded to an address.
    pub fn take_in(&self, address: &Address, head: &Head, mut body: impl Read) -> Response {
        // Given back only when the queue counts them, or they are nowhere.
        let mut claim = Claim {
            store: self,
            bytes: 0,
        };
        let (blob, file) = match self.receive(&mut body, &mut claim) {
            Ok(received) => received,
            Err(refusal) => return refusal,
        };
        if let Some(md5) = head.header("content-md5")
            && md5 != blob.md5
        {
            return Response::error(400, "what came does not have the MD5 of `Content-MD5`");
        }
        let kept = match address {
            Address::PutRunFile(run, name) => self.queue.keep_run_file(*run, name, &blob, file),
            Address::PutArtifactFile(id) => self.queue.keep_artifact_file(*id, &blob, file),
            Address::PutManifest(id) => self.queue.keep_manifest(*id, &blob, file),
            _ => {
                return Response::error(405, "this address gives a file out")
                    .header("allow", "GET");
            }
        };
        match kept {
            Ok(Kept::Done) => Response::empty(200),
            Ok(Kept::Full) => self.full(),
            Err(error) => told(&error),
        }
    }

    fn receive(
        &self,
        body: &mut impl Read,
        claim: &mut Claim<'_>,
    ) -> Result<(Blob, Complete), Response> {
        let stored_now = || self.queue.stored_bytes().map_err(|error| told(&error));
        let (mut stored, mut look_at) = (stored_now()?, LOOK_AGAIN);
        let mut incoming = self.queue.incoming_file().map_err(|error| told(&error))?;
        let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
        let mut piece = vec![0; 64 * 1024];
        loop {
            let count = body.read(&mut piece).map_err(|error| {
                log::debug!("an upload broke off: {error}");
                Response::error(400, "the upload broke off")
            })?;
            if count == 0 {
                break;
            }
            claim.bytes += count as u64;
            let coming = self.coming.fetch_add(count as u64, Ordering::Relaxed);
            if claim.bytes >= look_at {
                (stored, look_at) = (stored_now()?, claim.bytes + LOOK_AGAIN);
            }
            if stored.saturating_add(coming) + count as u64 > self.quota {
                return Err(self.full());
            }
            md5.update(&piece[..count]);
            sha256.update(&piece[..count]);
            incoming
                .file()
                .write_all(&piece[..count])
                .map_err(|cause| told(&Error::system("cannot write an uploaded file", cause)))?;
        }
        let blob = Blob {
            sha256: hex(&sha256.finalize()),
            md5: STANDARD.encode(md5.finalize()),
            size: claim.bytes,
        };
        let complete = incoming.complete().map_err(|error| told(&error))?;
        Ok((blob, complete.within(self.quota)))
    }

    /// Gives out what is at an address.
    pub fn give_out(&self, address: &Address) -> Response {
        let blob = match address {
            Address::GetRunFile(id) => {
                let found = self.queue.run_file(*id);
                found.map(|found| found.map(|(_, file)| file.blob))
            }
            Address::GetArtifactFile(id) => {
                let found = self.queue.artifact_file(*id);
                found.map(|found| found.map(|file| file.blob))
            }
            Address::GetManifest(id) => self.queue.manifest(*id),
            _ => {
                return Response::error(405, "this address takes a file in").header("allow", "PUT");
            }
        };
        let opened = match blob {
            Ok(Some(blob)) => self.queue.open_blob(&blob).map(|file| (file, blob)),
            Ok(None) => return Response::error(404, "the file is gone"),
            Err(error) => Err(error),
        };
        match opened {
            Ok((file, blob)) => Response {
                status: 200,
                headers: vec![
                    ("content-type", "application/octet-stream".to_owned()),
                    // A browser must not run what somebody uploaded as a page of ours.
                    ("content-disposition", "attachment".to_owned()),
                    ("x-content-type-options", "nosniff".to_owned()),
                    ("cache-control", "private, no-store".to_owned()),
                ],
                content: Content::File(file, blob.size),
            },
            Err(error) => told(&error),
        }
    }
}

/// An error in words that may leave this machine.
fn told(error: &Error) -> Response {
    match error.kind {
        Kind::NotFound => Response::error(404, &error.message),
        Kind::Input => Response::error(400, &error.message),
        _ => {
            log::error!("{error}");
            Response::error(503, "the server cannot read or write its files")
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.extend(
            [byte >> 4, byte & 15].map(|half| char::from_digit(half.into(), 16).unwrap_or('0')),
        );
        text
    })
}
