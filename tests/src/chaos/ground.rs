//! What a round stands on: every server and service as a process of its own, with a proxy on each wire between them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::chaos::plan::{Broker, Fault, GATEWAYS, NODES, RECORDERS, Trouble, Victim, Wire};
use crate::chaos::seat::{GatewaySeat, RecorderSeat};
use crate::chaos::stream;
use crate::load::meter::Meter;
use crate::stack::User;
use harness::process::PATIENCE;
use harness::proxy::CuttingProxy;
use harness::servers::{Nats, Postgres};
use harness::services::gateway::GatewaySettings;
use harness::services::recorder::RecorderProgram;
use harness::upstream::Scripted;
use harness::{port, program};

/// How long everything may take to come to rest after a round.
pub(crate) const REST: Duration = Duration::from_secs(180);

/// Everything that runs in a round.
#[derive(Debug)]
pub struct Ground {
    gateways: Vec<Mutex<GatewaySeat>>,
    recorders: Vec<Mutex<RecorderSeat>>,
    nodes: Vec<Mutex<Nats>>,
    postgres: Mutex<Postgres>,
    /// Who answers.
    pub upstream: Scripted,
    wires: Wires,
    /// How the recorders' commands reach the broker and the database: past the proxies.
    pub direct: RecorderProgram,
    /// Where the broker is, past the proxies.
    pub nats_url: String,
    dir: TempDir,
}

#[derive(Debug)]
struct Wires {
    gateway_broker: CuttingProxy,
    recorder_broker: CuttingProxy,
    recorder_database: CuttingProxy,
    gateway_upstream: CuttingProxy,
}

impl Ground {
    /// Starts all of it, the gateways with these settings beyond what they need.
    pub async fn start(broker: Broker, gateway_settings: &[(String, String)]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let postgres = Postgres::new().await?;
        let upstream = Scripted::start().await?;
        let nodes = match broker {
            Broker::Single => vec![Nats::new().await?],
            Broker::Cluster => Nats::cluster(NODES).await?,
        };
        let database_url = postgres.database().await?;
        let wires = Wires {
            gateway_broker: CuttingProxy::start(nodes[0].address()).await?,
            recorder_broker: CuttingProxy::start(nodes[0].address()).await?,
            recorder_database: CuttingProxy::start(postgres.address()).await?,
            gateway_upstream: CuttingProxy::start(upstream.address()).await?,
        };
        let nats_url = nodes.iter().map(Nats::url).collect::<Vec<_>>().join(",");
        // A client of a cluster has to know all nodes, so there the wires to the broker have no proxy.
        let through = |proxy: &CuttingProxy| match broker {
            Broker::Single => format!("nats://{}", proxy.address()),
            Broker::Cluster => nats_url.clone(),
        };
        let direct = RecorderProgram {
            program: program::ours("recorder")?,
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
            more: gateway_settings.to_vec(),
        };
        let mut gateways = Vec::new();
        for number in 0..GATEWAYS {
            let name = format!("gateway-{number}");
            gateways.push(Mutex::new(GatewaySeat {
                program: program::ours("gateway")?,
                settings: GatewaySettings {
                    listen: format!("127.0.0.1:{}", port::reserve()?),
                    data_dir: dir.path().join(&name),
                    instance: name.clone(),
                    ..gateway.clone()
                },
                log: dir.path().join(format!("{name}.log")),
                running: None,
            }));
        }
        let mut recorders = Vec::new();
        for number in 0..RECORDERS {
            recorders.push(Mutex::new(RecorderSeat {
                program: proxied.clone(),
                listen: format!("127.0.0.1:{}", port::reserve()?),
                log: dir.path().join(format!("recorder-{number}.log")),
                running: None,
            }));
        }
        let nodes = nodes.into_iter().map(Mutex::new).collect();
        let ground =
            Self { gateways, recorders, nodes, postgres: Mutex::new(postgres), upstream, wires, direct, nats_url, dir };
        ground.start_services().await?;
        Ok(ground)
    }

    async fn start_services(&self) -> anyhow::Result<()> {
        for seat in &self.gateways {
            seat.lock().await.start().await?;
        }
        for seat in &self.recorders {
            seat.lock().await.start().await?;
        }
        Ok(())
    }

    /// Where the gateways listen, whether they run or not.
    pub async fn gateway_urls(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for seat in &self.gateways {
            urls.push(format!("http://{}", seat.lock().await.settings.listen));
        }
        urls
    }

    /// What a gateway has in memory, in KB.
    pub async fn gateway_resident_kb(&self, number: usize) -> anyhow::Result<u64> {
        let seat = self.gateways[number].lock().await;
        let gateway = seat.running.as_ref().context("the gateway does not run")?;
        Meter::of(gateway.process().pid()).resident_kb()
    }

