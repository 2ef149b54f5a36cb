//! The registry of routes and upstreams in force. A reload of the routes file replaces the whole snapshot; running chats
//! keep the snapshot that they started with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use secrecy::SecretString;
use shared::event::{DialectName, Operation};

use crate::routing::file::{self, UpstreamKeySource};
use crate::routing::proxy::{EnvironmentProxies, ProxySetting};
use crate::routing::{Route, RoutingTable, UpstreamSettings};
use crate::upstream::endpoint::Upstream;

/// The source of the routing table: a routes file, or the settings of a single provider.
#[derive(Clone, Debug)]
pub struct TableSource {
    /// The settings of the single provider. With a routes file, the defaults of the file's timeouts.
    pub provider: UpstreamSettings,
    /// The path of the routes file: `GATEWAY_ROUTES_FILE`. `None` for a single provider.
    pub file: Option<PathBuf>,
    /// The model for requests without a model, unless the routes file names one: `GATEWAY_DEFAULT_MODEL`.
    pub default_model: Option<String>,
    /// The proxies for upstreams whose settings name none.
    pub environment_proxies: EnvironmentProxies,
}

/// The routes and upstreams in force, replaced as a whole by a reload.
#[derive(Debug)]
pub struct UpstreamRegistry {
    source: TableSource,
    snapshot: RwLock<Arc<RoutingSnapshot>>,
}

/// A routing table, and the upstreams of the table in the same order.
#[derive(Debug)]
pub struct RoutingSnapshot {
    /// The routes, and the settings of the upstreams.
    pub table: RoutingTable,
    /// The upstreams, each with a connection pool and a circuit breaker.
    pub upstreams: Vec<Arc<Upstream>>,
}

impl TableSource {
    /// Builds the table from the routes file, or from the single provider if there is no file.
    pub fn read(&self) -> anyhow::Result<RoutingTable> {
        let mut table = self.read_table()?;
        for upstream in &mut table.upstreams {
            if upstream.proxy == ProxySetting::FromEnvironment {
                upstream.proxy = self.environment_proxies.way_to(&upstream.base_url);
            }
        }
        Ok(table)
    }

    fn read_table(&self) -> anyhow::Result<RoutingTable> {
        let Some(path) = &self.file else {
            return Ok(RoutingTable::single_provider(self.provider.clone(), self.default_model.clone()));
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("GATEWAY_ROUTES_FILE: cannot read {}", path.display()))?;
        let mut table = file::parse(&text, &path.display().to_string(), &self.provider, &read_key)?;
        if table.default_model.is_none()
            && let Some(model) = &self.default_model
        {
            anyhow::ensure!(
                table.route_index(model).is_some(),
                "GATEWAY_DEFAULT_MODEL {model:?} has no route in {}",
                path.display()
            );
            table.default_model = Some(model.clone());
        }
        Ok(table)
    }
}

impl UpstreamRegistry {
    /// Reads the table and creates the upstreams.
    pub fn new(source: TableSource) -> anyhow::Result<Self> {
        let snapshot = RoutingSnapshot::new(source.read()?, &[])?;
        Ok(Self { source, snapshot: RwLock::new(Arc::new(snapshot)) })
    }

    /// Returns the snapshot that is in force now.
    pub fn snapshot(&self) -> Arc<RoutingSnapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the routes file again. If the file is invalid, returns the error and leaves the previous snapshot in force.
    pub fn reload(&self) -> anyhow::Result<ReloadSummary> {
        let previous = self.snapshot();
        let next = RoutingSnapshot::new(self.source.read()?, &previous.upstreams)?;
        let reloaded = ReloadSummary {
            routes: next.table.routes.len(),
            upstreams: next.upstreams.len(),
            kept: next
                .upstreams
                .iter()
                .filter(|now| previous.upstreams.iter().any(|then| Arc::ptr_eq(now, then)))
                .count(),
        };
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(reloaded)
    }

    /// Closes connections that have been unused for longer than the upstream's keep-alive time.
    pub fn close_unused(&self) {
        for upstream in &self.snapshot().upstreams {
            upstream.close_unused();
        }
    }

    /// Returns the path of the routes file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.source.file.as_deref()
    }
}

/// The result of a reload of the routes file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadSummary {
    /// The number of routes after the reload.
    pub routes: usize,
    /// The number of upstreams after the reload.
    pub upstreams: usize,
    /// The number of upstreams with unchanged settings. An unchanged upstream keeps its connections.
    pub kept: usize,
}

impl RoutingSnapshot {
    fn new(table: RoutingTable, previous: &[Arc<Upstream>]) -> anyhow::Result<Self> {
        let upstream = |settings: &UpstreamSettings| match previous.iter().find(|known| known.settings == *settings) {
            Some(known) => Ok(Arc::clone(known)),
            None => Upstream::new(settings.clone()).map(Arc::new),
        };
        let upstreams = table.upstreams.iter().map(upstream).collect::<anyhow::Result<_>>()?;
        Ok(Self { table, upstreams })
    }

    /// Returns true if an upstream of the route supports the dialect.
    pub fn serves(&self, route_index: usize, dialect: DialectName) -> bool {
        let upstreams = &self.table.routes[route_index].upstreams;
        upstreams.iter().any(|upstream| self.upstreams[upstream.upstream_index].settings.supports(dialect))
    }

    /// Returns true if an upstream of the route performs the operation in the dialect.
    pub fn performs(&self, route_index: usize, (operation, dialect): (Operation, DialectName)) -> bool {
        let upstreams = &self.table.routes[route_index].upstreams;
        upstreams.iter().any(|upstream| self.upstreams[upstream.upstream_index].settings.performs(operation, dialect))
    }

    /// Returns the route for a model. `None` if no route serves the model.
    pub fn route(&self, model: &str) -> Option<&Route> {
        self.table.route_index(model).map(|index| &self.table.routes[index])
    }
}

/// The maximum length of an upstream's key, in bytes.
const MAX_KEY_BYTES: usize = 16 << 10;

fn read_key(source: UpstreamKeySource<'_>) -> Result<SecretString, String> {
    let (found, what) = match source {
        UpstreamKeySource::Variable(name) => (std::env::var(name).ok(), format!("the environment variable {name}")),
        UpstreamKeySource::File(path) => (std::fs::read_to_string(path).ok(), format!("the file {path}")),
    };
    let found = found.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES);
    match found {
        Some(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(SecretString::from(key)),
        Some(_) => Err(format!("{what} holds no valid key: expected visible ASCII characters")),
        None => Err(format!("{what} is missing, empty or longer than 16 KiB: expected the upstream's key")),
    }
}
