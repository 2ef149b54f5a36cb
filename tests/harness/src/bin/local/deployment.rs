//! The start of a deployment: every service in the order of its needs, accounts, and the file of settings.

use anyhow::Context as _;
use serde_json::Value;

use crate::directory::Directory;
use crate::ports::Ports;
use crate::programs::Programs;
use crate::provider::{Provider, Source};
use crate::recorder::Recorder;
use crate::service::Service;
use crate::services::{GatewaySettings, start_api, start_gateway, start_recorder, start_stand_in};
use crate::settings_file::SettingsFile;
use crate::{nats, output, postgres, process};

/// Model in the printed example where the gateway lists none.
const UNKNOWN_MODEL: &str = "MODEL";

/// Starts all services, waits until each is ready, and writes `.local/env`.
pub(crate) async fn start(directory: &Directory, provider: &Provider) -> anyhow::Result<SettingsFile> {
    let programs = Programs::find()?;
    // Remaining processes of an interrupted start, or of a deployment with an ended process, are stopped first.
    process::stop_all(directory).await?;
    let ports = Ports::choose(directory)?;
    let port = |service| ports.of(service).with_context(|| format!("no port has been chosen for {service}"));

    let database_url = postgres::start(directory, port(Service::Postgres)?).await?;
    let nats_url = nats::start(directory, &programs.nats_server, port(Service::Nats)?).await?;
    let upstream_url = match provider.describe() {
        Some(description) => description,
        None => start_stand_in(directory, &programs, port(Service::Llm)?).await?,
    };
    let recorder =
        Recorder { directory: directory.clone(), program: programs.recorder.clone(), database_url, nats_url };
    output::step("migrating the database; making the stream, the keys and a demo user");
    recorder.prepare().await?;
    let accounts = Accounts::create(&recorder).await?;

    start_recorder(&recorder, port(Service::Recorder)?).await?;
    start_api(&recorder, port(Service::Api)?, ports.another()?).await?;
    let gateway = GatewaySettings {
        port: port(Service::Gateway)?,
        health_port: ports.another()?,
        api_port: port(Service::Api)?,
        source: &provider.source,
        upstream_url: &upstream_url,
    };
    start_gateway(&recorder, &programs.gateway, gateway).await?;

    let model = match &provider.model {
        Some(model) => model.clone(),
        None => first_model(gateway.port, &accounts.token).await,
    };
    let http = |service| anyhow::Ok(format!("http://127.0.0.1:{}", port(service)?));
    let settings = SettingsFile::new([
        ("GATEWAY_URL", http(Service::Gateway)?),
        ("RECORDER_URL", http(Service::Api)?),
        ("CONSUME_URL", http(Service::Recorder)?),
        ("METRICS_URL", format!("http://127.0.0.1:{}/metrics", gateway.health_port)),
        ("DEMO_TOKEN", accounts.token),
        ("DEMO_USER", DEMO.to_owned()),
        ("DEMO_USER_ID", accounts.user_id),
        ("DEMO_PASSWORD", recorder.password(DEMO)?),
        ("ADMIN_PASSWORD", recorder.password(ADMIN)?),
        ("INVITE_CODE", accounts.invite_code),
        ("DEMO_MODEL", model),
        ("DATABASE_URL", recorder.database_url),
        ("NATS_URL", recorder.nats_url),
        ("UPSTREAM_URL", upstream_url),
    ]);
    settings.write(directory)?;
    Ok(settings)
}

/// Names of the two accounts.
const DEMO: &str = "demo";
const ADMIN: &str = "admin";

/// Proof of the demo user's identity, and a code for further users.
#[derive(Debug)]
struct Accounts {
    user_id: String,
    token: String,
    invite_code: String,
}

impl Accounts {
    async fn create(recorder: &Recorder) -> anyhow::Result<Self> {
        let user_id = recorder.user(DEMO, &[]).await?;
        recorder.user(ADMIN, &["--admin"]).await?;
        Ok(Self { user_id, token: recorder.token(DEMO).await?, invite_code: recorder.invite_code().await? })
    }
}

/// Asks the gateway for the list of models and returns the first model.
async fn first_model(port: u16, token: &str) -> String {
    let ask = async || {
        let request = harness::http::client().get(format!("http://127.0.0.1:{port}/v1/models")).bearer_auth(token);
        let models: Value = request.timeout(std::time::Duration::from_secs(5)).send().await.ok()?.json().await.ok()?;
        Some(models["data"][0]["id"].as_str()?.to_owned())
    };
    ask().await.unwrap_or_else(|| UNKNOWN_MODEL.to_owned())
}

/// Returns true if the running deployment has answers from elsewhere than this provider.
pub(crate) fn answers_from_elsewhere(settings: &SettingsFile, provider: &Provider) -> bool {
    // Without a named provider any running provider is accepted.
    provider.source != Source::StandIn
        && provider.describe().is_some_and(|description| description != settings.get("UPSTREAM_URL"))
}
