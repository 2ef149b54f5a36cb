//! A TCP proxy with faults: delays, stalls and cuts connections between any two programs, on the test's command.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// State of all connections through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// Bytes pass unchanged and at once.
    Whole,
    /// Bytes pass after this delay.
    Slow(Duration),
    /// Connections stay open, new connections are accepted, and no byte passes.
    Stalled,
    /// Connections are closed, new connections as soon as they are made.
    Cut,
    /// The server's side of each connection is shut down and bytes from the server are dropped; bytes from the client pass.
    HalfClosed,
}

/// Byte sequence from a client that cuts the client's connection once the server has been sent the sequence.
#[derive(Debug, Default)]
struct CutTrigger {
    word: Mutex<Option<Vec<u8>>>,
    cuts: AtomicUsize,
}

/// A proxy in front of one server. Stops when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    link: watch::Sender<LinkState>,
    trigger: Arc<CutTrigger>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy to this server on a free port, without faults.
    pub async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let link = watch::Sender::new(LinkState::Whole);
        let trigger = Arc::<CutTrigger>::default();
        let task = tokio::spawn(accept(listener, server, link.subscribe(), Arc::clone(&trigger)));
        Ok(Self { address, link, trigger, task })
    }

    /// Address for clients to connect to in place of the server's.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections, and new connections as soon as they are made.
    pub fn cut(&self) {
        self.link.send_replace(LinkState::Cut);
    }

    /// Cuts the next connection on which a client sends these bytes, once the server has been sent the bytes.
    pub fn cut_once_after(&self, word: &[u8]) {
        *self.trigger.word.lock().unwrap_or_else(PoisonError::into_inner) = Some(word.to_vec());
    }

    /// Number of connections cut by [`Self::cut_once_after`].
    pub fn cuts(&self) -> usize {
        self.trigger.cuts.load(Ordering::Relaxed)
    }

    /// Lets no byte pass. Neither side gets an error.
    pub fn stall(&self) {
        self.link.send_replace(LinkState::Stalled);
    }

    /// Shuts down the server's side of each connection: clients read an end of the stream.
    pub fn half_close(&self) {
        self.link.send_replace(LinkState::HalfClosed);
    }

    /// Delays all bytes by `by`, in both directions.
    pub fn slow(&self, by: Duration) {
        self.link.send_replace(LinkState::Slow(by));
    }

    /// Lets bytes pass again, on open connections and on new connections.
    pub fn restore(&self) {
        self.link.send_replace(LinkState::Whole);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, link: watch::Receiver<LinkState>, trigger: Arc<CutTrigger>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                connections.spawn(connect(client, server, link.clone(), Arc::clone(&trigger)));
            }
        }
    }
}

async fn connect(
    client: TcpStream,
    server: SocketAddr,
    mut link: watch::Receiver<LinkState>,
    trigger: Arc<CutTrigger>,
) {
    if *link.borrow() == LinkState::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let triggered = Notify::new();
    let up = copy(from_client, to_server, Direction::ToServer, link.clone(), Some((&*trigger, &triggered)));
    let down = copy(from_server, to_client, Direction::ToClient, link.clone(), None);
    tokio::select! {
        // Each direction ends separately; a cut ends both directions.
        _ = async { tokio::join!(up, down) } => {}
        () = triggered.notified() => {}
        _ = link.wait_for(|link| *link == LinkState::Cut) => {}
    }
}

impl CutTrigger {
    fn matches(&self, said: &[u8]) -> bool {
        let mut word = self.word.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = word.as_ref().is_some_and(|word| said.windows(word.len()).any(|part| part == word.as_slice()));
        if is_it {
            *word = None;
        }
        is_it
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut link: watch::Receiver<LinkState>,
    trigger: Option<(&CutTrigger, &Notify)>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let half_closed = |link: LinkState| direction == Direction::ToClient && link == LinkState::HalfClosed;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = link.wait_for(|link| half_closed(*link)) => break,
        };
        let Ok(read @ 1..) = read else { break };
        // Bytes read while the link is stalled wait here, and no further bytes are read.
        let Ok(link) = link.wait_for(|link| *link != LinkState::Stalled).await.map(|link| *link) else { break };
        if let LinkState::Slow(by) = link {
            sleep(by).await;
        }
        if half_closed(link) || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        if let Some((trigger, triggered)) = trigger.filter(|(trigger, _)| trigger.matches(&buffer[..read])) {
            trigger.cuts.fetch_add(1, Ordering::Relaxed);
            triggered.notify_one();
            // No byte is forwarded any more: `connect` cuts the connection now.
            std::future::pending::<()>().await;
        }
    }
    let _ = to.shutdown().await;
}
