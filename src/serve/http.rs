//! HTTP/1.1: connections, and bounds on all that a client can make us hold or wait for. With its parts in `http/`
//! the only async code of the project, and the only one that knows its libraries; what it serves is a [`Site`], called
//! on blocking threads.

mod incoming;
mod outgoing;
mod places;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::exchange::{Admission, Body, Head, Limits, Response, Site};
use crate::failure::{Error, Result};
use incoming::{Pieces, Source};
use outgoing::{Outgoing, reply};
use places::Places;

/// A server that listens.
pub struct Server {
    listener: StdListener,
    limits: Limits,
    runtime: Runtime,
    stop: watch::Sender<bool>,
}

/// Ends a server from another thread.
#[derive(Clone)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// The server takes no more connections, and ends when the open requests are answered or their time is over.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Listens at an address; port 0 is any free one.
    pub fn bind(address: SocketAddr, limits: Limits) -> Result<Server> {
        let refused = |cause| {
            Error::system(format_args!("cannot listen at {address}"), cause)
                .hint("name another address with `--listen ADDRESS:PORT`")
        };
        let listener = StdListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(limits.workers)
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(|cause| Error::system("cannot start the threads of the server", cause))?;
        Ok(Server {
            listener,
            limits,
            runtime,
            stop: watch::channel(false).0,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener
            .local_addr()
            .map_err(|cause| Error::system("cannot tell where the server listens", cause))
    }

    /// The handle that ends it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Serves until it is stopped.
    pub fn run<S: Site>(self, site: Arc<S>) -> Result<()> {
        let door = Arc::new(Door {
            site,
            limits: self.limits,
            memory: Arc::new(Semaphore::new(self.limits.memory)),
            peers: Places::new(self.limits.connections, self.limits.connections_of_peer),
            uploads: Places::new(self.limits.uploads, self.limits.uploads_of_one),
        });
        let stopped = self.stop.subscribe();
        let served = self
            .runtime
            .block_on(accept(self.listener, &door, stopped))
            .map_err(|cause| Error::system("cannot listen any longer", cause));
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        served
    }
}

/// What all connections share.
struct Door<S> {
    site: Arc<S>,
    limits: Limits,
    memory: Arc<Semaphore>,
    peers: Arc<Places<IpAddr>>,
    uploads: Arc<Places<i64>>,
}

async fn accept<S: Site>(
    listener: StdListener,
    door: &Arc<Door<S>>,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = over(&mut stopped) => break,
            // Ended connections are let go of as they end, so that the set does not grow.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match door.peers.take(peer.ip()) {
                    Some(place) => {
                        let talk = converse(stream, Arc::clone(door), peer.ip(), stopped.clone());
                        connections.spawn(async move {
                            talk.await;
                            drop(place);
                        });
                    }
                    None => drop(connections.spawn(turn_away(stream))),
                },
                // Out of file descriptors, most likely: others must end first, and a spin would not help them.
                Err(error) => {
                    log::warn!("a connection could not be taken: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(door.limits.farewell, all).await;
    Ok(())
}

async fn over(stopped: &mut watch::Receiver<bool>) {
    // An error is the end of the handle that stops, which is as good as being stopped.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Says that there is no room. Nothing is read, so this holds no more than a socket for a second.
async fn turn_away(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let say = async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    let _ = timeout(Duration::from_secs(1), say).await;
}

async fn converse<S: Site>(
    stream: TcpStream,
    door: Arc<Door<S>>,
    peer: IpAddr,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let limits = &door.limits;
    // The kernel cuts off who takes nothing: nothing here waits for a client that reads.
    let stalled = u32::try_from(limits.stalled.as_millis()).unwrap_or(u32::MAX);
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &stalled);
    let service = service_fn(|request| respond(&door, peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes.max(8 * 1024))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Whoever has nothing more to ask for is let go after a while, which is not worth a line.
    if let Err(error) = ended
        && !error.is_timeout()
    {
        log::debug!("connection from {peer}: {error}");
    }
}

type Request = hyper::Request<Incoming>;
type Reply = hyper::Response<Outgoing>;

async fn respond<S: Site>(
    door: &Arc<Door<S>>,
    peer: IpAddr,
    request: Request,
) -> Result<Reply, Infallible> {
    let (parts, incoming) = request.into_parts();
    let head = Head {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts
            .headers
            .iter()
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect(),
        peer,
    };
    let response = exchange(door, head, incoming)
        .await
        .unwrap_or_else(|refusal| refusal);
    Ok(reply(response))
}

async fn exchange<S: Site>(
    door: &Arc<Door<S>>,
    head: Head,
    incoming: Incoming,
) -> Result<Response, Response> {
    let site = Arc::clone(&door.site);
    let (head, admitted) = blocking(move || {
        let admitted = site.admit(&head);
        (head, admitted)
    })
    .await?;
    let (admission, pass) = admitted.map_err(closing)?;
    let (Admission::Whole(most) | Admission::Streamed(most, _)) = admission;
    let mut source = Source::new(incoming, most, door.limits)?;
    let site = Arc::clone(&door.site);
    match admission {
        Admission::Whole(_) => {
            let (bytes, _held) = source.whole(&door.memory).await?;
            blocking(move || site.answer(&head, pass, Body::Whole(bytes))).await
        }
        Admission::Streamed(_, who) => {
            let Some(place) = door.uploads.take(who) else {
                return Err(no_room());
            };
            let (sender, pieces) = mpsc::channel(4);
            let answer = blocking(move || {
                let _place = place;
                let body = Body::Streamed(Box::new(Pieces::new(pieces)));
                site.answer(&head, pass, body)
            });
            // A body that is refused or given up on reaches the site as an error of its reader.
            let ((), answer) = tokio::join!(source.pass_on(sender), answer);
            answer
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    spawn_blocking(work).await.map_err(|error| {
        log::error!("a request was not answered: {error}");
        Response::error(500, "internal error")
    })
}

fn no_room() -> Response {
    closing(Response::error(503, "the server is busy").header("retry-after", "1"))
}

/// The rest of a body that was refused is not worth reading.
fn closing(response: Response) -> Response {
    response.header("connection", "close")
}
