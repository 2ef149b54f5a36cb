//! The list of available models: models that routes name, and models that upstreams report and a route's pattern matches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;

use crate::json::lenient::{Members, Object, Text};
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

/// The shape of a list of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListShape {
    /// `{"object":"list","data":[{"id","object":"model","created","owned_by"}]}`
    Openai,
    /// `{"data":[{"type":"model","id","display_name","created_at"}],"has_more","first_id","last_id"}`
    Anthropic,
}

/// One model of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// The name that clients send to use the model.
    pub id: String,
    /// The time of release, in seconds since 1970. 0 if unknown.
    created: i64,
    owned_by: String,
    display_name: Option<String>,
}

impl ListedModel {
    fn new(id: &str, owned_by: &str) -> Self {
        Self { id: id.to_owned(), created: 0, owned_by: owned_by.to_owned(), display_name: None }
    }

    /// Returns the model as JSON.
    pub fn in_shape(&self, shape: ListShape) -> Value {
        match shape {
            ListShape::Openai => {
                json!({"id": self.id, "object": "model", "created": self.created, "owned_by": self.owned_by})
            }
            ListShape::Anthropic => {
                let created = OffsetDateTime::from_unix_timestamp(self.created).unwrap_or(OffsetDateTime::UNIX_EPOCH);
                json!({
                    "type": "model",
                    "id": self.id,
                    "display_name": self.display_name.as_ref().unwrap_or(&self.id),
                    "created_at": created.format(&Rfc3339).unwrap_or_default(),
                })
            }
        }
    }
}

/// Returns a list of models as JSON. The list is complete, so Anthropic's clients ask for no further page.
pub fn list_in_shape(models: &[ListedModel], shape: ListShape) -> Value {
    let data: Vec<Value> = models.iter().map(|model| model.in_shape(shape)).collect();
    match shape {
        ListShape::Openai => json!({"object": "list", "data": data}),
        ListShape::Anthropic => json!({
            "data": data,
            "has_more": false,
            "first_id": models.first().map(|model| &model.id),
            "last_id": models.last().map(|model| &model.id),
        }),
    }
}

/// Returns a model that a route serves by a pattern, without any list that names the model.
pub fn served_model(snapshot: &RoutingSnapshot, id: &str) -> ListedModel {
    let first = snapshot.route(id).and_then(|route| route.upstreams.first());
    ListedModel::new(id, first.map_or("", |upstream| snapshot.upstreams[upstream.upstream_index].name()))
}

/// A provider's list of models, or the error in its place, as a JSON object.
#[derive(Debug)]
pub struct ModelList<'a> {
    members: Members<'a>,
    entries: Vec<&'a RawValue>,
}

/// The members of an entry that the gateway reads, of either shape.
#[derive(Deserialize)]
struct ProviderEntry<'a> {
    #[serde(default, borrow)]
    id: Text<'a>,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default, borrow)]
    created_at: Text<'a>,
    #[serde(default, borrow)]
    display_name: Text<'a>,
    #[serde(default, borrow)]
    owned_by: Text<'a>,
}

impl<'a> ModelList<'a> {
    /// Parses a body. `None` if the body is no JSON object.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let members: Members<'a> = serde_json::from_slice(body).ok()?;
        let entries = members.get("data").and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        Some(Self { members, entries })
    }

    /// Writes the object as it came.
    pub fn to_json(&self) -> String {
        Members::to_json(self.members.0.iter().map(|(name, value)| (name.as_ref(), value.get())))
    }

    /// Writes the list. A list that has the shape already keeps all of its members. `None` if the object is no list.
    pub fn in_shape(&self, shape: ListShape, provider: &str) -> Option<String> {
        self.members.get("data")?;
        if self.shape() == shape {
            return Some(self.to_json());
        }
        self.allowed_in_shape(|_| true, shape, provider)
    }

    /// Writes a list of those models whose id is allowed, without any other member of the provider's list. `None` if the object is no
    /// list.
    pub fn allowed_in_shape(
        &self,
        is_allowed: impl Fn(&str) -> bool,
        shape: ListShape,
        provider: &str,
    ) -> Option<String> {
        self.members.get("data")?;
        let models = self.entries.iter().take(MAX_MODELS).filter_map(|entry| listed(entry, provider));
        let models: Vec<ListedModel> = models.filter(|model| is_allowed(&model.id)).collect();
        Some(list_in_shape(&models, shape).to_string())
    }

    /// Writes the entry of one model. `None` if the list does not have the model.
    pub fn model_in_shape(&self, id: &str, shape: ListShape, provider: &str) -> Option<String> {
        let (entry, model) = self.entries.iter().find_map(|entry| {
            let model = listed(entry, provider)?;
            (model.id == id).then_some((entry, model))
        })?;
        Some(if self.shape() == shape { entry.get().to_owned() } else { model.in_shape(shape).to_string() })
    }

    fn shape(&self) -> ListShape {
        let is_anthropic = self.members.get("has_more").is_some() && self.members.get("object").is_none();
        if is_anthropic { ListShape::Anthropic } else { ListShape::Openai }
    }
}

