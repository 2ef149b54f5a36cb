//! An HTTP server that runs a script for each request: HTTP/1.1 without TLS; with TLS also HTTP/2, for clients that offer
//! HTTP/2.

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

/// A received request, and the end of the response once there is one.
#[derive(Debug)]
pub struct ReceivedRequest {
    /// HTTP version of the request.
    pub version: Version,
    /// Method of the request.
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// Query of the request.
    pub query: Option<String>,
    /// Headers of the request.
    pub headers: HeaderMap,
    /// Complete body of the request.
    pub body: Bytes,
    ending: watch::Sender<Option<Ending>>,
}

/// The end of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every step of the script has been run.
    Complete,
    /// The client closed the connection or the stream before the end.
    ClientGone,
    /// The script cut the connection.
    Cut,
}

impl ReceivedRequest {
    /// Waits for the end of the response.
    pub async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let ended = ending.wait_for(Option::is_some).await;
        ended.ok().and_then(|ending| *ending).unwrap_or(Ending::ClientGone)
    }

    /// Key of the request, from `Authorization: Bearer`, `x-api-key` or `api-key`.
    pub fn key(&self) -> Option<&str> {
        let in_header = |name| self.headers.get(name)?.to_str().ok();
        self.bearer()
            .or_else(|| in_header("x-api-key"))
            .or_else(|| in_header("api-key"))
            .or_else(|| in_header("x-goog-api-key"))
    }

    /// Token of the request, from `Authorization: Bearer`.
    pub fn bearer(&self) -> Option<&str> {
        self.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
    }
}

/// Source of the scripts of a server.
pub trait ScriptSource: Send + Sync + 'static {
    /// Returns the script for this request.
    fn script(&self, request: &Arc<ReceivedRequest>) -> Script;

    /// Called at the end of each response.
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
    /// Serves the connections of `listener`, without TLS.
    pub fn start(listener: TcpListener, source: Arc<dyn ScriptSource>) -> std::io::Result<Self> {
        Self::serve(listener, source, None)
    }

    /// Serves the connections of `listener` over TLS with this certificate. HTTP/2 for clients that offer HTTP/2.
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

    /// Number of accepted connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns the address on which the server listens.
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
                // Without TCP_NODELAY a token can be delayed 40 ms, until the token before is acknowledged.
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

/// Error of a body that makes the connection close without another byte.
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
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
    let received = ReceivedRequest {
        version: head.version,
        method: head.method,
        path,
        query,
        headers: head.headers,
        body,
        ending: watch::Sender::new(None),
    };
    let received = Arc::new(received);
    let script = source.script(&received);
    let play = ScriptRun { script, received, source, ended: false };
    play.response().await
}

/// A running script. If dropped before the end, the client has gone.
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
            // Lets the connection write first, so that each piece is a write of its own, and a cut comes after the write.
            tokio::task::yield_now().await;
            for step in steps.by_ref() {
                match play.wait(&step).await {
                    Ok(Some(bytes)) => {
                        // hyper does not poll a body of known length for the end, so the last step records the end.
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

    /// Runs a step. Returns the bytes of a step that sends.
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
