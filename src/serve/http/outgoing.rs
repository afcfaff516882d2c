//! An answer on its way out.

use std::io::{ErrorKind, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::serve::exchange::{Content, Response};

/// How many bytes of a file are read at once.
const CHUNK: usize = 64 * 1024;

/// The answer in the library's words.
pub fn reply(response: Response) -> hyper::Response<Outgoing> {
    let mut reply = hyper::Response::new(match response.content {
        Content::Bytes(bytes) => Outgoing::Bytes(Some(bytes.into())),
        Content::File(file, length) => Outgoing::File {
            file: Some(file),
            reading: None,
            left: length,
        },
    });
    *reply.status_mut() = hyper::StatusCode::from_u16(response.status)
        .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            reply
                .headers_mut()
                .append(HeaderName::from_static(name), value);
        }
    }
    reply
}

/// The body of an answer. A file is read a piece at a time as the client takes it, so that a slow one holds no thread.
pub enum Outgoing {
    Bytes(Option<Bytes>),
    File {
        file: Option<std::fs::File>,
        reading: Option<JoinHandle<std::io::Result<(std::fs::File, Bytes)>>>,
        left: u64,
    },
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Outgoing::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Outgoing::File { left: 0, .. } => Poll::Ready(None),
            Outgoing::File {
                file,
                reading,
                left,
            } => {
                if let Some(file) = file.take() {
                    let size = usize::try_from(*left).unwrap_or(CHUNK).min(CHUNK);
                    *reading = Some(spawn_blocking(move || read_piece(file, size)));
                }
                let Some(handle) = reading else {
                    return Poll::Ready(None);
                };
                let read = ready!(Pin::new(handle).poll(context));
                *reading = None;
                let (again, piece) = read.map_err(std::io::Error::other)??;
                *file = Some(again);
                *left -= piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Outgoing::Bytes(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Outgoing::File { left, .. } => *left,
        })
    }
}

fn read_piece(mut file: std::fs::File, size: usize) -> std::io::Result<(std::fs::File, Bytes)> {
    let mut piece = vec![0; size];
    let count = file.read(&mut piece)?;
    if count == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(count);
    Ok((file, piece.into()))
}
