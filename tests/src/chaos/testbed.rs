//! The processes of a round: every server and service as a process of its own, with a proxy on each link.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shared::stream::servers;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::chaos::plan::{Broker, Fault, FaultTarget, GATEWAYS, Link, LinkFault, NODES, RECORDERS};
use crate::chaos::slot::{GatewaySlot, RecorderSlot};
use crate::chaos::{stream_faults, twin};
use crate::load::process_meter::ProcessMeter;
use crate::stack::User;
use harness::fake_clock::FakeClock;
use harness::fault_proxy::FaultProxy;
use harness::process::START_TIMEOUT;
use harness::servers::{Nats, Postgres};
use harness::services::gateway::GatewaySettings;
use harness::services::recorder::RecorderProgram;
use harness::upstream::ScriptedUpstream;
use harness::{port, program};

/// Time limit for the processing of all events after a round.
pub(crate) const REST: Duration = Duration::from_secs(180);

/// Soft and hard limits of open files that leave room for a dozen chats, beside the 256 files in reserve.
const FEW_FILES: (u64, u64) = (64, 290);

/// All processes of a round.
#[derive(Debug)]
pub struct Testbed {
    gateways: Vec<Mutex<GatewaySlot>>,
    recorders: Vec<Mutex<RecorderSlot>>,
    nodes: Vec<Mutex<Nats>>,
    postgres: Mutex<Postgres>,
    /// The scripted LLM provider of all gateways.
    pub upstream: ScriptedUpstream,
    wires: Links,
    /// Commands of the recorder, with direct connections to the broker and the database.
    pub direct: RecorderProgram,
    /// URL of the broker, for direct connections.
    pub nats_url: String,
    dir: TempDir,
}

#[derive(Debug)]
struct Links {
    gateway_broker: FaultProxy,
    recorder_broker: FaultProxy,
    recorder_database: FaultProxy,
    gateway_upstream: FaultProxy,
}

