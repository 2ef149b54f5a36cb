//! `recorder serve`: the HTTP API over the tables, and its background tasks. Any number of instances may run on one
//! database.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::middleware::from_fn_with_state;
use prometheus_client::registry::Registry;
use shared::http_server::tls::Tls;
use shared::http_server::{self, ServerLimits};
use shared::issuer::Issuer;
use shared::nats::BrokerRole;
use shared::shutdown::TerminationSignals;
use shared::token::{TokenSigner, Verifier};
use sqlx::postgres::PgPool;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::access::account_changes::AccountChanges;
use crate::access::audit::AuditPublisher;
use crate::access::bucket::AccessBucket;
use crate::access::keys::AccessKeys;
use crate::access::limits::AccessLimits;
use crate::access::projects::AccessProjects;
use crate::accounts::refresh::RefreshTokenRotation;
use crate::accounts::signing_key;
use crate::accounts::{self, Accounts, SigningKeys};
use crate::api::{self, ApiState, ChangeWaits, LiveSubscriptions, Searches, TokenKeys};
use crate::config::{Config, ServeConfig};
use crate::health::ApiHealthState;
use crate::metrics::api::ApiMetrics;
use crate::reads;
use crate::source;
use crate::store;

/// The interval at which the key files are checked for changes.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The interval at which expired rows are deleted.
const DELETE_EXPIRED_INTERVAL: Duration = Duration::from_secs(60);
/// The bounds of the API's listener. Live streams never end by themselves, so the wait after a stop signal is short.
const LIMITS: ServerLimits = ServerLimits {
    connections: 4096,
    head_timeout: Duration::from_secs(30),
    body_timeout: Duration::from_secs(10),
    write_timeout: Duration::from_secs(30),
    shutdown_timeout: Duration::from_secs(3),
};
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let malformed =
        |_| shared::config::malformed("DATABASE_URL", "postgres://user:password@host/database", &"not such a URL");
    let pool = store::connect_for_reads(config.database_url()?, config.serve.connections).map_err(malformed)?;
    let files = KeyFiles::of(&config)?;
    let broker = config.broker().ok().cloned();
    let (signing, verifier, published) = files.read()?;
    let ServeConfig { listen, certificate, health_listen, token_ttl, session_ttl, trusted, issuer, .. } = config.serve;
    let tls = certificate.map(|files| files.load(&[b"http/1.1"])).transpose()?;
    let issuer = issuer.map(|config| Arc::new(Issuer::new(config)));
    let _log = config.log.start();
    tracing::info!(descriptors = shared::descriptors::raise_limit(), "raised the limit of open files");

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let signals = TerminationSignals::register().context("cannot receive termination signals")?;
    tasks.spawn(cancel_on_signal(signals, stop.clone()));
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("RECORDER_SERVE_LISTEN: cannot listen on {listen}"))?;
    let health_listener = TcpListener::bind(health_listen)
        .await
        .with_context(|| format!("RECORDER_SERVE_HEALTH_LISTEN: cannot listen on {health_listen}"))?;
    let bucket = match broker {
        Some(broker) => {
            let client =
                source::connect_as(&broker, BrokerRole::Serve).await.context("NATS_URL: cannot use the broker")?;
            Some(Arc::new(AccessBucket::new(client)))
        }
        None => {
            tracing::warn!(
                "NATS_URL is not set: API keys, projects and limits cannot be changed, entries of the audit log wait in the database, and gateways accept the tokens of ended sessions and of disabled users until they expire"
            );
            None
        }
    };
    let live = Arc::new(LiveSubscriptions::default());
    let changes = Arc::new(ChangeWaits::default());
    let mut registry = Registry::default();
    shared::metrics::register_process(&mut registry, "recorder serve");
    let metrics = Arc::new(ApiMetrics::register(&mut registry));
    let health = ApiHealthState { registry: Arc::new(registry), metrics, pool: pool.clone(), live: Arc::clone(&live) };
    let accounts = Accounts::new(pool.clone(), signing, token_ttl, session_ttl);
    let account_changes =
        bucket.as_ref().map(|bucket| AccountChanges::new(Arc::clone(bucket), pool.clone(), accounts.changed()));
    let client = bucket.as_ref().map(|bucket| bucket.client().clone());
    let publisher = AuditPublisher::new(client, pool.clone(), accounts.audit());
    let api = Arc::new(ApiState {
        pool: pool.clone(),
        audit: accounts.audit(),
        accounts,
        keys: TokenKeys::new(verifier, &published, issuer.clone()),
        trusted,
        access: bucket.clone().map(|bucket| AccessKeys::new(pool.clone(), bucket)),
        projects: bucket.clone().map(|bucket| AccessProjects::new(pool.clone(), bucket)),
        limits: bucket.map(|bucket| AccessLimits::new(pool.clone(), bucket)),
        live: Arc::clone(&live),
        searches: Searches::new(config.serve.connections),
        changes: Arc::clone(&changes),
    });
    tracing::info!(address = %listener.local_addr()?, health = %health_listener.local_addr()?, "listening");

    tasks.spawn(run_until_stopped(stop.clone(), follow_keys(Arc::clone(&api), files, published)));
    if let Some(issuer) = issuer {
        let client = shared::http_client::client()?;
        tasks.spawn(run_until_stopped(stop.clone(), async move { issuer.refresh_keys(&client, || {}).await }));
    }
    if let Some(changes) = account_changes {
        tasks.spawn(run_until_stopped(stop.clone(), async move { match changes.run().await {} }));
    }
    tasks.spawn(run_until_stopped(stop.clone(), async move { match publisher.run().await {} }));
    tasks.spawn(run_until_stopped(stop.clone(), delete_expired_periodically(pool.clone())));
    let watched = pool.clone();
    tasks.spawn(run_until_stopped(stop.clone(), async move { match live.run(&watched).await {} }));
    let watched = pool.clone();
    tasks.spawn(run_until_stopped(stop.clone(), async move { match changes.run(&watched).await {} }));
    tasks.spawn(async move {
        serve_api((listener, tls, health_listener), api, health, stop).await;
        Ok(())
    });
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the API panicked")??;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Serves the API, and the health checks and metrics on a listener of their own, until stopped.
async fn serve_api(
    (listener, tls, health_listener): (TcpListener, Option<Tls>, TcpListener),
    api: Arc<ApiState>,
    health: ApiHealthState,
    stop: CancellationToken,
) {
    let counted = from_fn_with_state(Arc::clone(&health.metrics), crate::health::count_requests);
    let probes = crate::health::database_health(health.pool.clone());
    let operations = probes.clone().merge(crate::health::api_metrics(health));
    let health_server =
        http_server::serve(health_listener, operations, ServerLimits::HEALTH, stop.clone().cancelled_owned());
    // Load balancers probe the port to which they send requests, so the API's listener has the probes too.
    let routes = api::router(api).layer(counted).merge(probes);
    let api_server = http_server::serve_with(listener, tls, routes, LIMITS, stop.cancelled_owned());
    tokio::join!(health_server, api_server);
}

