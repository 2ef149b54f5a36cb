//! The services of this workspace in a deployment: the stand-in LLM, the recorder, the recorder's API and the gateway.

use std::path::Path;
use std::process::Command;

use crate::directory::Directory;
use crate::environment::PassedOn;
use crate::process::{self, Launch};
use crate::programs::Programs;
use crate::provider::Source;
use crate::recorder::Recorder;
use crate::service::Service;
use crate::{output, readiness, secrets};

/// Starts the stand-in LLM on this port, waits until the stand-in listens, and returns the URL up to and including `/v1`.
pub(crate) async fn start_stand_in(directory: &Directory, programs: &Programs, port: u16) -> anyhow::Result<String> {
    output::step("starting the stand-in LLM, as neither LLM_API_KEY nor LLM_BASE_URL is set");
    let launch = Launch {
        command: Command::new(&programs.stand_in),
        passed_on: PassedOn { prefix: Some("STAND_IN_"), names: &[] },
        variables: vec![("STAND_IN_LISTEN", format!("127.0.0.1:{port}"))],
    };
    process::start(directory, Service::Llm, launch)?;
    readiness::until_logged(directory, Service::Llm, "listening").await?;
    Ok(format!("http://127.0.0.1:{port}/v1"))
}

/// Starts the consuming recorder, and waits until it is ready.
pub(crate) async fn start_recorder(recorder: &Recorder, port: u16) -> anyhow::Result<()> {
    output::step("starting the recorder");
    let variables = vec![("RECORDER_LISTEN", format!("127.0.0.1:{port}"))];
    start_of_recorder(recorder, (Service::Recorder, "consume"), variables, port).await
}

/// Starts the recorder's API with its health checks on a port of their own, and waits until it is ready.
pub(crate) async fn start_api(recorder: &Recorder, port: u16, health_port: u16) -> anyhow::Result<()> {
    output::step("starting the recorder's API");
    let variables = vec![
        ("RECORDER_SERVE_LISTEN", format!("127.0.0.1:{port}")),
        ("RECORDER_SERVE_HEALTH_LISTEN", format!("127.0.0.1:{health_port}")),
    ];
    start_of_recorder(recorder, (Service::Api, "serve"), variables, port).await
}

async fn start_of_recorder(
    recorder: &Recorder,
    (service, command_name): (Service, &str),
    mut variables: Vec<(&'static str, String)>,
    port: u16,
) -> anyhow::Result<()> {
    let mut command = Command::new(&recorder.program);
    command.arg(command_name);
    variables.push(("DATABASE_URL", recorder.database_url.clone()));
    variables.push(("NATS_URL", recorder.nats_url.clone()));
    variables.push(("RECORDER_SIGNING_KEY_FILE", recorder.signing_key().display().to_string()));
    let launch = Launch { command, passed_on: PassedOn { prefix: Some("RECORDER_"), names: &[] }, variables };
    process::start(&recorder.directory, service, launch)?;
    readiness::until_healthy(&recorder.directory, service, port).await
}

/// Settings of the gateway that depend on the deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatewaySettings<'a> {
    /// Port to listen on.
    pub(crate) port: u16,
    /// Port of the gateway's health checks and metrics.
    pub(crate) health_port: u16,
    /// Port of the recorder's API.
    pub(crate) api_port: u16,
    /// The source of the answers.
    pub(crate) source: &'a Source,
    /// URL of the stand-in or the provider.
    pub(crate) upstream_url: &'a str,
}

/// Starts the gateway, and waits until it is ready.
pub(crate) async fn start_gateway(
    recorder: &Recorder,
    program: &Path,
    settings: GatewaySettings<'_>,
) -> anyhow::Result<()> {
    output::step("starting the gateway");
    let directory = &recorder.directory;
    let data = directory.data().join("gateway");
    std::fs::create_dir_all(&data)?;
    let conversation_keys =
        secrets::read_or_make(&directory.keys().join("conversation-keys"), || format!("1:{}", secrets::random(32)))?;
    let durability = std::env::var("GATEWAY_DURABILITY").ok().filter(|level| !level.is_empty());
    let mut variables = vec![
        ("GATEWAY_LISTEN", format!("127.0.0.1:{}", settings.port)),
        ("GATEWAY_HEALTH_LISTEN", format!("127.0.0.1:{}", settings.health_port)),
        ("NATS_URL", recorder.nats_url.clone()),
        ("TOKEN_KEYS_FILE", recorder.public_keys().display().to_string()),
        ("CONVERSATION_KEYS", conversation_keys),
        ("GATEWAY_DATA_DIR", data.display().to_string()),
        ("RECORDER_URL", format!("http://127.0.0.1:{}", settings.api_port)),
        ("GATEWAY_DURABILITY", durability.unwrap_or_else(|| "synced".to_owned())),
        ("GATEWAY_INSTANCE", "local".to_owned()),
    ];
    let mut names: &[String] = &[];
    match settings.source {
        Source::StandIn => variables.push(("LLM_BASE_URL", settings.upstream_url.to_owned())),
        Source::Provider { base_url, key } => {
            variables.push(("LLM_BASE_URL", base_url.clone()));
            variables.extend(key.clone().map(|key| ("LLM_API_KEY", key)));
        }
        Source::Routes { file, key_variables } => {
            variables.push(("GATEWAY_ROUTES_FILE", file.display().to_string()));
            names = key_variables;
        }
    }
    let passed_on = PassedOn { prefix: Some("GATEWAY_"), names };
    process::start(directory, Service::Gateway, Launch { command: Command::new(program), passed_on, variables })?;
    readiness::until_healthy(directory, Service::Gateway, settings.port).await
}
