//! An upstream that responds with arbitrary bytes, valid HTTP or not.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

type RespondFn = Arc<dyn Fn(&[u8]) -> Bytes + Send + Sync>;

/// Upper bound of a request, in bytes.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// A server that reads one request from each connection, sends the bytes of the response, and closes the connection.
#[derive(Debug)]
pub struct RawUpstream {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl RawUpstream {
    /// Starts a server that responds with the function's result for the body of the request.
    pub async fn start(respond: impl Fn(&[u8]) -> Bytes + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let respond: RespondFn = Arc::new(respond);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(answer(stream, Arc::clone(&respond)));
                    }
                }
            }
        });
        Ok(Self { address, task })
    }

    /// URL of the server as a provider, up to and including `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, respond: RespondFn) -> std::io::Result<()> {
    let mut request = Vec::new();
    let body = loop {
        if stream.read_buf(&mut request).await? == 0 || request.len() > MAX_REQUEST_BYTES {
            return Ok(());
        }
        if let Some(body) = body(&request) {
            break body;
        }
    };
    stream.write_all(&respond(body)).await?;
    stream.shutdown().await?;
    // A connection closed with unread bytes is reset, and the client may lose the response.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Returns the body of a complete request. None until the request is complete.
fn body(request: &[u8]) -> Option<&[u8]> {
    let head = request.windows(4).position(|window| window == b"\r\n\r\n")?;
    let lines = std::str::from_utf8(&request[..head]).ok()?.lines();
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(Some(0), |(_, value)| value.trim().parse().ok())?;
    request[head + 4..].get(..length)
}
