//! The list of available models: models that routes name, and models that upstreams report and a route's pattern matches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::upstream::endpoint::Upstream;
use crate::upstream::registry::RoutingSnapshot;

/// The time for which an upstream's model list is cached.
const LIST_TTL: Duration = Duration::from_secs(60);
/// The maximum time for an upstream to send the model list. After that the previous list is used.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of an upstream's model list in bytes. A longer list is not used. The first `MAX_MODELS` models of a
/// list are used.
const MAX_LIST_BYTES: usize = 8 << 20;
const MAX_MODELS: usize = 20_000;

/// One model, in the format of OpenAI's model list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedModel {
    /// The name that clients send to use the model.
    pub id: String,
    object: &'static str,
    created: u64,
    owned_by: String,
}

impl ListedModel {
    fn new(id: &str, owned_by: &str) -> Self {
        Self { id: id.to_owned(), object: "model", created: 0, owned_by: owned_by.to_owned() }
    }
}

/// Returns all known models that a chat may name, without duplicates.
pub async fn list_models(snapshot: &RoutingSnapshot) -> Vec<ListedModel> {
    let name = |upstream: usize| snapshot.upstreams[upstream].name();
    let mut models = Vec::new();
    let mut seen = BTreeSet::new();
    for route in &snapshot.table.routes {
        let first_upstream = route.upstreams.first().map_or("", |upstream| name(upstream.upstream_index));
        for id in route.models.iter().filter_map(|pattern| pattern.exact_name()) {
            if seen.insert(id.to_owned()) {
                models.push(ListedModel::new(id, first_upstream));
            }
        }
    }
    let asked = snapshot.upstreams.iter().enumerate().filter(|(_, upstream)| upstream.settings.list_models);
    let lists = asked.map(|(index, upstream)| async move { (index, cached_ids(upstream).await) });
    for (index, ids) in futures_util::future::join_all(lists).await {
        let answers = |id: &str| {
            snapshot.route(id).is_some_and(|route| {
                route.upstreams.iter().any(|upstream| upstream.upstream_index == index && upstream.model.is_none())
            })
        };
        for id in ids.iter().filter(|id| answers(id)) {
            if seen.insert(id.clone()) {
                models.push(ListedModel::new(id, name(index)));
            }
        }
    }
    models
}

/// Returns the model ids that an upstream reports, at most one minute old. If the upstream does not answer, returns the
/// previous ids.
async fn cached_ids(upstream: &Upstream) -> Arc<[String]> {
    // The lock is held during the request, so that concurrent calls send one request.
    let mut cached = upstream.cached_models.lock().await;
    if cached.fetched_at.is_none_or(|at| at.elapsed() > LIST_TTL) {
        cached.fetched_at = Some(Instant::now());
        match timeout(LIST_TIMEOUT, fetch_ids(upstream)).await.ok().flatten() {
            Some(ids) => cached.ids = ids,
            None => tracing::warn!(
                upstream = upstream.name(),
                "cannot fetch an upstream's model list: the previous list stays in use"
            ),
        }
    }
    Arc::clone(&cached.ids)
}

async fn fetch_ids(upstream: &Upstream) -> Option<Arc<[String]>> {
    #[derive(Deserialize)]
    struct ModelListBody {
        data: Vec<ModelListEntry>,
    }
    #[derive(Deserialize)]
    struct ModelListEntry {
        id: String,
    }
    let answer =
        upstream.send(&Method::GET, "/models", &HeaderMap::new(), &Bytes::new(), &mut Vec::new()).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = answer.into_body().collect(MAX_LIST_BYTES).await?;
    let list: ModelListBody = serde_json::from_slice(&body).ok()?;
    Some(list.data.into_iter().take(MAX_MODELS).map(|entry| entry.id).collect())
}
