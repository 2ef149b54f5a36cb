//! The command line of the load program.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::net::TcpListener;

use crate::load::client::{Endpoint, Reply};
use crate::load::compare::Comparison;
use crate::load::cores::{self, Cores};
use crate::load::process_meter::ProcessMeter;
use crate::load::reads::Reads;
use crate::load::scenario::Target;
use crate::load::scenario::closed::Closed;
use crate::load::scenario::held::Held;
use crate::load::scenario::open::Open;
use crate::load::scenario::paced::Paced;
use crate::load::stream_check::UsageChunk;
use crate::load::targets::{Programs, TargetKind};
use crate::load::{passthrough, upstream};
use harness::program;

/// Measures the gateway as a proxy of token streams.
#[derive(Debug, Parser)]
#[command(name = "load")]
pub struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The gateway against its yardsticks, all started here.
    Compare(Compare),
    /// The pages' reads at a fixed rate while chats stream, all started here.
    Reads(Reads),
    /// One scenario on whatever listens at a URL.
    Run(Run),
    /// The cheap upstream alone. The model name says what to answer: load-20x0, load-200x50ms.
    Upstream(Listen),
    /// The pass-through proxy of axum and reqwest alone.
    Passthrough(Passthrough),
}

#[derive(Debug, Args)]
struct Compare {
    /// What to compare.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [TargetKind::Direct, TargetKind::Passthrough, TargetKind::Nginx, TargetKind::Gateway, TargetKind::GatewayOff])]
    targets: Vec<TargetKind>,
    /// Only these scenarios: short, short-writes, whole, paced-200, paced-1000, dense-1000, first-byte, held.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each scenario measures.
    #[arg(long, default_value = "2s")]
    window: humantime::Duration,
    /// Connections of the closed loops.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Chats a second where the first byte is timed.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Streams held open for the memory; 0 for none.
    #[arg(long, default_value_t = 5000)]
    held: u32,
    /// The gateway; the one next to this program unless named.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// More environment for the gateway, NAME=VALUE.
    #[arg(long, value_name = "NAME=VALUE")]
    gateway_env: Vec<String>,
    /// nginx; searched on the PATH unless named.
    #[arg(long, env = "NGINX")]
    nginx: Option<PathBuf>,
    /// Core for the target.
    #[arg(long, default_value_t = 0)]
    target_core: usize,
    /// Core for the load generator and the upstream.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Core for the broker; the load's unless given.
    #[arg(long)]
    broker_core: Option<usize>,
    /// Also write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScenarioName {
    /// Streams in a closed loop.
    Short,
    /// Answers in one piece in a closed loop.
    Whole,
    /// Many streams with a chunk every so often.
    Paced,
    /// Streams at a fixed rate, timed from when each was due.
    Open,
    /// Very many streams held open.
    Held,
}

#[derive(Debug, Args)]
struct Run {
    /// Scheme, host and port, and the path if it is not /v1/chat/completions.
    #[arg(long)]
    target: String,
    /// The bearer token.
    #[arg(long, env = "LOAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The target's process, to measure its CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// What to do.
    #[arg(long, value_enum, default_value = "short")]
    scenario: ScenarioName,
    /// What to ask for. Of a model of the load upstream every stream is checked to the byte.
    #[arg(long, default_value = "load-20x0")]
    model: String,
    /// Ask for a usage chunk (closed loops).
    #[arg(long)]
    include_usage: bool,
    /// Connections of the closed loops.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Streams at once, paced or held.
    #[arg(long, default_value_t = 200)]
    streams: u32,
    /// From chunk to chunk of paced streams.
    #[arg(long, default_value = "50ms")]
    pause: humantime::Duration,
    /// Chats a second of the open loop.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// How long it measures.
    #[arg(long, default_value = "5s")]
    window: humantime::Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Listen {
    /// Where; port 0 takes a free one, and the line that is printed tells which.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[derive(Debug, Args)]
struct Passthrough {
    #[command(flatten)]
    listen: Listen,
    /// Scheme, host and port of the upstream.
    #[arg(long)]
    upstream: String,
}

impl Cli {
    /// Does what was asked. `allocator` is what this program was built with.
    pub fn run(self, allocator: &'static str) -> anyhow::Result<ExitCode> {
        // One thread: a load generator that hands work between threads pays for that, on a core that it shares.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        match self.command {
            Verb::Compare(compare) => local.block_on(&runtime, compare.run(allocator)),
            Verb::Reads(reads) => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                writeln!(std::io::stdout(), "{}", runtime.block_on(reads.run())?)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Run(run) => local.block_on(&runtime, run.run()),
            Verb::Upstream(listen) => local.block_on(&runtime, async {
                cores::raise_open_files();
                upstream::serve(listen.bind().await?).await?;
                Ok(ExitCode::SUCCESS)
            }),
            // The yardstick gets the runtime that most would give it.
            Verb::Passthrough(proxy) => {
                tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
                    let listener = proxy.listen.bind().await?;
                    passthrough::serve(listener, proxy.upstream.trim_end_matches('/').to_owned()).await?;
                    Ok(ExitCode::SUCCESS)
                })
            }
        }
    }
}

