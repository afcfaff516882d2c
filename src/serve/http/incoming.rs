//! A body on its way in: how long it may be, how long it may take, and how it reaches a thread that reads.

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::{closing, no_room};
use crate::serve::exchange::{Limits, Response};

/// A body on its way in.
pub struct Source {
    incoming: Incoming,
    start: Instant,
    received: u64,
    most: u64,
    limits: Limits,
}

impl Source {
    /// A body of at most so many bytes, whose time begins now.
    pub fn new(incoming: Incoming, most: u64, limits: Limits) -> Result<Source, Response> {
        if incoming.size_hint().lower() > most {
            return Err(too_large(most));
        }
        Ok(Source {
            incoming,
            start: Instant::now(),
            received: 0,
            most,
            limits,
        })
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Response> {
        loop {
            let paid_for = Duration::from_secs(self.received / self.limits.body_rate.max(1));
            let deadline = self.start + self.limits.body_time + paid_for;
            let incoming = &mut self.incoming;
            let frame = poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context));
            let frame = timeout_at(deadline, frame)
                .await
                .map_err(|_| closing(Response::error(408, "the body came too slowly")))?;
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    log::debug!("a body broke off: {error}");
                    return Err(closing(Response::error(400, "the body broke off")));
                }
            };
            // What is not data is a trailer, which nobody asked for.
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            self.received += bytes.len() as u64;
            if self.received > self.most {
                return Err(too_large(self.most));
            }
            return Ok(Some(bytes));
        }
    }

    /// All of it, and the memory that it is granted.
    pub async fn whole(
        &mut self,
        memory: &Arc<Semaphore>,
    ) -> Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), Response> {
        let (mut all, mut held) = (Vec::new(), Vec::new());
        while let Some(piece) = self.next().await? {
            let size = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let permit = Arc::clone(memory).try_acquire_many_owned(size);
            held.push(permit.map_err(|_| no_room())?);
            all.extend_from_slice(&piece);
        }
        Ok((all, held))
    }

    /// Hands on piece by piece, at the pace of whoever takes them.
    pub async fn pass_on(mut self, sender: mpsc::Sender<std::io::Result<Bytes>>) {
        loop {
            let piece = match self.next().await {
                Ok(None) => return,
                Ok(Some(piece)) => Ok(piece),
                Err(refusal) => Err(std::io::Error::other(format!(
                    "the body was refused with status {}",
                    refusal.status
                ))),
            };
            let over = piece.is_err();
            if sender.send(piece).await.is_err() || over {
                return;
            }
        }
    }
}

/// A body that comes in pieces, for a thread that reads.
pub struct Pieces {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    rest: Bytes,
}

impl Pieces {
    /// The pieces that come by this channel.
    pub fn new(pieces: mpsc::Receiver<std::io::Result<Bytes>>) -> Pieces {
        Pieces {
            pieces,
            rest: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.rest = piece?,
            }
        }
        let count = self.rest.len().min(into.len());
        into[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

fn too_large(most: u64) -> Response {
    closing(Response::error(
        413,
        &format!("the body is longer than {most} bytes"),
    ))
}
