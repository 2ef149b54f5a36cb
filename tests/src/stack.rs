//! The whole system for one test: real servers, both services as processes, and a scripted upstream.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use shared::envelope;
use shared::event::Event;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::oracle::{self, Oracle};
use harness::servers::{Nats, Postgres};
use harness::services::gateway::GatewaySettings;
use harness::services::recorder::RecorderProgram;
use harness::services::{Gateway, Recorder};
use harness::upstream::ScriptedUpstream;
use harness::{http, program};

/// The only model of the scripted upstream.
pub const MODEL: &str = "scripted-1";

/// The whole system. Stops when dropped.
#[derive(Debug)]
pub struct Stack {
    /// The gateway under test.
    pub gateway: Gateway,
    /// The running consuming recorders.
    pub recorders: Vec<Recorder>,
    /// The recorder's API, in tests with an API.
    pub api: Option<Recorder>,
    /// The broker, private to the test.
    pub nats: Nats,
    /// The database server, in tests with a database server of their own.
    pub postgres: Option<Postgres>,
    /// The scripted LLM provider of the gateways.
    pub upstream: ScriptedUpstream,
    /// Commands of the recorder.
    pub recorder: RecorderProgram,
    gateway_program: PathBuf,
    gateway_settings: GatewaySettings,
    client: reqwest::Client,
    dir: TempDir,
}

/// Settings of the services beyond the required settings.
#[derive(Clone, Copy, Debug, Default)]
struct ServiceSettings<'a> {
    gateway: &'a [(&'a str, &'a str)],
    recorder: &'a [(&'a str, &'a str)],
    /// The settings of the commands that prepare the tables and the stream, where they differ from those of the recorder.
    operator: Option<&'a [(&'a str, &'a str)]>,
    has_api: bool,
}

/// A user with a token.
#[derive(Clone, Debug)]
pub struct User {
    /// User id, the subject of the token.
    pub id: String,
    /// Token for the gateway and the API.
    pub token: String,
}

impl Stack {
    /// Starts one gateway and one recorder, with a database on the server that all tests of the process share.
    pub async fn start() -> anyhow::Result<Self> {
        let url = Postgres::shared().await?.database().await?;
        Self::on(url, None, ServiceSettings::default()).await
    }

    /// Starts the system with the API, with these settings of the gateway and of all the recorder's programs.
    pub async fn with_api(gateway: &[(&str, &str)], recorder: &[(&str, &str)]) -> anyhow::Result<Self> {
        let url = Postgres::shared().await?.database().await?;
        Self::on(url, None, ServiceSettings { gateway, recorder, has_api: true, ..ServiceSettings::default() }).await
    }

    /// Starts the system with this nats-server program.
    pub async fn with_nats_server(program: PathBuf) -> anyhow::Result<Self> {
        let url = Postgres::shared().await?.database().await?;
        Self::on_broker(Nats::of(program).await?, url, None, ServiceSettings::default()).await
    }

    /// Starts the system with these settings of the gateway.
    pub async fn with_gateway(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let url = Postgres::shared().await?.database().await?;
        Self::on(url, None, ServiceSettings { gateway: settings, ..ServiceSettings::default() }).await
    }

    /// Starts the system with a database server of its own, which the test may stop.
    pub async fn with_own_postgres() -> anyhow::Result<Self> {
        let postgres = Postgres::new().await?;
        let url = postgres.database().await?;
        Self::on(url, Some(postgres), ServiceSettings::default()).await
    }

    /// Starts the system on this broker, with these settings of the gateway, of the recorder's services, and of the commands
    /// that prepare the tables and the stream.
    pub async fn with_broker(
        nats: Nats,
        gateway: &[(&str, &str)],
        recorder: &[(&str, &str)],
        operator: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let url = Postgres::shared().await?.database().await?;
        let settings = ServiceSettings { gateway, recorder, operator: Some(operator), has_api: false };
        Self::on_broker(nats, url, None, settings).await
    }

    async fn on(
        database_url: String,
        postgres: Option<Postgres>,
        services: ServiceSettings<'_>,
    ) -> anyhow::Result<Self> {
        Self::on_broker(Nats::new().await?, database_url, postgres, services).await
    }

