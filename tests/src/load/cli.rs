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
use crate::load::fairness::Fairness;
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
    /// Compare the gateway with reference proxies. Starts all processes.
    Compare(Compare),
    /// Measure reads of the web pages at a fixed rate while chats stream. Starts all processes.
    Reads(Reads),
    /// Measure what one user's excesses cost another user's chats and reads. Starts all processes.
    Fairness(Fairness),
    /// Run one scenario on a running server.
    Run(Run),
    /// Run the load upstream alone. The model name describes the answer: load-20x0, load-200x50ms.
    Upstream(Listen),
    /// Run the pass-through proxy of axum and reqwest alone.
    Passthrough(Passthrough),
}

#[derive(Debug, Args)]
struct Compare {
    /// Targets to compare with each other.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [TargetKind::Direct, TargetKind::Passthrough, TargetKind::Nginx, TargetKind::Gateway, TargetKind::GatewayOff])]
    targets: Vec<TargetKind>,
    /// Scenarios to run, all by default: short, short-writes, whole, paced-200, paced-1000, dense-1000, first-byte, held.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Number of rounds, each over all targets.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Time to measure each scenario.
    #[arg(long, default_value = "2s")]
    window: humantime::Duration,
    /// Number of connections in closed loops.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Chats a second while the first byte is timed.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Number of open streams for the measurement of memory; 0 skips the measurement.
    #[arg(long, default_value_t = 5000)]
    held: u32,
    /// Path of the gateway. By default, the gateway in the directory of this program.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Further setting of the gateway, NAME=VALUE.
    #[arg(long, value_name = "NAME=VALUE")]
    gateway_env: Vec<String>,
    /// Path of nginx. By default, nginx on the PATH.
    #[arg(long, env = "NGINX")]
    nginx: Option<PathBuf>,
    /// CPU core of the target.
    #[arg(long, default_value_t = 0)]
    target_core: usize,
    /// CPU core of the load generator and the upstream.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// CPU core of the broker. By default, the load generator's.
    #[arg(long)]
    broker_core: Option<usize>,
    /// Write the report as JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScenarioName {
    /// Streams in a closed loop.
    Short,
    /// Answers as one JSON body in a closed loop.
    Whole,
    /// Many streams with pauses between the chunks.
    Paced,
    /// Streams at a fixed rate, timed from the due time of each.
    Open,
    /// Very many open streams at once.
    Held,
}

#[derive(Debug, Args)]
struct Run {
    /// Scheme, host and port of the target, and the path unless the path is /v1/chat/completions.
    #[arg(long)]
    target: String,
    /// Bearer token of the requests.
    #[arg(long, env = "LOAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Process id of the target, for CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Scenario to run on the target.
    #[arg(long, value_enum, default_value = "short")]
    scenario: ScenarioName,
    /// Model of the requests. Streams of the load upstream's models are checked to the byte.
    #[arg(long, default_value = "load-20x0")]
    model: String,
    /// Ask for a chunk with the usage (closed loops).
    #[arg(long)]
    include_usage: bool,
    /// Number of connections in closed loops.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Number of concurrent streams (paced, held).
    #[arg(long, default_value_t = 200)]
    streams: u32,
    /// Pause between two chunks (paced).
    #[arg(long, default_value = "50ms")]
    pause: humantime::Duration,
    /// Chats a second (open).
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Duration of the measurement, without the warm-up.
    #[arg(long, default_value = "5s")]
    window: humantime::Duration,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Listen {
    /// Listening address. Port 0 takes a free port; the address is printed.
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
    /// Runs the command. `allocator` is the name of this program's allocator.
    pub fn run(self, allocator: &'static str) -> anyhow::Result<ExitCode> {
        // A single thread, because handing work between threads would cost CPU time on a core that the load generator
        // shares.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        match self.command {
            Verb::Compare(compare) => local.block_on(&runtime, compare.run(allocator)),
            Verb::Reads(reads) => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                writeln!(std::io::stdout(), "{}", runtime.block_on(reads.run())?)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Fairness(fairness) => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                writeln!(std::io::stdout(), "{}", runtime.block_on(fairness.run())?)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Run(run) => local.block_on(&runtime, run.run()),
            Verb::Upstream(listen) => local.block_on(&runtime, async {
                cores::raise_open_files();
                upstream::serve(listen.bind().await?).await?;
                Ok(ExitCode::SUCCESS)
            }),
            // The reference proxy gets the usual multi-threaded runtime.
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
        socket.bind(self.listen).with_context(|| format!("cannot listen at {}", self.listen))?;
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

/// Prints a line of progress that replaces the line before. Prints nothing unless standard error is a terminal.
fn progress(text: &str) {
    use std::io::IsTerminal as _;
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // The measurement continues if the terminal has gone.
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}