impl Testbed {
    /// Starts all processes, the gateways with these settings beyond the required settings.
    pub async fn start(broker: Broker, gateway_settings: &[(String, String)]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let postgres = Postgres::new().await?;
        let upstream = ScriptedUpstream::start().await?;
        let nodes = match broker {
            Broker::Single => vec![Nats::new().await?],
            Broker::Cluster => Nats::cluster(NODES).await?,
        };
        let database_url = postgres.database().await?;
        let wires = Links {
            gateway_broker: FaultProxy::start(nodes[0].address()).await?,
            recorder_broker: FaultProxy::start(nodes[0].address()).await?,
            recorder_database: FaultProxy::start(postgres.address()).await?,
            gateway_upstream: FaultProxy::start(upstream.address()).await?,
        };
        let nats_url = nodes.iter().map(Nats::url).collect::<Vec<_>>().join(",");
        // A client of a cluster has to know all nodes, so the connections to a cluster have no fault proxy.
        let through = |proxy: &FaultProxy| match broker {
            Broker::Single => format!("nats://{}", proxy.address()),
            Broker::Cluster => nats_url.clone(),
        };
        let direct = RecorderProgram {
            program: program::built("recorder")?,
            database_url,
            nats_url: nats_url.clone(),
            keys: dir.path().join("keys"),
            more: Vec::new(),
        };
        prepare(&direct, broker).await?;
        let proxied = RecorderProgram {
            database_url: with_address(&direct.database_url, postgres.address(), wires.recorder_database.address()),
            nats_url: through(&wires.recorder_broker),
            ..direct.clone()
        };
        let gateway = GatewaySettings {
            listen: String::new(),
            nats_url: through(&wires.gateway_broker),
            llm_base_url: format!("http://{}/v1", wires.gateway_upstream.address()),
            llm_api_key: Some(upstream.key().to_owned()),
            token_keys_file: direct.token_keys_file(),
            conversation_keys: format!("1:{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())),
            data_dir: PathBuf::new(),
            instance: String::new(),
            open_files: None,
            more: gateway_settings.to_vec(),
        };
        let mut gateways = Vec::new();
        for number in 0..GATEWAYS {
            let name = format!("gateway-{number}");
            let clock = FakeClock::new(&dir.path().join(format!("{name}.clock")))?;
            let mut more = gateway.more.clone();
            more.extend(clock.iter().flat_map(FakeClock::variables));
            gateways.push(Mutex::new(GatewaySlot {
                program: program::built("gateway")?,
                settings: GatewaySettings {
                    listen: format!("127.0.0.1:{}", port::reserve()?),
                    data_dir: dir.path().join(&name),
                    instance: name.clone(),
                    more,
                    ..gateway.clone()
                },
                log: dir.path().join(format!("{name}.log")),
                clock,
                running: None,
            }));
        }
        let mut recorders = Vec::new();
        for number in 0..RECORDERS {
            let clock = FakeClock::new(&dir.path().join(format!("recorder-{number}.clock")))?;
            let mut program = proxied.clone();
            program.more.extend(clock.iter().flat_map(FakeClock::variables));
            recorders.push(Mutex::new(RecorderSlot {
                program,
                listen: format!("127.0.0.1:{}", port::reserve()?),
                log: dir.path().join(format!("recorder-{number}.log")),
                clock,
                running: None,
            }));
        }
        let nodes = nodes.into_iter().map(Mutex::new).collect();
        let testbed =
            Self { gateways, recorders, nodes, postgres: Mutex::new(postgres), upstream, wires, direct, nats_url, dir };
        testbed.start_services().await?;
        Ok(testbed)
    }

    async fn start_services(&self) -> anyhow::Result<()> {
        for slot in &self.gateways {
            slot.lock().await.start().await?;
        }
        for slot in &self.recorders {
            slot.lock().await.start().await?;
        }
        Ok(())
    }

    /// URLs of the gateways, running or not.
    pub async fn gateway_urls(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for slot in &self.gateways {
            urls.push(format!("http://{}", slot.lock().await.settings.listen));
        }
        urls
    }

    /// Resident memory of a gateway, in KB.
    pub async fn gateway_resident_kb(&self, number: usize) -> anyhow::Result<u64> {
        let slot = self.gateways[number].lock().await;
        let gateway = slot.running.as_ref().context("the gateway is not running")?;
        ProcessMeter::of(gateway.process().pid()).resident_kb()
    }

    /// Creates a user of this name, and a token.
    pub async fn user(&self, name: &str) -> anyhow::Result<User> {
        let id = self.direct.user(name).await?;
        Ok(User { id, token: self.direct.token(name, "12h").await? })
    }

    /// Directory of the round's logs and data.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the directory of logs and data after the round.
    pub fn keep_directory(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Injects a fault, and ends the fault when its time is over. Faults of one process wait for each other.
    pub async fn inject(&self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(target, down) => self.kill(target, down).await,
            Fault::Pause(target, long) => {
                self.pause(target, long).await;
                Ok(())
            }
            Fault::Link(wire, trouble, long) => {
                self.trouble(wire, trouble, long).await;
                Ok(())
            }
            Fault::ReadOnly(long) => self.read_only(long).await,
            Fault::Repeat(count) => stream_faults::repeat(&self.nats_url, count).await,
            Fault::Garbage => stream_faults::garbage(&self.nats_url).await,
            Fault::Forget(before) => self.forget(before).await,
            // The clients that fill the journals are started by the round.
            Fault::Fill(away) => self.kill(FaultTarget::Broker(0), away).await,
            Fault::Clock(target, seconds) => self.set_clock(target, seconds).await,
            Fault::FewFiles(number, down) => {
                self.gateways[number].lock().await.settings.open_files = Some(FEW_FILES);
                self.kill(FaultTarget::Gateway(number), down).await
            }
            Fault::Twin(number, long) => {
                let (program, settings) = {
                    let slot = self.gateways[number].lock().await;
                    (slot.program.clone(), slot.settings.clone())
                };
                twin::start_and_kill(&program, &settings, self.dir.path(), long).await.map(drop)
            }
        }
    }

    async fn kill(&self, target: FaultTarget, down: Duration) -> anyhow::Result<()> {
        match target {
            FaultTarget::Gateway(number) => {
                let mut slot = self.gateways[number].lock().await;
                if let Some(gateway) = slot.running.take() {
                    gateway.kill9().await;
                }
                sleep(down).await;
                slot.start().await
            }
            FaultTarget::Recorder(number) => {
                let mut slot = self.recorders[number].lock().await;
                if let Some(recorder) = slot.running.take() {
                    recorder.kill9().await;
                }
                sleep(down).await;
                slot.start().await
            }
            FaultTarget::Broker(number) => {
                let mut node = self.nodes[number].lock().await;
                node.kill9().await;
                sleep(down).await;
                node.start().await
            }
            FaultTarget::Database => {
                let mut postgres = self.postgres.lock().await;
                postgres.kill9().await?;
                sleep(down).await;
                postgres.start().await
            }
        }
    }

    /// Sets the clock of a gateway or a recorder. Nothing happens on a machine without the library for it.
    async fn set_clock(&self, target: FaultTarget, seconds: i64) -> anyhow::Result<()> {
        let clock = match target {
            FaultTarget::Gateway(number) => self.gateways[number].lock().await.clock.clone(),
            FaultTarget::Recorder(number) => self.recorders[number].lock().await.clock.clone(),
            FaultTarget::Broker(_) | FaultTarget::Database => None,
        };
        clock.map_or(Ok(()), |clock| clock.set(seconds))
    }

    async fn pause(&self, target: FaultTarget, long: Duration) {
        match target {
            FaultTarget::Gateway(number) => {
                let slot = self.gateways[number].lock().await;
                if let Some(gateway) = &slot.running {
                    gateway.process().pause();
                    sleep(long).await;
                    gateway.process().resume();
                }
            }
            FaultTarget::Recorder(number) => {
                let slot = self.recorders[number].lock().await;
                if let Some(recorder) = &slot.running {
                    recorder.process().pause();
                    sleep(long).await;
                    recorder.process().resume();
                }
            }
            FaultTarget::Broker(number) => {
                let node = self.nodes[number].lock().await;
                node.pause();
                sleep(long).await;
                node.resume();
            }
            FaultTarget::Database => {
                let postgres = self.postgres.lock().await;
                postgres.pause();
                sleep(long).await;
                postgres.resume();
            }
        }
    }

    async fn trouble(&self, wire: Link, trouble: LinkFault, long: Duration) {
        let proxy = match wire {
            Link::GatewayBroker => &self.wires.gateway_broker,
            Link::RecorderBroker => &self.wires.recorder_broker,
            Link::RecorderDatabase => &self.wires.recorder_database,
            Link::GatewayUpstream => &self.wires.gateway_upstream,
        };
        match trouble {
            LinkFault::Cut => proxy.cut(),
            LinkFault::Stall => proxy.stall(),
            LinkFault::HalfClose => proxy.half_close(),
        }
        sleep(long).await;
        proxy.restore();
    }

    async fn read_only(&self, long: Duration) -> anyhow::Result<()> {
        let postgres = self.postgres.lock().await;
        let set = async |value: &str| -> anyhow::Result<()> {
            let mut connection = PgConnection::connect(&self.direct.database_url).await?;
            let alter = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(alter)).execute(&mut connection).await?;
            sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut connection).await?;
            Ok(())
        };
        set("on").await?;
        sleep(long).await;
        set("off").await?;
        drop(postgres);
        Ok(())
    }

    async fn forget(&self, before: Duration) -> anyhow::Result<()> {
        let mut node = self.nodes[0].lock().await;
        node.forget(before).await
    }

    /// Ends all faults, and starts every process that does not run.
    pub async fn recover(&self) -> anyhow::Result<()> {
        for proxy in [
            &self.wires.gateway_broker,
            &self.wires.recorder_broker,
            &self.wires.recorder_database,
            &self.wires.gateway_upstream,
        ] {
            proxy.restore();
        }
        self.start_services().await
    }

    /// Waits until every gateway has ended all chats and the broker has every event of the journals. A chat outlives the
    /// client: after a cut or a client that left, the gateway reads the upstream's answer to the end.
    pub async fn at_rest(&self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        for slot in &self.gateways {
            let slot = slot.lock().await;
            let gateway = slot.running.as_ref().context("a gateway is not running")?;
            loop {
                let open = gateway.metric("stenograph_gateway_chats_open").await?;
                let waiting = gateway.metric("stenograph_gateway_journal_waiting").await?;
                if open == 0.0 && waiting == 0.0 {
                    break;
                }
                let name = &slot.settings.instance;
                let still = format!("{name} still has {open} chats and holds {waiting} events after {within:?}");
                ensure!(Instant::now() < deadline, still);
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

async fn prepare(recorder: &RecorderProgram, broker: Broker) -> anyhow::Result<()> {
    if broker == Broker::Cluster {
        // The stream is created with three copies first, so that `prepare` accepts it. A new cluster may take a moment.
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = recorder.run(&["stream", "create", "--replicas", "3"]).await {
            ensure!(Instant::now() < deadline, "the cluster did not come up: {error}");
            sleep(Duration::from_millis(500)).await;
        }
    }
    recorder.prepare().await?;
    // Leases are short, so that a name that was given twice is noticed within a round.
    let servers: Result<Vec<async_nats::ServerAddr>, _> =
        servers(&recorder.nats_url).into_iter().map(str::parse).collect();
    let client = async_nats::connect(servers?).await?;
    async_nats::jetstream::new(client).delete_key_value(shared::lease::BUCKET).await?;
    recorder.run(&["stream", "create", "--lease-lifetime", "4s"]).await.map(drop)
}

/// Replaces the server's address in a URL by the proxy's address.
fn with_address(url: &str, server: SocketAddr, proxy: SocketAddr) -> String {
    url.replace(&server.to_string(), &proxy.to_string())
}
