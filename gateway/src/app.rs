//! The gateway process: builds all parts from the configuration, connects the parts, runs them, and stops them in order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shared::fair_share::FairShare;
use shared::http_server::tls::Tls;
use shared::http_server::{self, ServerLimits};
use shared::issuer::Issuer;
use shared::shutdown::TerminationSignals;
use shared::traces::Tracer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::disk_copy::DiskCopy;
use crate::access::follow::{self, AccessFollower};
use crate::access::state::Access;
use crate::auth::{self, key_refresh};
use crate::broker::BrokerHealth;
use crate::broker::{self, lease};
use crate::chat::{self, disconnect, recording};
use crate::config::{Config, JournalConfig};
use crate::grants::admission::Grants;
use crate::journal::Journal;
use crate::limits::Limits;
use crate::relay::Relay;
use crate::running::RunningChats;
use crate::running::peers::Peers;
use crate::server::body_memory::BodyMemory;
use crate::server::routes;
use crate::server::stop_mark::StopMark;
use crate::upstream::registry;
use crate::{idempotency, metrics, recorder_api, server};

/// The maximum time for the relay to empty the journal after all other parts have stopped. Events that remain stay in the
/// journal on disk, and are published after the next start. While the broker is disconnected, the relay gets no time at
/// all.
const RELAY_DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// The maximum time that a stopping gateway waits for running usage estimates, after the last answer has ended.
const ESTIMATES_DEADLINE: Duration = Duration::from_secs(5);

/// The maximum time for a chat's start to become durable. The chat is refused after that. A working disk needs far less
/// time.
const START_DEADLINE: Duration = Duration::from_secs(15);

/// The margin on top of the total answer timeout. A chat older than both together, without a recorded end, counts as
/// abandoned, and a new chat can claim the same idempotency key.
const ABANDONED_MARGIN: Duration = Duration::from_secs(60);

/// The maximum number of clients that follow answers of chats at once.
const MAX_FOLLOWERS: usize = 2000;

/// The interval between two passes that close unused upstream connections.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the gateway until a termination signal arrives.
///
/// Returns an error if the gateway cannot start, or if the relay or the lease renewer stops while the gateway is running.
pub fn run(config: Config) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
}

/// Checks the files that [`run`] needs: the token keys, the certificates and the routes file. Returns a summary for the terminal.
pub fn check(config: &Config) -> anyhow::Result<String> {
    key_refresh::read_keys(&config.token_keys.file)?;
    config.certificate.clone().map(|files| files.load(server::PROTOCOLS)).transpose()?;
    config.recorder_api.as_ref().map(recorder_api::RecorderApiConfig::client).transpose()?;
    let upstreams = registry::UpstreamRegistry::new(config.upstreams.clone())?;
    let snapshot = upstreams.snapshot();
    let (routes, upstreams) = (snapshot.table.routes.len(), snapshot.upstreams.len());
    Ok(format!("the configuration is good: {routes} routes, {upstreams} upstreams"))
}

