//! The targets of a comparison: starts the upstream, the reference proxies, and the gateway with a broker, each as a child
//! process on a core.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Serialize;

use crate::load::client::Endpoint;
use crate::load::cores::{self, Cores};
use crate::load::keys::Keys;
use crate::load::process_meter::ProcessMeter;
use crate::load::record;
use crate::load::scenario::Target;
use harness::port;
use harness::process::{Process, START_TIMEOUT, StartOptions};
use harness::servers::Nats;
use harness::services::gateway::GatewaySettings;
use harness::services::{Gateway, Service};

const PATH: &str = "/v1/chat/completions";

/// A kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// The upstream, without a proxy.
    Direct,
    /// The reference proxy of axum and reqwest.
    Passthrough,
    /// nginx without buffering, if installed.
    Nginx,
    /// The gateway with recording of all chats.
    Gateway,
    /// The gateway without recording, to measure the cost of recording.
    GatewayOff,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Passthrough => "passthrough",
            Self::Nginx => "nginx",
            Self::Gateway => "gateway",
            Self::GatewayOff => "gateway-off",
        })
    }
}

/// Paths of the programs of the targets.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Path of the gateway, built with the release profile.
    pub gateway: PathBuf,
    /// Path of nginx, if installed.
    pub nginx: Option<PathBuf>,
    /// Further settings of the gateway.
    pub gateway_environment: Vec<(String, String)>,
}

/// Launcher of the targets of a run, with the shared upstream and broker.
#[derive(Debug)]
pub struct TargetLauncher {
    cores: Option<Cores>,
    programs: Programs,
    upstream: Service,
    broker: Option<(Nats, Keys)>,
    directory: tempfile::TempDir,
}

/// A running target. Stops when dropped.
#[derive(Debug)]
pub struct Running {
    /// Kind of the target.
    pub kind: TargetKind,
    /// Address and process of the target.
    pub target: Target,
    _process: Option<Program>,
}

#[derive(Debug)]
enum Program {
    Service(Service),
    Gateway(Gateway),
    Process(Process),
}

impl TargetLauncher {
    /// Starts the upstream, and a broker if one of the targets is a gateway.
    pub async fn start(cores: Option<Cores>, programs: Programs, kinds: &[TargetKind]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("stenograph-load-").tempdir()?;
        if let Some(cores) = cores {
            cores::pin_this_thread(cores.load)?;
        }
        let log = directory.path().join("upstream.log");
        let upstream = Service::start("load-upstream", own_command(&["upstream"])?, &log).await?;
        let broker = if kinds.iter().any(|kind| matches!(kind, TargetKind::Gateway | TargetKind::GatewayOff)) {
            let nats = Nats::new().await?;
            if let Some(cores) = cores {
                cores::pin_process(nats.process().pid(), cores.broker)?;
            }
            record::create_stream(&nats.url()).await?;
            Some((nats, Keys::create(directory.path())?))
        } else {
            None
        };
        Ok(Self { cores, programs, upstream, broker, directory })
    }

    /// URL of the broker, if there is one.
    pub fn nats_url(&self) -> Option<String> {
        self.broker.as_ref().map(|(nats, _)| nats.url())
    }

    /// Starts a target of the kind.
    pub async fn launch(&self, kind: TargetKind) -> anyhow::Result<Running> {
        let started = self.start_kind(kind);
        match self.cores {
            Some(cores) => cores::on_core(cores.target, cores.load, started).await,
            None => started.await,
        }
        .with_context(|| format!("the {kind} target does not start"))
    }

