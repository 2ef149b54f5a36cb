//! The upstream of the tests: it plays what the test wrote, and keeps its own served of what it served.

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

/// The model that a scripted upstream has.
pub const MODEL: &str = "scripted-1";

/// What an upstream has served, by its own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedTotals {
    /// Chats that it answered with success, to the end of the script.
    pub completed: u64,
    /// Chats that it answered with an error status.
    pub refused: u64,
    /// Chats that broke off: cut by the script or left by the client.
    pub broken: u64,
    /// The tokens of the completed ones.
    pub usage: Usage,
}

type RespondFn = Arc<dyn Fn(&ReceivedRequest) -> Script + Send + Sync>;

/// An upstream that follows scripts.
#[derive(Debug)]
pub struct ScriptedUpstream {
    server: ScriptServer,
    state: Arc<ScriptedState>,
    scheme: &'static str,
}

/// What the server's connections and the test share.
struct ScriptedState {
    key: String,
    next: Mutex<VecDeque<Script>>,
    otherwise: Mutex<RespondFn>,
    received: watch::Sender<Vec<Arc<ReceivedRequest>>>,
    served: Mutex<ServedTotals>,
}

impl ScriptedUpstream {
    /// One that answers every chat with success until told otherwise.
    pub async fn start() -> anyhow::Result<Self> {
        let (listener, state) = (TcpListener::bind("127.0.0.1:0").await?, ScriptedState::new());
        let server = ScriptServer::start(listener, Arc::clone(&state) as Arc<dyn ScriptSource>)?;
        Ok(Self { server, state, scheme: "http" })
    }

    /// The same over TLS, with this certificate, which is for `localhost`, and HTTP/2 for those who offer it.
    pub async fn start_tls(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> anyhow::Result<Self> {
        let (listener, state) = (TcpListener::bind("127.0.0.1:0").await?, ScriptedState::new());
        let server = ScriptServer::start_tls(listener, Arc::clone(&state) as Arc<dyn ScriptSource>, certificate, key)?;
        Ok(Self { server, state, scheme: "https" })
    }

    /// What a gateway is told as its provider's URL.
    pub fn base_url(&self) -> String {
        let address = self.server.address();
        match self.scheme {
            "https" => format!("https://localhost:{}/v1", address.port()),
            _ => format!("http://{address}/v1"),
        }
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// The address in it, for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// The key that it accepts; any other is refused as the provider does.
    pub fn key(&self) -> &str {
        &self.state.key
    }

    /// The next chat without a script gets this one.
    pub fn respond_next(&self, script: Script) {
        lock(&self.state.next).push_back(script);
    }

    /// Every chat that no [`Self::respond_next`] is left for gets what this function says.
    pub fn respond_with(&self, respond: impl Fn(&ReceivedRequest) -> Script + Send + Sync + 'static) {
        *lock(&self.state.otherwise) = Arc::new(respond);
    }

    /// Every chat that came with the right key, in order of arrival.
    pub fn chats(&self) -> Vec<Arc<ReceivedRequest>> {
        self.state.received.borrow().clone()
    }

    /// Waits until this many chats have come, and returns the last of them.
    pub async fn chat(&self, number: usize) -> Arc<ReceivedRequest> {
        let mut received = self.state.received.subscribe();
        let there = received.wait_for(|chats| chats.len() >= number).await;
        // The sender lives in the state, which lives as long as this.
        Arc::clone(&there.expect("the state is there")[number - 1])
    }

    /// What it has served.
    pub fn served(&self) -> ServedTotals {
        *lock(&self.state.served)
    }
}

/// The script that answers a request with this text, or with the error that the provider would answer.
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
            (&Method::POST, "/v1/chat/completions" | "/v1/responses" | "/v1/messages") => {}
            (&Method::POST, "/v1/messages/count_tokens") => {
                return Script::json(StatusCode::OK, r#"{"input_tokens":14}"#);
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