/// Asks the gateway that listens for health checks at `listen` whether it is ready. The error has the gateway's reason.
pub fn check_health(listen: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(shared::http_client::check_readiness(listen))?)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let Config {
        listen,
        certificate,
        health_listen,
        instance,
        log,
        traces,
        token_keys,
        token_issuer,
        conversation_keys,
        threads,
        journal,
        upstreams,
        recorder_api,
        limits,
        disconnect_policy,
        cors_origins,
    } = config;
    let issuer = token_issuer.map(|config| Arc::new(Issuer::new(config)));
    let access = Arc::new(Access::default());
    let verifier = key_refresh::read_keys(&token_keys.file)?;
    let auth = Arc::new(auth::Authenticator::new(verifier, issuer.clone(), Arc::clone(&access)));
    let http = shared::http_client::client()?;
    // The recorder's API also publishes the keys of session tokens.
    let recorder_http =
        recorder_api.as_ref().map_or_else(|| Ok(http.clone()), recorder_api::RecorderApiConfig::client)?;
    let descriptors = shared::descriptors::raise_limit();
    let tls = certificate.map(|files| files.load(server::PROTOCOLS)).transpose()?;
    let recorder_api = recorder_api.map(|config| recorder_api::RecorderApi::new(config, recorder_http.clone()));
    let _log = log.start();
    let limits = limits_within(descriptors, limits);

    let metrics = Arc::new(metrics::Metrics::default());
    let (tracer, exporting) = Tracer::start(traces, ("stenograph-gateway", &instance), metrics.trace_spans.clone())?;
    let journal_limit = journal.journal.as_ref().map_or(0, |settings| settings.max_bytes);
    show_limits(&metrics.limits, &limits, journal_limit);
    let broker_health = Arc::new(BrokerHealth::default());
    let broker = journal.broker.clone();
    let max_chat_duration = limits.total_timeout + ABANDONED_MARGIN;
    let mode = journal.mode;
    let access_copy = journal.journal.as_ref().map(|settings| DiskCopy::in_directory(&settings.directory));
    let idempotency_keys = Arc::new(idempotency::IdempotencyKeys::new(broker.clone(), &instance, max_chat_duration));
    let drains = disconnect::Drains::new(disconnect_policy.max_drains);
    let running = Arc::new(RunningChats::default());
    let peers = Arc::new(Peers::new(broker.clone(), &instance, Arc::clone(&running)));
    // The journal is opened before the lease is taken: a second process on the same directory fails here, and does not take
    // the lease of the first process.
    let (journal, mut relay) = open_journal(journal, &instance, &broker_health, (&metrics, &tracer)).await?;
    let follower =
        AccessFollower::start(&broker, &instance, Arc::clone(&access), access_copy, Arc::clone(&metrics)).await;
    let follower_started = Instant::now();
    let mut follower = tokio::spawn(follower.context("NATS_URL: cannot connect to the broker")?.run());
    let lease = match journal.identity() {
        Some((id, earliest_start)) => Some(lease::LeaseRenewer::start(&broker, &instance, id, earliest_start).await?),
        None => None,
    };
    // Without a lease, no other gateway counts the run as alive.
    let run = lease.as_ref().map_or_else(Uuid::now_v7, lease::LeaseRenewer::run_id);
    let grants = Arc::new(Grants::new(broker, &instance, run, Arc::clone(&access), Arc::clone(&metrics)));
    let mut granting = tokio::spawn(Arc::clone(&grants).run());
    let mut answering = tokio::spawn(peers.clone().run());
    let upstreams = Arc::new(registry::UpstreamRegistry::new(upstreams)?);
    let (background, deferred) = chat::background_chats::BackgroundChats::new(&limits, Arc::clone(&metrics));
    let responses = Arc::new(chat::response_conversations::ResponseConversations::default());
    let recording = Arc::new(recording::Recording {
        journal: journal.clone(),
        metrics: Arc::clone(&metrics),
        tracer,
        mode,
        instance,
        is_stopping: AtomicBool::new(false),
        drains: drains.clone(),
        estimates: Arc::new(Semaphore::new(1)),
        responses: Arc::clone(&responses),
        running,
    });
    let stop_mark = StopMark::default();
    let gateway = Arc::new(server::gateway::Gateway {
        auth: Arc::clone(&auth),
        chats: Arc::new(chat::ChatPipeline {
            recording: Arc::clone(&recording),
            upstreams: Arc::clone(&upstreams),
            conversations: chat::conversation::Conversations { keys: conversation_keys, threads, responses },
            limits,
            start_timeout: START_DEADLINE,
            places: chat::places::ChatPlaces::new(limits.max_chats, limits.chats_user_share),
            background,
            user_rates: chat::user_rates::UserRates::new(limits.user_rates),
            disconnect_policy,
            keys: idempotency_keys,
            grants,
        }),
        body_memory: Arc::new(BodyMemory::new(&limits, metrics.body_bytes.clone())),
        recorder_api,
        peers: Arc::clone(&peers),
        followers: FairShare::new(MAX_FOLLOWERS),
        cors_origins,
        stop_mark: stop_mark.clone(),
        metrics: Arc::clone(&metrics),
    });
    let chats = Arc::clone(&gateway.chats);
    follow::wait_until_loaded(&access, follower_started).await;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("GATEWAY_LISTEN: cannot listen on {listen}"))?;
    let health_listener = TcpListener::bind(health_listen)
        .await
        .with_context(|| format!("GATEWAY_HEALTH_LISTEN: cannot listen on {health_listen}"))?;
    let (address, health) = (listener.local_addr()?, health_listener.local_addr()?);
    let signals = TerminationSignals::register().context("cannot receive termination signals")?;
    chats.follow_deferred(journal.take_deferred(), deferred);
    tracing::info!(%address, %health, instance = recording.instance, "listening");
    // Health and metrics are served until the process ends, also while running chats finish.
    let health_router = routes::health_router(Arc::clone(&gateway));
    let health_server =
        tokio::spawn(http_server::serve(health_listener, health_router, ServerLimits::HEALTH, std::future::pending()));

    let lease_stop = CancellationToken::new();
    let stop_lease = lease_stop.clone();
    let mut lease = tokio::spawn(async move {
        match lease {
            Some(lease) => lease.run(stop_lease).await,
            None => stop_lease.cancelled().await,
        }
    });
    let router = routes::router(gateway);
    let stopped_at = OnceLock::new();
    let certificate = tls.clone();
    let stop = async {
        tokio::select! {
            () = drained_after_signal(signals, &stop_mark, limits.drain_delay) => {}
            () = close_unused_connections(&upstreams) => {}
            () = follow_certificate(certificate) => {}
            () = key_refresh::follow_keys(token_keys, recorder_http, Arc::clone(&auth)) => {}
            () = key_refresh::follow_issuer(issuer, http, auth) => {}
            error = reload_on_hangup(&upstreams) => tracing::error!(%error, "cannot receive SIGHUP: stopping"),
        }
        stopped_at.get_or_init(Instant::now);
    };
    let on_deadline = || recording.is_stopping.store(true, Ordering::Relaxed);
    let serving = server::serve((listener, tls), router, &limits, &metrics, &stop_mark, stop, on_deadline);
    let cut_off = tokio::select! {
        cut_off = serving => cut_off,
        failure = relay_failure(&mut relay) => anyhow::bail!("the relay stopped, no event reaches the broker: {failure}"),
        failure = &mut follower => anyhow::bail!("the follower of the API keys stopped: {failure:?}"),
        failure = &mut granting => anyhow::bail!("the limits' grants stopped: {failure:?}"),
        failure = &mut answering => anyhow::bail!("the answers to other gateways stopped: {failure:?}"),
        failure = &mut lease => anyhow::bail!("the lease renewer stopped: {failure:?}"),
    };
    if cut_off > 0 {
        tracing::warn!(cut_off, "GATEWAY_SHUTDOWN_DEADLINE is over: open connections were closed");
    }
    // Drains, which read answers whose clients have left, get the rest of the shutdown deadline.
    let left = limits.shutdown_deadline.saturating_sub(stopped_at.get().map(Instant::elapsed).unwrap_or_default());
    drains.finish(left).await;
    chats.background.finish().await;
    // Terminal events whose usage is still being estimated have not reached the journal yet.
    let _ = tokio::time::timeout(ESTIMATES_DEADLINE, recording.estimates.acquire()).await;
    journal.close();
    if let Some(mut relay) = relay {
        let deadline = if broker_health.is_connected() { RELAY_DRAIN_DEADLINE } else { Duration::ZERO };
        match tokio::time::timeout(deadline, &mut relay).await {
            Ok(done) => done??,
            Err(_) => {
                relay.abort();
                let waiting = metrics.journal_waiting.get();
                tracing::warn!(
                    waiting,
                    "the journal is not empty: the remaining events are published after the next start"
                );
            }
        }
    }
    follower.abort();
    lease_stop.cancel();
    lease.await?;
    tokio::task::spawn_blocking(move || journal.wait_until_synced()).await?;
    exporting.finish().await;
    health_server.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a termination signal, marks the gateway as stopping, and lets `delay` pass, in which load balancers notice and