async fn cancel_on_signal(signals: TerminationSignals, stop: CancellationToken) -> anyhow::Result<()> {
    signals.first().await;
    tracing::info!("stopping after the requests in hand");
    stop.cancel();
    Ok(())
}

async fn run_until_stopped(stop: CancellationToken, work: impl Future<Output = ()>) -> anyhow::Result<()> {
    stop.run_until_cancelled(work).await;
    Ok(())
}

async fn delete_expired_periodically(pool: PgPool) {
    let mut interval = interval(DELETE_EXPIRED_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let deletion = async {
            accounts::delete_expired(&pool).await?;
            reads::live::delete_old(&pool, shared::event::now()).await
        };
        if let Err(error) = deletion.await {
            tracing::warn!(error = store::describe(&error), "expired rows could not be deleted: trying again");
            sleep(RETRY_INTERVAL).await;
        }
    }
}

/// The paths of the key files.
struct KeyFiles {
    private: PathBuf,
    public: PathBuf,
}

impl KeyFiles {
    fn of(config: &Config) -> anyhow::Result<Self> {
        let private = config.signing_key_file()?.clone();
        let public = config.token_keys_file.clone().unwrap_or_else(|| private.with_file_name("jwks.json"));
        Ok(Self { private, public })
    }

    /// Reads the present keys. The public key of the signing key must be in the published set.
    fn read(&self) -> anyhow::Result<(SigningKeys, Verifier, String)> {
        let read = |name: &str, path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("{name}: {} cannot be read", path.display()))
        };
        let pem = read("RECORDER_SIGNING_KEY_FILE", &self.private)?;
        let published = read("TOKEN_KEYS_FILE", &self.public)?;
        let key = signing_key::public_key(&pem).context("RECORDER_SIGNING_KEY_FILE")?;
        let set: shared::token::KeySet = serde_json::from_str(&published)
            .with_context(|| format!("TOKEN_KEYS_FILE: {} is not a JSON Web Key Set", self.public.display()))?;
        anyhow::ensure!(
            set.keys.contains(&key),
            "TOKEN_KEYS_FILE: {} does not hold the public key of {}",
            self.public.display(),
            self.private.display()
        );
        let verifier = Verifier::from_jwks(&published).context("TOKEN_KEYS_FILE")?;
        let signing = SigningKeys {
            signer: TokenSigner::from_pem(&key.kid, &pem)?,
            rotation: RefreshTokenRotation::from_pem(&pem),
        };
        Ok((signing, verifier, published))
    }
}

/// Watches the key files and uses changed keys. Unusable files are reported once, and the old keys stay in use.
async fn follow_keys(api: Arc<ApiState>, files: KeyFiles, mut published: String) {
    let mut private = std::fs::read(&files.private).unwrap_or_default();
    let mut has_reported = false;
    loop {
        sleep(KEY_CHECK_INTERVAL).await;
        let now = (std::fs::read(&files.private).unwrap_or_default(), std::fs::read_to_string(&files.public));
        if now.0 == private && now.1.is_ok_and(|text| text == published) {
            continue;
        }
        match files.read() {
            Ok((signing, verifier, text)) => {
                api.keys.replace(verifier, &text);
                api.accounts.replace_signing_keys(signing);
                (private, published, has_reported) = (now.0, text, false);
                tracing::info!("the changed key files are in use");
            }
            Err(error) if !has_reported => {
                has_reported = true;
                tracing::error!(
                    error = format!("{error:#}"),
                    "the changed key files cannot be used: the old keys stay in use"
                );
            }
            Err(_) => {}
        }
    }
}