    async fn start_kind(&self, kind: TargetKind) -> anyhow::Result<Running> {
        let number = rand::random::<u32>();
        let log = self.directory.path().join(format!("{kind}-{number:x}.log"));
        let (address, process) = match kind {
            TargetKind::Direct => (self.upstream.address(), None),
            TargetKind::Passthrough => {
                let command = own_command(&["passthrough", "--upstream", &self.upstream.url("")])?;
                let service = Service::start("load-passthrough", command, &log).await?;
                (service.address(), Some(Program::Service(service)))
            }
            TargetKind::Nginx => {
                let (port, process) = self.start_nginx(&log).await?;
                (([127, 0, 0, 1], port).into(), Some(Program::Process(process)))
            }
            TargetKind::Gateway => {
                let gateway = self.start_gateway(number, &log, &[]).await?;
                (gateway.address(), Some(Program::Gateway(gateway)))
            }
            TargetKind::GatewayOff => {
                let gateway = self.start_gateway(number, &log, &[("GATEWAY_RECORDING", "off")]).await?;
                (gateway.address(), Some(Program::Gateway(gateway)))
            }
        };
        let broker = self.broker.as_ref().filter(|_| kind == TargetKind::Gateway);
        let token = self.broker.as_ref().filter(|_| matches!(kind, TargetKind::Gateway | TargetKind::GatewayOff));
        let pid = match &process {
            None => self.upstream.process().pid(),
            Some(Program::Service(service)) => service.process().pid(),
            Some(Program::Gateway(gateway)) => gateway.process().pid(),
            Some(Program::Process(process)) => process.pid(),
        };
        let target = Target {
            name: kind.to_string(),
            endpoint: Endpoint {
                address,
                host: address.to_string(),
                path: PATH.to_owned(),
                token: token.map(|(_, keys)| keys.token.clone()),
            },
            meter: Some(ProcessMeter::of(pid)),
            broker: broker.map(|(nats, _)| ProcessMeter::of(nats.process().pid())),
        };
        Ok(Running { kind, target, _process: process })
    }

    async fn start_gateway(&self, number: u32, log: &Path, more: &[(&str, &str)]) -> anyhow::Result<Gateway> {
        let (nats, keys) = self.broker.as_ref().context("a run with a gateway needs a broker")?;
        let mut environment = vec![("LOG".to_owned(), "info".to_owned())];
        environment.extend(self.programs.gateway_environment.iter().cloned());
        environment.extend(more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let settings = GatewaySettings {
            open_files: None,
            listen: "127.0.0.1:0".to_owned(),
            nats_url: nats.url(),
            llm_base_url: self.upstream.url("/v1"),
            llm_api_key: Some("load-key".to_owned()),
            token_keys_file: keys.token_keys_file.clone(),
            conversation_keys: keys.conversation_keys.clone(),
            data_dir: self.directory.path().join(format!("gateway-{number:x}")),
            instance: format!("load-{number:x}"),
            more: environment,
        };
        let gateway = Gateway::start(&self.programs.gateway, &settings, log).await?;
        gateway.ready().await?;
        Ok(gateway)
    }

    async fn start_nginx(&self, log: &Path) -> anyhow::Result<(u16, Process)> {
        let program = self.programs.nginx.as_ref().context("nginx is not installed")?;
        let port = port::reserve()?;
        let place = self.directory.path().join(format!("nginx-{port}"));
        std::fs::create_dir_all(&place)?;
        let config = place.join("nginx.conf");
        std::fs::write(&config, nginx_configuration(&place, port, &self.upstream.address().to_string()))?;
        let mut command = Command::new(program);
        command.arg("-e").arg("stderr").arg("-p").arg(&place).arg("-c").arg(&config);
        // nginx binds the socket before logging the method of waiting for events.
        let process = Process::start(StartOptions { name: "nginx", command, log, ready: "epoll", stop: Signal::QUIT })?;
        process.ready(START_TIMEOUT).await?;
        Ok((port, process))
    }
}

fn own_command(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// Configuration of nginx for token streams: no buffering, and keep-alive connections to the upstream.
fn nginx_configuration(place: &Path, port: u16, upstream: &str) -> String {
    let place = place.display();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {place}/nginx.pid;\nerror_log stderr notice;\n\
         events {{ worker_connections 30000; }}\n\
         http {{\n  access_log off;\n  tcp_nodelay on;\n  keepalive_requests 1000000000;\n\
         \x20 client_body_temp_path {place}/body;\n  proxy_temp_path {place}/proxy;\n  fastcgi_temp_path {place}/fastcgi;\n\
         \x20 uwsgi_temp_path {place}/uwsgi;\n  scgi_temp_path {place}/scgi;\n\
         \x20 upstream llm {{ server {upstream}; keepalive 8000; keepalive_requests 1000000000; }}\n\
         \x20 server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    location / {{\n      proxy_pass http://llm;\n\
         \x20     proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_buffering off;\n\
         \x20     proxy_read_timeout 600s;\n    }}\n  }}\n}}\n"
    )
}