impl Listen {
    async fn bind(&self) -> anyhow::Result<TcpListener> {
        let socket =
            if self.listen.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.listen).with_context(|| format!("listen at {}", self.listen))?;
        let listener = socket.listen(4096)?;
        let address = listener.local_addr()?;
        writeln!(std::io::stdout(), r#"{{"message":"listening","address":"{address}"}}"#)?;
        Ok(listener)
    }
}

impl Compare {
    async fn run(self, allocator: &'static str) -> anyhow::Result<ExitCode> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = Cores {
            target: self.target_core,
            load: self.load_core,
            broker: self.broker_core.unwrap_or(self.load_core),
        };
        let gateway = match self.gateway {
            Some(named) => named,
            None => program::target_directory()?.join("gateway"),
        };
        let gateway_environment = self.gateway_env.iter().map(|pair| {
            let (name, value) = pair.split_once('=').with_context(|| format!("expected NAME=VALUE, found {pair}"))?;
            Ok((name.to_owned(), value.to_owned()))
        });
        let comparison = Comparison {
            kinds: self.targets,
            rounds: self.rounds.max(1),
            window: self.window.into(),
            connections: self.connections,
            rate: self.rate,
            held: self.held,
            only: self.only,
            cores: (processors > 1).then_some(cores),
            programs: Programs {
                gateway,
                nginx: self.nginx.or_else(find_nginx),
                gateway_environment: gateway_environment.collect::<anyhow::Result<_>>()?,
            },
            allocator,
            progress,
        };
        let report = comparison.run().await?;
        progress("");
        writeln!(std::io::stdout(), "{}", report.markdown())?;
        if let Some(file) = self.json {
            std::fs::write(&file, serde_json::to_vec_pretty(&report)?)
                .with_context(|| format!("write {}", file.display()))?;
        }
        Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Run {
    async fn run(self) -> anyhow::Result<ExitCode> {
        cores::raise_open_files();
        let target = Target {
            name: self.target.clone(),
            endpoint: endpoint(&self.target, self.token.clone()).await?,
            meter: self.pid.map(ProcessMeter::of),
            broker: None,
        };
        let window: Duration = self.window.into();
        let closed = |reply| Closed {
            connections: self.connections,
            model: self.model.clone(),
            reply,
            usage: if self.include_usage { UsageChunk::Asked } else { UsageChunk::NotAsked },
            warm_up: window / 4,
            window,
        };
        let outcome = match self.scenario {
            ScenarioName::Short => closed(Reply::Stream).run(&target).await?,
            ScenarioName::Whole => closed(Reply::Whole).run(&target).await?,
            ScenarioName::Paced => {
                Paced { streams: self.streams, pause: self.pause.into(), window }.run(&target).await?
            }
            ScenarioName::Open => {
                Open { rate: self.rate, model: self.model, warm_up: window / 4, window }.run(&target).await?
            }
            ScenarioName::Held => Held::streams(self.streams).run(&target).await?,
        };
        let mut out = std::io::stdout();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty::<BTreeMap<_, _>>(&outcome.measures)?)?;
        } else {
            for (name, value) in &outcome.measures {
                writeln!(out, "{name:28} {value:12.2}")?;
            }
            writeln!(out, "{:28} {:12}", "complete", outcome.completed)?;
        }
        let failures = &outcome.failures;
        ensure!(failures.count == 0, "{} chats failed: {}", failures.count, failures.reasons.join("; "));
        Ok(ExitCode::SUCCESS)
    }
}

async fn endpoint(url: &str, token: Option<String>) -> anyhow::Result<Endpoint> {
    let rest = url.strip_prefix("http://").context("expected a target such as http://127.0.0.1:8080")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = tokio::net::lookup_host(&with_port).await?.next().context("the target's host has no address")?;
    let path = if path.is_empty() { "/v1/chat/completions".to_owned() } else { format!("/{path}") };
    Ok(Endpoint { address, host: host.to_owned(), path, token })
}

fn find_nginx() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]).collect();
    directories.into_iter().map(|directory| directory.join("nginx")).find(|program| program.is_file())
}

/// One line that is written over, for a person who waits; nothing if nobody looks.
fn progress(text: &str) {
    use std::io::IsTerminal as _;
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // A terminal that is gone is no reason to stop.
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}
