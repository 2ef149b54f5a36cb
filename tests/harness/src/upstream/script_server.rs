//! An HTTP server that plays a script to each request: HTTP/1.1 in the clear; over TLS whichever the client prefers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::upstream::script::{Script, Step};

/// A request as it came in, and what became of it.
#[derive(Debug)]
pub struct ReceivedRequest {
    /// The version of HTTP that it came by.
    pub version: Version,
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, to its last byte.
    pub body: Bytes,
    ending: watch::Sender<Option<Ending>>,
}

/// How the answer to a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything in the script was handed to the connection.
    Complete,
    /// The client let go of the response before its end.
    ClientGone,
    /// The script cut the connection.
    Cut,
}

impl ReceivedRequest {
    /// Waits for the end of the answer.
    pub async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let ended = ending.wait_for(Option::is_some).await;
        ended.ok().and_then(|ending| *ending).unwrap_or(Ending::ClientGone)
    }

    /// The key that the request came with: after `Authorization: Bearer`, or in `x-api-key`.
    pub fn key(&self) -> Option<&str> {
        self.bearer().or_else(|| self.headers.get("x-api-key")?.to_str().ok())
    }

    /// The token after `Authorization: Bearer`.
    pub fn bearer(&self) -> Option<&str> {
        self.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
    }
}

/// Who writes the scripts.
pub trait ScriptSource: Send + Sync + 'static {
    /// The script for this request.
    fn script(&self, request: &Arc<ReceivedRequest>) -> Script;

    /// The answer has ended.
    fn ended(&self, request: &ReceivedRequest, script: &Script, ending: Ending);
}

/// A listening server. Dropping it closes every connection.
#[derive(Debug)]
pub struct ScriptServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl ScriptServer {
    /// Serves what comes to `listener`.
    pub fn start(listener: TcpListener, source: Arc<dyn ScriptSource>) -> std::io::Result<Self> {
        Self::serve(listener, source, None)
    }

    /// The same over TLS, with this certificate. HTTP/2 for clients that offer it.
    pub fn start_tls(
        listener: TcpListener,
        source: Arc<dyn ScriptSource>,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self::serve(listener, source, Some(TlsAcceptor::from(Arc::new(config))))?)
    }

    fn serve(listener: TcpListener, source: Arc<dyn ScriptSource>, tls: Option<TlsAcceptor>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, source, tls, Arc::clone(&connections)));
        Ok(Self { address, connections, task })
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ScriptServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    source: Arc<dyn ScriptSource>,
    tls: Option<TlsAcceptor>,
    count: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                count.fetch_add(1, Ordering::Relaxed);
                // Without it a token can wait 40 ms for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, tls.clone(), Arc::clone(&source)));
            }
        }
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, source: Arc<dyn ScriptSource>) {
    let service = service_fn(|request| respond(request, Arc::clone(&source)));
    // An error here is a connection that was cut, by the script or by the client; both show in `ReceivedRequest::ended`.
    let Some(tls) = tls else {
        let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        return;
    };
    let Ok(stream) = tls.accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let http = http2::Builder::new(TokioExecutor::new());
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    } else {
        let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    }
}

/// The connection is to be closed without another byte.
#[derive(Debug)]
struct ScriptedCut;

impl std::fmt::Display for ScriptedCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the script cuts the connection here")
    }
}

impl std::error::Error for ScriptedCut {}

type Frames = stream::BoxStream<'static, Result<Frame<Bytes>, ScriptedCut>>;

async fn respond(
    request: Request<Incoming>,
    source: Arc<dyn ScriptSource>,
) -> Result<Response<StreamBody<Frames>>, ScriptedCut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| ScriptedCut)?.to_bytes();
    let path = head.uri.path().to_owned();
    let received = ReceivedRequest {
        version: head.version,
        method: head.method,
        path,
        headers: head.headers,
        body,
        ending: watch::Sender::new(None),
    };
    let received = Arc::new(received);
    let script = source.script(&received);
    let play = ScriptRun { script, received, source, ended: false };
    play.response().await
}

/// A script being played. Dropped before its end, the client has gone.
struct ScriptRun {
    script: Script,
    received: Arc<ReceivedRequest>,
    source: Arc<dyn ScriptSource>,
    ended: bool,
}

impl ScriptRun {
    async fn response(mut self) -> Result<Response<StreamBody<Frames>>, ScriptedCut> {
        for step in std::mem::take(&mut self.script.before) {
            self.wait(&step).await?;
        }
        let mut response = Response::builder().status(self.script.status);
        if let Some(headers) = response.headers_mut() {
            headers.extend(self.script.headers.clone());
        }
        if let [Step::Send(whole)] = self.script.body.as_slice() {
            response = response.header(http::header::CONTENT_LENGTH, whole.len());
        }
        response.body(StreamBody::new(self.frames().boxed())).map_err(|_| ScriptedCut)
    }

    fn frames(mut self) -> impl Stream<Item = Result<Frame<Bytes>, ScriptedCut>> + Send {
        let steps = std::mem::take(&mut self.script.body).into_iter();
        stream::unfold(Some((self, steps)), |playing| async move {
            let (mut play, mut steps) = playing?;
            // Let the connection write what it has, so that each piece is a write of its own, and a cut comes after it.
            tokio::task::yield_now().await;
            for step in steps.by_ref() {
                match play.wait(&step).await {
                    Ok(Some(bytes)) => {
                        // Of a body whose length is known, the connection does not ask for the end.
                        if steps.len() == 0 {
                            play.end(Ending::Complete);
                        }
                        return Some((Ok(Frame::data(bytes)), Some((play, steps))));
                    }
                    Ok(None) => {}
                    Err(cut) => return Some((Err(cut), None)),
                }
            }
            if !play.ended {
                play.end(Ending::Complete);
            }
            None
        })
    }

    /// Does a step; what it is to send comes back.
    async fn wait(&mut self, step: &Step) -> Result<Option<Bytes>, ScriptedCut> {
        match step {
            Step::Send(bytes) => return Ok(Some(bytes.clone())),
            Step::Pause(pause) => tokio::time::sleep(*pause).await,
            Step::Wait(gate) => gate.pass().await,
            Step::Hang => std::future::pending().await,
            Step::Cut => {
                self.end(Ending::Cut);
                return Err(ScriptedCut);
            }
        }
        Ok(None)
    }

    fn end(&mut self, ending: Ending) {
        self.ended = true;
        self.source.ended(&self.received, &self.script, ending);
        self.received.ending.send_replace(Some(ending));
    }
}

impl Drop for ScriptRun {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Ending::ClientGone);
        }
    }
}