    /// A user of this name, with a token.
    pub async fn user(&self, name: &str) -> anyhow::Result<User> {
        let id = self.direct.user(name).await?;
        Ok(User { id, token: self.direct.token(name, "12h").await? })
    }

    /// Where the logs and data of the round are.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves logs and data where they are when the round is over.
    pub fn keep_directory(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Does what the fault says, and mends it when its time is over. Faults of one victim wait for each other.
    pub async fn suffer(&self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(victim, down) => self.kill(victim, down).await,
            Fault::Pause(victim, long) => {
                self.pause(victim, long).await;
                Ok(())
            }
            Fault::Wire(wire, trouble, long) => {
                self.trouble(wire, trouble, long).await;
                Ok(())
            }
            Fault::ReadOnly(long) => self.read_only(long).await,
            Fault::Repeat(count) => stream::repeat(&self.nats_url, count).await,
            Fault::Garbage => stream::garbage(&self.nats_url).await,
            Fault::Forget(before) => self.forget(before).await,
            // The clients' part in it is theirs.
            Fault::Fill(away) => self.kill(Victim::Broker(0), away).await,
        }
    }

    async fn kill(&self, victim: Victim, down: Duration) -> anyhow::Result<()> {
        match victim {
            Victim::Gateway(number) => {
                let mut seat = self.gateways[number].lock().await;
                if let Some(gateway) = seat.running.take() {
                    gateway.kill9().await;
                }
                sleep(down).await;
                seat.start().await
            }
            Victim::Recorder(number) => {
                let mut seat = self.recorders[number].lock().await;
                if let Some(recorder) = seat.running.take() {
                    recorder.kill9().await;
                }
                sleep(down).await;
                seat.start().await
            }
            Victim::Broker(number) => {
                let mut node = self.nodes[number].lock().await;
                node.kill9().await;
                sleep(down).await;
                node.start().await
            }
            Victim::Database => {
                let mut postgres = self.postgres.lock().await;
                postgres.kill9().await?;
                sleep(down).await;
                postgres.start().await
            }
        }
    }

    async fn pause(&self, victim: Victim, long: Duration) {
        match victim {
            Victim::Gateway(number) => {
                let seat = self.gateways[number].lock().await;
                if let Some(gateway) = &seat.running {
                    gateway.process().pause();
                    sleep(long).await;
                    gateway.process().resume();
                }
            }
            Victim::Recorder(number) => {
                let seat = self.recorders[number].lock().await;
                if let Some(recorder) = &seat.running {
                    recorder.process().pause();
                    sleep(long).await;
                    recorder.process().resume();
                }
            }
            Victim::Broker(number) => {
                let node = self.nodes[number].lock().await;
                node.pause();
                sleep(long).await;
                node.resume();
            }
            Victim::Database => {
                let postgres = self.postgres.lock().await;
                postgres.pause();
                sleep(long).await;
                postgres.resume();
            }
        }
    }

    async fn trouble(&self, wire: Wire, trouble: Trouble, long: Duration) {
        let proxy = match wire {
            Wire::GatewayBroker => &self.wires.gateway_broker,
            Wire::RecorderBroker => &self.wires.recorder_broker,
            Wire::RecorderDatabase => &self.wires.recorder_database,
            Wire::GatewayUpstream => &self.wires.gateway_upstream,
        };
        match trouble {
            Trouble::Cut => proxy.cut(),
            Trouble::Stall => proxy.stall(),
            Trouble::HalfClose => proxy.half_close(),
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

    /// Mends everything: whatever does not run is started.
    pub async fn heal(&self) -> anyhow::Result<()> {
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

    /// Waits until every gateway has ended all its chats and handed all that it holds to the broker. A chat outlives its client:
    /// one that was cut off, or that left, leaves its gateway to hear the upstream out.
    pub async fn at_rest(&self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        for seat in &self.gateways {
            let seat = seat.lock().await;
            let gateway = seat.running.as_ref().context("a gateway does not run")?;
            loop {
                let open = gateway.metric("stenograph_gateway_chats_open").await?;
                let waiting = gateway.metric("stenograph_gateway_journal_waiting").await?;
                if open == 0.0 && waiting == 0.0 {
                    break;
                }
                let name = &seat.settings.instance;
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
        // Made first with three copies, it is found as it should be afterwards. A young cluster may take a moment.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = recorder.run(&["stream", "create", "--replicas", "3"]).await {
            ensure!(Instant::now() < deadline, "the cluster did not come up: {error}");
            sleep(Duration::from_millis(500)).await;
        }
    }
    recorder.prepare().await
}

/// The URL with the proxy's address in place of the server's.
fn with_address(url: &str, server: SocketAddr, proxy: SocketAddr) -> String {
    url.replace(&server.to_string(), &proxy.to_string())
}
