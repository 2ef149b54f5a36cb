//! An HTTP proxy that opens tunnels with CONNECT, with or without credentials.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Upper bound of a request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// A proxy on a free port. Stops when dropped.
#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ConnectProxy {
    /// Starts a proxy whose tunnels all lead to `server`, whatever host the client names. With `authorization`, tunnels are
    /// opened only to requests with this value of `proxy-authorization`; others get 407.
    pub async fn start(server: SocketAddr, authorization: Option<&'static str>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let targets = Arc::<Mutex<Vec<String>>>::default();
        let opened = Arc::clone(&targets);
        let task = tokio::spawn(async move {
            let mut tunnels = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = tunnels.join_next() => {}
                    Ok((stream, _)) = listener.accept() => {
                        tunnels.spawn(tunnel(stream, server, authorization, Arc::clone(&opened)));
                    }
                }
            }
        });
        Ok(Self { address, targets, task })
    }

    /// Address on which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The target of each opened tunnel, `host:port`, in the order of the requests.
    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tunnel(
    mut client: TcpStream,
    server: SocketAddr,
    authorization: Option<&'static str>,
    opened: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let Some(target) = target else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n").await;
    };
    let sent = head.lines().find_map(|line| line.strip_prefix("proxy-authorization: "));
    if authorization.is_some() && sent != authorization {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await;
    }
    let mut server = TcpStream::connect(server).await?;
    opened.lock().unwrap_or_else(PoisonError::into_inner).push(target.to_owned());
    client.write_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 proxy\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
