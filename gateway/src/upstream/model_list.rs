//! Which models there are: those that routes name, and those that upstreams say they have and a route's pattern lets through.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::upstream::endpoint::Upstream;
use crate::upstream::registry::InForce;

/// How long an upstream's own list is good for.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// How long an upstream may take over its list. It is left out if it takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest list of an upstream that is read, in bytes and in models.
const MAX_BYTES: usize = 8 << 20;
const MAX_MODELS: usize = 20_000;

/// One model, as OpenAI lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Its name.
    pub id: String,
    object: &'static str,
    created: u64,
    owned_by: String,
}

impl Model {
    fn new(id: &str, owned_by: &str) -> Self {
        Self { id: id.to_owned(), object: "model", created: 0, owned_by: owned_by.to_owned() }
    }
}

/// Every model that a chat may name, as far as is known.
pub async fn models(in_force: &InForce) -> Vec<Model> {
    let name = |upstream: usize| in_force.upstreams[upstream].name();
    let mut models = Vec::new();
    let mut seen = BTreeSet::new();
    for route in &in_force.table.routes {
        let first = route.choices.first().map_or("", |choice| name(choice.upstream));
        for id in route.models.iter().filter_map(|pattern| pattern.name()) {
            if seen.insert(id.to_owned()) {
                models.push(Model::new(id, first));
            }
        }
    }
    let asked = in_force.upstreams.iter().enumerate().filter(|(_, upstream)| upstream.settings.list_models);
    let lists = asked.map(|(place, upstream)| async move { (place, ids_of(upstream).await) });
    for (place, ids) in futures_util::future::join_all(lists).await {
        let answers = |id: &str| {
            in_force.route(id).is_some_and(|route| {
                route.choices.iter().any(|choice| choice.upstream == place && choice.model.is_none())
            })
        };
        for id in ids.iter().filter(|id| answers(id)) {
            if seen.insert(id.clone()) {
                models.push(Model::new(id, name(place)));
            }
        }
    }
    models
}

/// What an upstream has, by its own word, which may be a minute old. One that does not answer has what it had.
async fn ids_of(upstream: &Upstream) -> Arc<[String]> {
    // Held while it is asked, so that it is asked once.
    let mut known = upstream.known_models.lock().await;
    if known.asked_at.is_none_or(|at| at.elapsed() > GOOD_FOR) {
        known.asked_at = Some(Instant::now());
        match timeout(PATIENCE, ask(upstream)).await.ok().flatten() {
            Some(ids) => known.ids = ids,
            None => tracing::warn!(upstream = upstream.name(), "an upstream's list of models is not to be had"),
        }
    }
    Arc::clone(&known.ids)
}

async fn ask(upstream: &Upstream) -> Option<Arc<[String]>> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        id: String,
    }
    let answer =
        upstream.send(&Method::GET, "/models", &HeaderMap::new(), &Bytes::new(), &mut Vec::new()).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = answer.into_body().collect(MAX_BYTES).await?;
    let list: List = serde_json::from_slice(&body).ok()?;
    Some(list.data.into_iter().take(MAX_MODELS).map(|entry| entry.id).collect())
}
