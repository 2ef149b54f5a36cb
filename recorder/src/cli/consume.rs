//! `recorder consume`: starts the pipeline, the watchdog, the reaper and the health listener. On a signal, the workers
//! finish the batch in hand first, then the health listener stops.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::Client;
use prometheus_client::registry::Registry;
use shared::http_server::{self, ServerLimits};
use shared::shutdown::TerminationSignals;
use shared::traces::Tracer;
use sqlx::postgres::PgPool;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::reconcile;
use crate::config::Config;
use crate::health::{self, HealthState};
use crate::metrics::Metrics;
use crate::pipeline::budget_settlement::BudgetSettler;
use crate::pipeline::consume::Pipeline;
use crate::pipeline::consumer_watchdog::ConsumerWatchdog;
use crate::pipeline::orphans::{OrphanPolicy, OrphanReaper};
use crate::pipeline::{settings_watch, stream_check};
use crate::policy::batch::BatchLimits;
use crate::policy::blockage::Blockage;
use crate::source::{self, Source};
use crate::store;

/// The database connections: one for the pipeline, one for the health check, two each for the orphan reaper and the
/// consumer watchdog, one for the comparison of the bucket ACCESS, and one for reading calls that are priced again.
const CONNECTIONS: u32 = 8;
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let pool = store::connect(config.database_url()?, CONNECTIONS).map_err(|_| {
        shared::config::malformed("DATABASE_URL", "postgres://user:password@host/database", &"not such a URL")
    })?;
    let broker_config = config.broker()?.clone();
    let _log = config.log.start();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let signals = TerminationSignals::register().context("cannot receive termination signals")?;
    tasks.spawn(cancel_on_signal(signals, stop.clone()));

    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("RECORDER_LISTEN: cannot listen on {}", config.listen))?;
    let broker = source::connect(&broker_config).await.context("NATS_URL: cannot use the broker")?;
    let mut registry = Registry::default();
    shared::metrics::register_process(&mut registry, "recorder consume");
    let metrics = Arc::new(Metrics::register(&mut registry));
    let instance = Uuid::now_v7().to_string();
    let (tracer, exporting) =
        Tracer::start(config.traces, ("stenograph-recorder", &instance), metrics.trace_spans.clone())?;
    let blockage = Arc::new(Blockage::default());
    let health_state = HealthState {
        registry: Arc::new(registry),
        metrics: Arc::clone(&metrics),
        blockage: Arc::clone(&blockage),
        pool: pool.clone(),
        broker: broker.clone(),
    };
    tracing::info!(address = %listener.local_addr()?, batch = ?config.batch, "listening");

    let http_stop = CancellationToken::new();
    let routes = health::recording_health(health_state);
    let http = http_server::serve(listener, routes, ServerLimits::HEALTH, http_stop.clone().cancelled_owned());
    tasks.spawn(async move {
        http.await;
        Ok(())
    });
    tasks.spawn(async move {
        if stop.run_until_cancelled(wait_until_migrated(&pool)).await.transpose()?.is_some() {
            run_workers((config.batch, config.orphans), broker, pool, (metrics, blockage), (stop, tracer)).await?;
        }
        http_stop.cancel();
        Ok(())
    });
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the recorder panicked")??;
    }
    exporting.finish().await;
    tracing::info!("recorder stopped");
    Ok(())
}

/// Runs the pipeline, the watchdog and the reaper until stopped. If a worker fails, all workers end and the error is
/// returned.
async fn run_workers(
    (limits, orphan_policy): (BatchLimits, OrphanPolicy),
    broker: Client,
    pool: PgPool,
    (metrics, blockage): (Arc<Metrics>, Arc<Blockage>),
    (stop, tracer): (CancellationToken, Tracer),
) -> anyhow::Result<()> {
    let mut workers = JoinSet::new();
    let orphans =
        OrphanReaper::new(broker.clone(), pool.clone(), Arc::clone(&metrics), orphan_policy).run(stop.clone());
    workers.spawn(async move {
        orphans.await;
        Ok(())
    });
    let settling = BudgetSettler::new(broker.clone(), pool.clone(), orphan_policy.grace).run(stop.clone());
    workers.spawn(async move {
        settling.await;
        Ok(())
    });
    let answering = stream_check::answer_requests(broker.clone(), stop.clone());
    // Gateways ask the broker themselves if no recorder answers, so a failure here ends nothing.
    workers.spawn(async move {
        if let Err(error) = answering.await {
            tracing::error!(%error, "gateways' questions about the stream cannot be received");
        }
        Ok(())
    });
    let watchdog = ConsumerWatchdog::new(broker.clone(), pool.clone(), Arc::clone(&metrics));
    let watching = watchdog.clone().run(stop.clone());
    workers.spawn(async move {
        watching.await;
        Ok(())
    });
    let watching = settings_watch::run(broker.clone(), Arc::clone(&blockage), Arc::clone(&metrics), stop.clone());
    workers.spawn(async move {
        watching.await;
        Ok(())
    });
    let source = Source::new(broker, limits, Arc::clone(&blockage));
    let pipeline = Pipeline::new(source, watchdog, pool.clone(), metrics, blockage, (stop.clone(), tracer));
    let reconciling = reconcile::run(pipeline.access(), pool, stop);
    workers.spawn(async move {
        reconciling.await;
        Ok(())
    });
    workers.spawn(pipeline.run());
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker of the recorder panicked")??;
    }
    Ok(())
}

async fn cancel_on_signal(signals: TerminationSignals, stop: CancellationToken) -> anyhow::Result<()> {
    signals.first().await;
    tracing::info!("stopping after the batch in hand");
    stop.cancel();
    Ok(())
}

/// Waits for an unavailable database. A database without the tables of this version is an error.
async fn wait_until_migrated(pool: &PgPool) -> anyhow::Result<()> {
    loop {
        match store::missing_migrations(pool).await {
            Ok(none) if none.is_empty() => return Ok(()),
            Ok(missing) => bail!("the database lacks migrations {missing:?}: run `recorder migrate` first"),
            Err(error) => tracing::warn!(error = store::describe(&error), "waiting for the database"),
        }
        sleep(RETRY_INTERVAL).await;
    }
}
