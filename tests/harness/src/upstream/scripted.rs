//! The upstream of the tests: it plays what the test wrote, and keeps its own account of what it served.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::openai::{Answer, ApiError, ChatRequest, Usage, models};
use crate::upstream::script::Script;
use crate::upstream::server::{Ending, Playwright, Received, Server};

/// The model that a scripted upstream has.
pub const MODEL: &str = "scripted-1";

/// What an upstream has served, by its own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Chats that it answered with success, to the end of the script.
    pub completed: u64,
    /// Chats that it answered with an error status.
    pub refused: u64,
    /// Chats that broke off: cut by the script or left by the client.
    pub broken: u64,
    /// The tokens of the completed ones.
    pub usage: Usage,
}

type Author = Arc<dyn Fn(&Received) -> Script + Send + Sync>;

/// An upstream that follows scripts.
#[derive(Debug)]
pub struct Scripted {
    server: Server,
    stage: Arc<Stage>,
    scheme: &'static str,
}

/// What the server's connections and the test share.
struct Stage {
    key: String,
    next: Mutex<VecDeque<Script>>,
    otherwise: Mutex<Author>,
    received: watch::Sender<Vec<Arc<Received>>>,
    account: Mutex<Account>,
}

impl Scripted {
    /// One that answers every chat with success until told otherwise.
    pub async fn start() -> anyhow::Result<Self> {
        let (listener, stage) = (TcpListener::bind("127.0.0.1:0").await?, Stage::new());
        let server = Server::start(listener, Arc::clone(&stage) as Arc<dyn Playwright>)?;
        Ok(Self { server, stage, scheme: "http" })
    }

    /// The same over TLS, with this certificate, which is for `localhost`, and HTTP/2 for those who offer it.
    pub async fn start_tls(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> anyhow::Result<Self> {
        let (listener, stage) = (TcpListener::bind("127.0.0.1:0").await?, Stage::new());
        let server = Server::start_tls(listener, Arc::clone(&stage) as Arc<dyn Playwright>, certificate, key)?;
        Ok(Self { server, stage, scheme: "https" })
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
        &self.stage.key
    }

    /// The next chat without a script gets this one.
    pub fn next(&self, script: Script) {
        lock(&self.stage.next).push_back(script);
    }

    /// Every chat that no [`Self::next`] is left for gets what this function says.
    pub fn otherwise(&self, author: impl Fn(&Received) -> Script + Send + Sync + 'static) {
        *lock(&self.stage.otherwise) = Arc::new(author);
    }

    /// Every chat that came with the right key, in order of arrival.
    pub fn chats(&self) -> Vec<Arc<Received>> {
        self.stage.received.borrow().clone()
    }

    /// Waits until this many chats have come, and returns the last of them.
    pub async fn chat(&self, number: usize) -> Arc<Received> {
        let mut received = self.stage.received.subscribe();
        let there = received.wait_for(|chats| chats.len() >= number).await;
        // The sender lives in the stage, which lives as long as this.
        Arc::clone(&there.expect("the stage is there")[number - 1])
    }

    /// What it has served.
    pub fn account(&self) -> Account {
        *lock(&self.stage.account)
    }
}

/// The script that answers a request with this text, or with the error that the provider would answer.
pub fn answer(request: &Received, text: &str) -> Script {
    match ChatRequest::parse(&request.body) {
        Ok(chat) => Script::answer(&chat, &Answer::to(&chat, text)),
        Err(error) => Script::error(&error),
    }
}

impl Stage {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            key: format!("sk-test-{:016x}", rand::random::<u64>()),
            next: Mutex::default(),
            otherwise: Mutex::new(Arc::new(|request| answer(request, "This is the answer."))),
            received: watch::Sender::new(Vec::new()),
            account: Mutex::default(),
        })
    }
}

impl Playwright for Stage {
    fn script(&self, request: &Arc<Received>) -> Script {
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
        let author = Arc::clone(&*lock(&self.otherwise));
        author(request)
    }

    fn ended(&self, request: &Received, script: &Script, ending: Ending) {
        if request.method != Method::POST {
            return;
        }
        let mut account = lock(&self.account);
        match ending {
            _ if !script.status.is_success() => account.refused += 1,
            Ending::Complete => {
                let usage = script.usage.unwrap_or_default();
                account.completed += 1;
                account.usage.prompt_tokens += usage.prompt_tokens;
                account.usage.completion_tokens += usage.completion_tokens;
            }
            Ending::ClientGone | Ending::Cut => account.broken += 1,
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("account", &self.account).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
