//! A TCP proxy that cuts link: between any two programs of a test, on the test's command.

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

/// What the link do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// Bytes pass.
    Whole,
    /// Bytes pass this much later.
    Slow(Duration),
    /// Connections stay open, new ones are accepted, and nothing passes.
    Stalled,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
    /// The server's side says that it will send no more, and nothing that it sends passes; the client's bytes do.
    HalfClosed,
}

/// What a client has to say for its connection to be cut when the server has been sent it.
#[derive(Debug, Default)]
struct CutTrigger {
    word: Mutex<Option<Vec<u8>>>,
    cuts: AtomicUsize,
}

/// A proxy in front of one server.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    link: watch::Sender<LinkState>,
    trigger: Arc<CutTrigger>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// A proxy to this server, its link whole.
    pub async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let link = watch::Sender::new(LinkState::Whole);
        let trigger = Arc::<CutTrigger>::default();
        let task = tokio::spawn(accept(listener, server, link.subscribe(), Arc::clone(&trigger)));
        Ok(Self { address, link, trigger, task })
    }

    /// Where clients connect instead of to the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections, and every new one.
    pub fn cut(&self) {
        self.link.send_replace(LinkState::Cut);
    }

    /// Cuts the connection of the next client that says this, when the server has been sent it.
    pub fn cut_once_after(&self, word: &[u8]) {
        *self.trigger.word.lock().unwrap_or_else(PoisonError::into_inner) = Some(word.to_vec());
    }

    /// How often that has happened.
    pub fn cuts(&self) -> usize {
        self.trigger.cuts.load(Ordering::Relaxed)
    }

    /// Lets nothing pass; nobody is told.
    pub fn stall(&self) {
        self.link.send_replace(LinkState::Stalled);
    }

    /// Tells the clients that the server has sent its last byte.
    pub fn half_close(&self) {
        self.link.send_replace(LinkState::HalfClosed);
    }

    /// Lets everything pass this much later, either way.
    pub fn slow(&self, by: Duration) {
        self.link.send_replace(LinkState::Slow(by));
    }

    /// Lets bytes pass again, on the connections that are left and on new ones.
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
        // Each direction ends by itself; a cut ends both.
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
        // What was read while the link are stalled waits here, and nothing more is read.
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
            // Nothing more passes either way: whoever waits for that cuts the connection now.
            std::future::pending::<()>().await;
        }
    }
    let _ = to.shutdown().await;
}
