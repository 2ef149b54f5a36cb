//! The routes and upstreams in force: replaced as a whole when the routes file is read again, without disturbing what runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use secrecy::SecretString;
use shared::event::DialectName;

use crate::routing::file::{self, UpstreamKeySource};
use crate::routing::{Route, RoutingTable, UpstreamSettings};
use crate::upstream::endpoint::Upstream;

/// Where the table comes from.
#[derive(Clone, Debug)]
pub struct TableSource {
    /// The one provider's settings, which are also the defaults of the file's timeouts.
    pub provider: UpstreamSettings,
    /// The routes file, where there is one.
    pub file: Option<PathBuf>,
    /// The model of a request that names none, where the file does not say.
    pub default_model: Option<String>,
}

/// The routes and upstreams in force.
#[derive(Debug)]
pub struct UpstreamRegistry {
    source: TableSource,
    snapshot: RwLock<Arc<RoutingSnapshot>>,
}

/// A table, and the upstreams that it names, in the same order.
#[derive(Debug)]
pub struct RoutingSnapshot {
    /// The table.
    pub table: RoutingTable,
    /// The upstreams, each with its connections and its breaker.
    pub upstreams: Vec<Arc<Upstream>>,
}

impl TableSource {
    /// Reads the table.
    pub fn read(&self) -> anyhow::Result<RoutingTable> {
        let Some(path) = &self.file else {
            return Ok(RoutingTable::single_provider(self.provider.clone(), self.default_model.clone()));
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("GATEWAY_ROUTES_FILE {} could not be read", path.display()))?;
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
    /// Reads the table and makes its upstreams.
    pub fn new(source: TableSource) -> anyhow::Result<Self> {
        let snapshot = RoutingSnapshot::new(source.read()?, &[])?;
        Ok(Self { source, snapshot: RwLock::new(Arc::new(snapshot)) })
    }

    /// What is in force now.
    pub fn snapshot(&self) -> Arc<RoutingSnapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the routes file again. What is wrong with it leaves everything as it was.
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

    /// Closes connections that have been unused for too long.
    pub fn close_unused(&self) {
        for upstream in &self.snapshot().upstreams {
            upstream.close_unused();
        }
    }

    /// The routes file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        self.source.file.as_deref()
    }
}

/// What reading the routes file again came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadSummary {
    /// Routes that there are now.
    pub routes: usize,
    /// Upstreams that there are now.
    pub upstreams: usize,
    /// Those of them that are as they were, and keep their connections.
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

    /// Whether one of the route's upstreams speaks this dialect.
    pub fn serves(&self, route_index: usize, dialect: DialectName) -> bool {
        let upstreams = &self.table.routes[route_index].upstreams;
        upstreams.iter().any(|upstream| self.upstreams[upstream.upstream_index].settings.supports(dialect))
    }

    /// The route that answers for this model.
    pub fn route(&self, model: &str) -> Option<&Route> {
        self.table.route_index(model).map(|index| &self.table.routes[index])
    }
}

/// The longest key.
const MAX_KEY_BYTES: usize = 16 << 10;

fn read_key(source: UpstreamKeySource<'_>) -> Result<SecretString, String> {
    let (found, what) = match source {
        UpstreamKeySource::Variable(name) => (std::env::var(name).ok(), format!("the environment variable {name}")),
        UpstreamKeySource::File(path) => (std::fs::read_to_string(path).ok(), format!("the file {path}")),
    };
    let found = found.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES);
    match found {
        Some(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(SecretString::from(key)),
        Some(_) => Err(format!("{what} holds no key: expected visible ascii characters")),
        None => Err(format!("{what} is not to be had, or empty: expected the upstream's key")),
    }
}