    async fn on_broker(
        nats: Nats,
        database_url: String,
        postgres: Option<Postgres>,
        services: ServiceSettings<'_>,
    ) -> anyhow::Result<Self> {
        let owned = |settings: &[(&str, &str)]| -> Vec<(String, String)> {
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mut more = owned(services.gateway);
        let dir = tempfile::tempdir()?;
        let upstream = ScriptedUpstream::start().await?;
        let recorder = RecorderProgram {
            program: program::built("recorder")?,
            database_url,
            nats_url: nats.url(),
            keys: dir.path().join("keys"),
            more: owned(services.recorder),
        };
        let operator = services.operator.map_or_else(|| recorder.more.clone(), owned);
        RecorderProgram { more: operator, ..recorder.clone() }.prepare().await?;
        let api = if services.has_api {
            Some(recorder.serve("127.0.0.1:0", &dir.path().join("api.log")).await?)
        } else {
            None
        };
        more.extend(api.iter().map(|api| ("RECORDER_URL".to_owned(), api.url(""))));
        let gateway_settings = GatewaySettings {
            listen: "127.0.0.1:0".into(),
            nats_url: nats.url(),
            llm_base_url: upstream.base_url(),
            llm_api_key: Some(upstream.key().to_owned()),
            token_keys_file: recorder.token_keys_file(),
            conversation_keys: format!("1:{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())),
            data_dir: dir.path().join("gateway"),
            instance: "gateway-1".into(),
            open_files: None,
            more,
        };
        let gateway_program = program::built("gateway")?;
        let gateway = Gateway::start(&gateway_program, &gateway_settings, &dir.path().join("gateway.log")).await?;
        gateway.ready().await?;
        let mut stack = Self {
            gateway,
            recorders: Vec::new(),
            api,
            nats,
            postgres,
            upstream,
            recorder,
            gateway_program,
            gateway_settings,
            client: http::client(),
            dir,
        };
        stack.add_recorder().await?;
        Ok(stack)
    }

    /// Starts another recorder beside the running recorders.
    pub async fn add_recorder(&mut self) -> anyhow::Result<()> {
        let log = self.dir.path().join(format!("recorder-{}.log", self.recorders.len() + 1));
        self.recorders.push(self.recorder.consume("127.0.0.1:0", &log).await?);
        Ok(())
    }

    /// Starts the gateway again on the same port and data, after a stop or a kill.
    pub async fn restart_gateway(&mut self) -> anyhow::Result<()> {
        self.gateway_settings.listen = self.gateway.address().to_string();
        let log = self.dir.path().join("gateway.log");
        self.gateway = Gateway::start(&self.gateway_program, &self.gateway_settings, &log).await?;
        self.gateway.ready().await
    }

    /// The directory of this test's files, for files of the test's own.
    pub fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Directory of the gateway's journal.
    pub fn journal(&self) -> PathBuf {
        self.gateway_settings.data_dir.join("journal")
    }

    /// The gateway's log so far.
    pub fn gateway_log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.dir.path().join("gateway.log"))?)
    }

    /// Starts another gateway of the same deployment, with changed settings, and waits until the gateway is ready.
    pub async fn another_gateway(&self, change: impl FnOnce(&mut GatewaySettings)) -> anyhow::Result<Gateway> {
        let gateway = self.started_gateway(change).await?;
        gateway.ready().await?;
        Ok(gateway)
    }

    /// Starts another gateway of the same deployment, with changed settings, which may not be ready yet.
    pub async fn started_gateway(&self, change: impl FnOnce(&mut GatewaySettings)) -> anyhow::Result<Gateway> {
        let mut settings = self.gateway_settings.clone();
        settings.instance = "gateway-2".into();
        settings.data_dir = self.dir.path().join("gateway-2");
        change(&mut settings);
        Gateway::start(&self.gateway_program, &settings, &self.dir.path().join("gateway-2.log")).await
    }

    /// Creates a user of this name, and a token.
    pub async fn user(&self, name: &str) -> anyhow::Result<User> {
        let id = self.recorder.user(name).await?;
        Ok(User { id, token: self.recorder.token(name, "1h").await? })
    }

    /// Builds a POST request to the gateway, without a token.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.gateway.url(path))
    }

    /// Builds a request of this method to the gateway, without a token.
    pub fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.gateway.url(path))
    }

    /// Reads JSON from this path as the user. Fails unless the status is 200.
    pub async fn read(&self, user: &User, path: &str) -> anyhow::Result<Value> {
        let response = self.client.get(self.gateway.url(path)).bearer_auth(&user.token).send().await?;
        let status = response.status();
        let body = response.text().await?;
        anyhow::ensure!(status == 200, "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Builds the chat request of a web frontend.
    pub fn chat(&self, user: &User, text: &str) -> RequestBuilder {
        let body = json!({"messages": [{"role": "user", "content": text}], "model": MODEL, "temperature": 0.5});
        self.post("/api/chat").bearer_auth(&user.token).json(&body)
    }

    /// Sends a chat and reads the answer to the end. Returns the conversation's id and the body.
    pub async fn finished_chat(&self, user: &User, text: &str) -> anyhow::Result<(String, String)> {
        let response = self.chat(user, text).send().await?;
        let conversation = header(&response, "x-conversation-id")?;
        anyhow::ensure!(response.status() == 200, "{}", response.status());
        Ok((conversation, response.text().await?))
    }

    /// Opens a pool of connections to the database.
    pub async fn database(&self) -> anyhow::Result<PgPool> {
        Ok(PgPool::connect(&self.recorder.database_url).await?)
    }

    /// Waits until the gateway's journal is empty and every event has been projected, and checks that the tables equal a
    /// fresh projection of the stream.
    pub async fn settled(&self) -> anyhow::Result<Oracle> {
        if self.gateway.process().is_running() {
            self.gateway.drained(Duration::from_secs(120)).await?;
        }
        if self.api.as_ref().is_some_and(|api| api.process().is_running()) {
            self.audit_published().await?;
        }
        Oracle::settled(&self.nats.url(), &self.recorder.database_url, Duration::from_secs(120)).await
    }

    /// Waits until no entry of the audit log waits for the broker.
    async fn audit_published(&self) -> anyhow::Result<()> {
        let pool = self.database().await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM audit_outbox)").fetch_one(&pool).await? {
            anyhow::ensure!(Instant::now() < deadline, "entries of the audit log still wait for the broker");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until every event is in the tables or in quarantine.
    pub async fn drained(&self) -> anyhow::Result<()> {
        Oracle::drained(&self.nats.url(), Duration::from_secs(120)).await
    }

    /// Opens a JetStream context on the broker.
    pub async fn jetstream(&self) -> anyhow::Result<async_nats::jetstream::Context> {
        Ok(async_nats::jetstream::new(oracle::client(&self.nats.url()).await?))
    }

    /// Publishes every event of the stream once more, in the form of a gateway, but without the id that the broker deduplicates
    /// by.
    pub async fn publish_everything_again(&self) -> anyhow::Result<()> {
        let jetstream = async_nats::jetstream::new(oracle::client(&self.nats.url()).await?);
        for event in self.settled().await?.events {
            publish_again(&jetstream, &event).await?;
        }
        Ok(())
    }

    /// Number of events in the stream, from the first event on, without entries of the audit log.
    pub async fn events(&self) -> anyhow::Result<u64> {
        Oracle::events(&self.nats.url()).await
    }
}

/// Publishes an event in the form of a gateway, but without the id that the broker deduplicates by.
pub async fn publish_again(jetstream: &async_nats::jetstream::Context, event: &Event) -> anyhow::Result<()> {
    let headers = envelope::headers(event, "/gateway/again").into_iter().filter(|(name, _)| *name != "Nats-Msg-Id");
    let mut map = async_nats::HeaderMap::new();
    headers.for_each(|(name, value)| map.insert(name, value));
    let subject = shared::subject::of(event.kind(), event.user_id());
    jetstream.publish_with_headers(subject, map, event.encode()?.into()).await?.await?;
    Ok(())
}

/// Returns a response header as text. Fails without the header.
pub fn header(response: &Response, name: &str) -> anyhow::Result<String> {
    let value = response.headers().get(name).with_context(|| format!("no header {name}"))?;
    Ok(value.to_str()?.to_owned())
}

/// Text of the assistant in a body of server-sent chunks.
pub fn streamed_text(body: &str) -> String {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let chunks = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}