/// send requests elsewhere.
async fn drained_after_signal(signals: TerminationSignals, stop_mark: &StopMark, delay: Duration) {
    signals.first().await;
    tracing::info!(?delay, "stopping: new requests are served during the delay, then running chats finish");
    stop_mark.set();
    tokio::time::sleep(delay).await;
}

/// Sets the gauges of the limits in force.
fn show_limits(gauges: &metrics::LimitGauges, limits: &Limits, journal_limit: u64) {
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    gauges.chats.set(gauge(limits.max_chats));
    gauges.connections.set(gauge(limits.max_connections));
    gauges.body_bytes.set(gauge(limits.max_body_memory));
    gauges.journal_bytes.set(i64::try_from(journal_limit).unwrap_or(i64::MAX));
}

/// Returns the limits that the file descriptors of the process suffice for, and logs lowered limits.
fn limits_within(descriptors: u64, configured: Limits) -> Limits {
    let limits = configured.within_descriptors(descriptors);
    if (limits.max_chats, limits.max_connections) != (configured.max_chats, configured.max_connections) {
        tracing::warn!(
            descriptors,
            needed = configured.needed_descriptors(),
            max_chats = limits.max_chats,
            max_connections = limits.max_connections,
            "the hard limit of open files (RLIMIT_NOFILE) is too low for GATEWAY_MAX_CHATS and \
             GATEWAY_MAX_CONNECTIONS, which are lowered"
        );
    }
    limits
}