fn listed(entry: &RawValue, provider: &str) -> Option<ListedModel> {
    let entry = serde_json::from_str::<Object<ProviderEntry<'_>>>(entry.get()).ok()?.0?;
    let created_at = entry.created_at.non_empty().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    Some(ListedModel {
        id: entry.id.non_empty()?.to_owned(),
        created: entry.created.or(created_at.map(OffsetDateTime::unix_timestamp)).unwrap_or(0),
        owned_by: entry.owned_by.non_empty().unwrap_or(provider).to_owned(),
        display_name: entry.display_name.non_empty().map(str::to_owned),
    })
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
    let answer = upstream
        .send((&Method::GET, "/models"), (&HeaderMap::new(), None), &Bytes::new().into(), &mut Vec::new())
        .await
        .ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = answer.into_body().collect(MAX_LIST_BYTES).await?;
    let list: ModelListBody = serde_json::from_slice(&body).ok()?;
    Some(list.data.into_iter().take(MAX_MODELS).map(|entry| entry.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_in_the_shape_of_the_client() {
        let openai =
            br#"{"object":"list","data":[{"id":"a/b","object":"model","created":1700000000,"owned_by":"o","x":1}]}"#;
        let list = ModelList::parse(openai).unwrap();
        assert_eq!(list.in_shape(ListShape::Openai, "p").unwrap().as_bytes(), openai, "own members stay");
        let anthropic: Value = serde_json::from_str(&list.in_shape(ListShape::Anthropic, "p").unwrap()).unwrap();
        let entry = json!({
            "type": "model", "id": "a/b", "display_name": "a/b", "created_at": "2023-11-14T22:13:20Z"
        });
        let expected = json!({"data": [entry], "has_more": false, "first_id": "a/b", "last_id": "a/b"});
        assert_eq!(anthropic, expected);
        let anthropic = anthropic.to_string();
        let list = ModelList::parse(anthropic.as_bytes()).unwrap();
        let openai: Value = serde_json::from_str(&list.in_shape(ListShape::Openai, "p").unwrap()).unwrap();
        let entry = json!({"id": "a/b", "object": "model", "created": 1_700_000_000, "owned_by": "p"});
        assert_eq!(openai, json!({"object": "list", "data": [entry.clone()]}));
        let one: Value = serde_json::from_str(&list.model_in_shape("a/b", ListShape::Openai, "p").unwrap()).unwrap();
        assert_eq!(one, entry);
        assert_eq!(list.model_in_shape("a", ListShape::Openai, "p"), None);
        for (is_allowed, models) in [(true, 1), (false, 0)] {
            let text = list.allowed_in_shape(|id| is_allowed && id == "a/b", ListShape::Anthropic, "p").unwrap();
            let allowed: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(allowed["data"].as_array().unwrap().len(), models);
            assert_eq!(allowed["first_id"].is_null(), models == 0);
        }
    }

    #[test]
    fn whatever_is_no_json_object_is_no_list() {
        for body in ["<html><script>alert(1)</script></html>", "[]", "", "{\"data\":[", "text"] {
            assert!(ModelList::parse(body.as_bytes()).is_none(), "{body}");
        }
        assert_eq!(ModelList::parse(b"{}").unwrap().in_shape(ListShape::Openai, "p"), None);
    }
}
