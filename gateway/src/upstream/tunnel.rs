//! A tunnel through a proxy: a TCP connection to the proxy, which CONNECT joins with a connection to the upstream.

use std::fmt::Write as _;
use std::io;

use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::routing::proxy::Proxy;
use crate::upstream::error::TunnelError;

/// The maximum length of the head of the proxy's response, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Opens a tunnel to a host and a port. The proxy resolves the host's name. The caller bounds the time.
pub(super) async fn open(proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, TunnelError> {
    let connected = TcpStream::connect((proxy.host.as_str(), proxy.port)).await;
    let mut stream = connected.map_err(TunnelError::Unreachable)?;
    let status = connect(&mut stream, proxy, host, port).await.map_err(TunnelError::Broken)?;
    match status {
        200..=299 => Ok(stream),
        status => Err(TunnelError::Refused(status)),
    }
}

/// Sends the CONNECT request, and reads the head of the response. Returns the status.
async fn connect(stream: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> io::Result<u16> {
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        // Writing to a string does not fail.
        let _ = write!(request, "proxy-authorization: {}\r\n", authorization.expose_secret());
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD_BYTES {
            return Err(io::Error::other("the head of the proxy's response is longer than 16 KiB"));
        }
        // The upstream's bytes follow the head, so nothing past the head may be read.
        head.push(stream.read_u8().await?);
    }
    status(&head).ok_or_else(|| io::Error::other("the proxy's response is no HTTP/1.1"))
}

/// Returns the status in the head of a response.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}