type RelayTask = tokio::task::JoinHandle<Result<(), async_nats::SubscribeError>>;

async fn open_journal(
    config: JournalConfig,
    instance: &str,
    broker_health: &Arc<BrokerHealth>,
    (metrics, tracer): (&Arc<metrics::Metrics>, &Tracer),
) -> anyhow::Result<(Journal, Option<RelayTask>)> {
    let Some(settings) = config.journal else {
        tracing::warn!("GATEWAY_RECORDING is off: chats are not recorded");
        return Ok((Journal::disabled(instance), None));
    };
    let (broker_health, metrics) = (Arc::clone(broker_health), Arc::clone(metrics));
    let (name, health, journal_metrics) = (instance.to_owned(), Arc::clone(&broker_health), Arc::clone(&metrics));
    let opened = tokio::task::spawn_blocking(move || Journal::open(settings, &name, health, journal_metrics)).await?;
    let journal = opened.context("GATEWAY_DATA_DIR: cannot open the journal")?;
    let client = broker::connect(&config.broker, instance, Arc::clone(&broker_health))
        .await
        .context("NATS_URL: cannot connect to the broker")?;
    let relay = |consumer| Relay::new(client, consumer, broker_health, metrics, tracer.clone());
    let relay = journal.consumer().map(|consumer| tokio::spawn(relay(consumer).run()));
    Ok((journal, relay))
}

/// Resolves with the reason when the relay stops although the gateway is running. The gateway must then stop too, because
/// events no longer reach the broker. Never resolves if recording is off.
async fn relay_failure(relay: &mut Option<RelayTask>) -> String {
    match relay {
        Some(relay) => match relay.await {
            Ok(Ok(())) => "the journal was closed".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        },
        None => std::future::pending().await,
    }
}

/// Follows the files of the server's certificate. Never resolves.
async fn follow_certificate(tls: Option<Tls>) {
    match tls {
        Some(tls) => tls.follow_files().await,
        None => std::future::pending().await,
    }
}

async fn close_unused_connections(upstreams: &registry::UpstreamRegistry) {
    let mut interval = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    loop {
        interval.tick().await;
        upstreams.close_unused();
    }
}

/// Reloads the routes file at each SIGHUP. Running chats keep the routes that they started with. Returns only if SIGHUP
/// cannot be received.
async fn reload_on_hangup(upstreams: &registry::UpstreamRegistry) -> std::io::Error {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return error,
    };
    while hangup.recv().await.is_some() {
        let Some(file) = upstreams.file() else {
            tracing::info!("SIGHUP ignored: GATEWAY_ROUTES_FILE is not set, so there is no routes file to reload");
            continue;
        };
        // The file has at most 1 MiB: reading here takes less time than handing the work to another thread.
        match upstreams.reload() {
            Ok(registry::ReloadSummary { routes, upstreams, kept }) => {
                tracing::info!(file = %file.display(), routes, upstreams, kept, "reloaded: the routes are in force");
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "cannot reload the routes file: the previous routes stay in force"
                );
            }
        }
    }
    std::io::Error::other("the stream of SIGHUP signals ended")
}
