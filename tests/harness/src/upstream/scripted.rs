//! The upstream of the tests: runs the scripts that a test provides, and counts the chats and tokens that the upstream has
//! served.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::openai::{Answer, ApiError, ChatRequest, Usage, models};
use crate::upstream::script::Script;
use crate::upstream::script_server::{Ending, ReceivedRequest, ScriptServer, ScriptSource};

/// The only model that a scripted upstream lists.
pub const MODEL: &str = "scripted-1";

/// The paths for which a test scripts the answers.
const ENDPOINTS: [&str; 15] = [
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/images/variations",
    "/v1/messages",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
];

/// Totals of the served chats, counted by the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedTotals {
    /// Chats with a success status whose script ran to the end.
    pub completed: u64,
    /// Chats with an error status.
    pub refused: u64,
    /// Chats that were cut by the script or left by the client.
    pub broken: u64,
    /// Tokens of the completed chats.
    pub usage: Usage,
}

type RespondFn = Arc<dyn Fn(&ReceivedRequest) -> Script + Send + Sync>;

/// An upstream that follows scripts. Stops when dropped.
#[derive(Debug)]
pub struct ScriptedUpstream {
    server: ScriptServer,
    state: Arc<ScriptedState>,
    scheme: &'static str,
}

/// State shared by the server's connections and the test.
struct ScriptedState {
    key: String,
    next: Mutex<VecDeque<Script>>,
    otherwise: Mutex<RespondFn>,
    received: watch::Sender<Vec<Arc<ReceivedRequest>>>,
    served: Mutex<ServedTotals>,
}

impl ScriptedUpstream {
    /// Starts an upstream that answers every chat with success until [`Self::respond_with`] or [`Self::respond_next`] say
    /// otherwise.
    pub async fn start() -> anyhow::Result<Self> {
        let (listener, state) = (TcpListener::bind("127.0.0.1:0").await?, ScriptedState::new());
        let server = ScriptServer::start(listener, Arc::clone(&state) as Arc<dyn ScriptSource>)?;
        Ok(Self { server, state, scheme: "http" })
    }

    /// Starts an upstream over TLS with this certificate for `localhost`, with HTTP/2 for clients that offer HTTP/2.
    pub async fn start_tls(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> anyhow::Result<Self> {
        let (listener, state) = (TcpListener::bind("127.0.0.1:0").await?, ScriptedState::new());
        let server = ScriptServer::start_tls(listener, Arc::clone(&state) as Arc<dyn ScriptSource>, certificate, key)?;
        Ok(Self { server, state, scheme: "https" })
    }

    /// URL of the upstream as a provider, up to and including `/v1`.
    pub fn base_url(&self) -> String {
        let address = self.server.address();
        match self.scheme {
            "https" => format!("https://localhost:{}/v1", address.port()),
            _ => format!("http://{address}/v1"),
        }
    }

    /// Number of accepted connections.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Listening address, for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// The accepted key. Any other key gets the provider's refusal.
    pub fn key(&self) -> &str {
        &self.state.key
    }

    /// Queues a script for the next chat. Several scripts are used in order.
    pub fn respond_next(&self, script: Script) {
        lock(&self.state.next).push_back(script);
    }

    /// Sets the function that makes the script of every chat for which no script is queued.
    pub fn respond_with(&self, respond: impl Fn(&ReceivedRequest) -> Script + Send + Sync + 'static) {
        *lock(&self.state.otherwise) = Arc::new(respond);
    }

    /// Every chat with the right key, in order of arrival.
    pub fn chats(&self) -> Vec<Arc<ReceivedRequest>> {
        self.state.received.borrow().clone()
    }

    /// Waits until `number` chats have arrived, and returns the last of them.
    pub async fn chat(&self, number: usize) -> Arc<ReceivedRequest> {
        let mut received = self.state.received.subscribe();
        let there = received.wait_for(|chats| chats.len() >= number).await;
        // The state owns the sender and outlives this call, so waiting cannot fail.
        Arc::clone(&there.expect("the sender lives in the state")[number - 1])
    }

    /// Totals of the served chats.
    pub fn served(&self) -> ServedTotals {
        *lock(&self.state.served)
    }
}

/// Script that answers a chat request with this text, or with the provider's error if the request is malformed.
pub fn answer(request: &ReceivedRequest, text: &str) -> Script {
    match ChatRequest::parse(&request.body) {
        Ok(chat) => Script::answer(&chat, &Answer::to(&chat, text)),
        Err(error) => Script::error(&error),
    }
}

impl ScriptedState {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            key: format!("sk-test-{:016x}", rand::random::<u64>()),
            next: Mutex::default(),
            otherwise: Mutex::new(Arc::new(|request| answer(request, "This is the answer."))),
            received: watch::Sender::new(Vec::new()),
            served: Mutex::default(),
        })
    }
}

impl ScriptSource for ScriptedState {
    fn script(&self, request: &Arc<ReceivedRequest>) -> Script {
        if request.key() != Some(&self.key) {
            return Script::error(&ApiError::wrong_key(request.key().unwrap_or_default()));
        }
        match (&request.method, request.path.as_str()) {
            (&Method::POST, "/v1/messages/count_tokens") => {
                return Script::json(StatusCode::OK, r#"{"input_tokens":14}"#);
            }
            (&Method::POST, path) if ENDPOINTS.contains(&path) => {}
            (_, "/v1/files") => {}
            (_, path) if path.starts_with("/v1/responses/") => {}
            (&Method::POST, path) if path.ends_with(":embedContent") || path.ends_with(":batchEmbedContents") => {}
            (&Method::POST, path) if path.ends_with(":generateContent") || path.contains(":streamGenerateContent") => {}
            (&Method::POST, path) if path.ends_with(":countTokens") => {
                return Script::json(StatusCode::OK, r#"{"totalTokens":7}"#);
            }
            (&Method::GET, "/v1/models") => return Script::json(StatusCode::OK, models(&[MODEL.to_owned()])),
            (method, path) => return Script::error(&ApiError::unknown_url(method, path)),
        }
        self.received.send_modify(|received| received.push(Arc::clone(request)));
        if let Some(script) = lock(&self.next).pop_front() {
            return script;
        }
        let respond = Arc::clone(&*lock(&self.otherwise));
        respond(request)
    }

    fn ended(&self, request: &ReceivedRequest, script: &Script, ending: Ending) {
        if request.method != Method::POST {
            return;
        }
        let mut served = lock(&self.served);
        match ending {
            _ if !script.status.is_success() => served.refused += 1,
            Ending::Complete => {
                let usage = script.usage.unwrap_or_default();
                served.completed += 1;
                served.usage.prompt_tokens += usage.prompt_tokens;
                served.usage.completion_tokens += usage.completion_tokens;
            }
            Ending::ClientGone | Ending::Cut => served.broken += 1,
        }
    }
}

impl fmt::Debug for ScriptedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedState").field("served", &self.served).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
