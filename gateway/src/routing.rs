//! The routing table: for each model, the upstreams that serve the model and the rules for retries and disconnects.
//!
//! Pure. The table is read from a routes file ([`mod@file`]), or made from the settings of a deployment with a single
//! provider. Random numbers are passed in.

pub mod breaker;
pub mod file;
pub mod proxy;
pub mod retry;
pub mod stream_options;

use std::time::Duration;

use http::{HeaderMap, Uri};
use secrecy::{ExposeSecret, SecretString};
use shared::event::{DialectName, Operation, RecordingMode};
use shared::model_pattern::ModelPattern;

use crate::headers::BillingHeaders;
use proxy::ProxySetting;

/// All routes, and all upstreams that the routes name.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    /// The upstreams. A [`RouteUpstream`] refers to an upstream by its index in this list.
    pub upstreams: Vec<UpstreamSettings>,
    /// The routes. The first route with the exact model name serves the model, else the first route with a matching
    /// pattern.
    pub routes: Vec<Route>,
    /// The rules that let named paths pass for named callers.
    pub pass_through: Vec<PassThrough>,
    /// The model for requests without a model.
    pub default_model: Option<String>,
    /// The source of the table.
    pub origin: TableOrigin,
}

/// The source of a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableOrigin {
    /// The settings of a single provider. The one route matches every model.
    SingleProvider,
    /// A routes file. The routes define which models exist.
    File,
}

/// An upstream: the endpoint of an LLM provider, and the settings for requests to this endpoint.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// The name of the upstream in events and metrics.
    pub name: String,
    /// The base URL, to which `/chat/completions` and similar paths are appended.
    pub base_url: Uri,
    /// The gateway's own API key for the upstream. `None` if the upstream needs no key.
    pub key: Option<SecretString>,
    /// The header in which the key is sent.
    pub key_header: KeyHeader,
    /// The dialects that the upstream supports. Empty means all dialects.
    pub dialects: Vec<DialectName>,
    /// The operations besides chats that the upstream performs. `None` means all, if the upstream supports a dialect of
    /// OpenAI.
    pub operations: Option<Vec<Operation>>,
    /// Headers added to every request. A header of the same name from the caller is replaced.
    pub headers: HeaderMap,
    /// The maximum time to connect, including the TLS handshake.
    pub connect_timeout: Duration,
    /// The maximum time until the response head has arrived.
    pub head_timeout: Duration,
    /// The maximum time between two chunks of a response body.
    pub idle_timeout: Duration,
    /// The maximum time of a whole response.
    pub total_timeout: Duration,
    /// The time for which an idle connection stays open.
    pub keep_alive: Duration,
    /// The use of `stream_options.include_usage` where the client did not set it.
    pub ask_for_usage: AskForUsage,
    /// The way to the upstream: direct, or through a proxy.
    pub proxy: ProxySetting,
    /// True if the gateway requests the upstream's list of models.
    pub list_models: bool,
}

/// The use of `stream_options.include_usage` in requests whose clients do not ask for usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskForUsage {
    /// The gateway asks, and takes the resulting chunk out of the answer.
    #[default]
    Always,
    /// The gateway does not ask. Every chunk passes.
    Never,
    /// The gateway does not ask as long as the upstream reports usage by itself, and asks otherwise.
    Learn,
}

/// The header in which an API key is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyHeader {
    /// `x-api-key` for the Anthropic dialect, else `authorization`.
    #[default]
    ByDialect,
    /// `authorization: Bearer <key>`, as in OpenAI's API.
    Authorization,
    /// `x-api-key: <key>`, as in Anthropic's API.
    XApiKey,
    /// `api-key: <key>`, as in Azure's API.
    ApiKey,
}

/// A route: the models served, the upstreams that serve them, and the rules for retries and disconnects.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The models that the route serves.
    pub models: Vec<ModelPattern>,
    /// The upstreams to choose from. [`Route::upstream_order`] gives the order of attempts.
    pub upstreams: Vec<RouteUpstream>,
    /// The limits on retries.
    pub retry_policy: RetryPolicy,
    /// The behaviour after a client disconnects. `None` applies the deployment's setting.
    pub on_disconnect: Option<RouteOnDisconnect>,
    /// The treatment of the caller's headers that say which organisation and project is billed.
    pub billing_headers: BillingHeaders,
    /// The most that events keep of the route's calls.
    pub recording: RecordingMode,
}

/// A rule of the routes file that lets paths pass for named callers, although all users of the provider's account share
/// the contents of the paths.
#[derive(Clone, Debug)]
pub struct PassThrough {
    /// The paths, with `*` for any text, such as `/v1/files*`.
    pub paths: Vec<ModelPattern>,
    /// The ids of the users for whom the paths pass.
    pub callers: Vec<String>,
    /// A route to the upstream that serves the paths.
    pub route: Route,
}

/// An upstream within a route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteUpstream {
    /// The index of the upstream in [`RoutingTable::upstreams`].
    pub upstream_index: usize,
    /// The upstream's share of the load, relative to the other weights of the route. Upstreams without a weight are
    /// tried after those with a weight, in the order of the file.
    pub weight: Option<u32>,
    /// The model name for this upstream, if different from the requested name.
    pub model: Option<String>,
}

/// The limits on attempts to reach an upstream. Retries end with the first byte sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The maximum number of attempts at one upstream before moving on to the next.
    pub attempts_per_upstream: u32,
    /// The maximum number of attempts at all upstreams together.
    pub max_attempts: u32,
    /// The time after the first attempt within which further attempts may begin.
    pub retry_within: Duration,
}

/// The behaviour of the gateway after a client disconnects in the middle of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Cancel the request to the upstream immediately.
    Cancel,
    /// Read the rest of the response for at most this long, so that the record is complete.
    Drain(Duration),
}

/// The setting of a route for [`OnDisconnect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteOnDisconnect {
    /// The same as [`OnDisconnect::Cancel`].
    Cancel,
    /// The same as [`OnDisconnect::Drain`]. `None` takes the time limit of the deployment.
    Drain(Option<Duration>),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_per_upstream: 2, max_attempts: 4, retry_within: Duration::from_secs(20) }
    }
}

/// The ends of paths that the gateway appends to a base URL itself.
const APPENDED_PATHS: [&str; 5] = ["/chat/completions", "/completions", "/embeddings", "/messages", "/responses"];

/// Returns the path at the end of a base URL that the gateway would append a second time.
pub fn appended_path(base_url: &Uri) -> Option<&'static str> {
    let path = base_url.path().trim_end_matches('/');
    APPENDED_PATHS.into_iter().find(|appended| path.ends_with(appended))
}

impl RoutingTable {
    /// A table with one upstream that serves every model.
    pub fn single_provider(upstream: UpstreamSettings, default_model: Option<String>) -> Self {
        let only = RouteUpstream { upstream_index: 0, weight: None, model: None };
        let route = Route {
            models: vec![ModelPattern::match_all()],
            upstreams: vec![only],
            retry_policy: RetryPolicy::default(),
            on_disconnect: None,
            billing_headers: BillingHeaders::Stop,
            recording: RecordingMode::Full,
        };
        Self {
            upstreams: vec![upstream],
            routes: vec![route],
            pass_through: Vec::new(),
            default_model,
            origin: TableOrigin::SingleProvider,
        }
    }

    /// The index of the route that serves a model. `None` if no route matches.
    pub fn route_index(&self, model: &str) -> Option<usize> {
        let has_name = |route: &Route| route.models.iter().any(|pattern| pattern.exact_name() == Some(model));
        let has_pattern = |route: &Route| route.models.iter().any(|pattern| pattern.matches(model));
        self.routes.iter().position(has_name).or_else(|| self.routes.iter().position(has_pattern))
    }
}

impl PassThrough {
    /// Creates a rule for the upstream with this index.
    pub fn new(paths: Vec<ModelPattern>, callers: Vec<String>, upstream_index: usize) -> Self {
        let upstreams = vec![RouteUpstream { upstream_index, weight: None, model: None }];
        let route = Route {
            models: Vec::new(),
            upstreams,
            retry_policy: RetryPolicy::default(),
            on_disconnect: None,
            billing_headers: BillingHeaders::Stop,
            recording: RecordingMode::Full,
        };
        Self { paths, callers, route }
    }

    /// True if the rule lets the path pass for the caller.
    pub fn admits(&self, path: &str, caller: &str) -> bool {
        self.callers.iter().any(|known| known == caller) && self.paths.iter().any(|pattern| pattern.matches(path))
    }
}

impl UpstreamSettings {
    /// True if the upstream supports the dialect.
    pub fn supports(&self, dialect: DialectName) -> bool {
        self.dialects.is_empty() || self.dialects.contains(&dialect)
    }

    /// True if the upstream performs an operation that is no chat, in the dialect of OpenAI or of Gemini.
    pub fn performs(&self, operation: Operation, dialect: DialectName) -> bool {
        if dialect == DialectName::GoogleGemini {
            let performs = self.operations.as_ref().is_none_or(|operations| operations.contains(&operation));
            return performs && self.supports(dialect);
        }
        let openai = [DialectName::OpenaiChat, DialectName::OpenaiResponses, DialectName::Openai];
        match &self.operations {
            Some(operations) => operations.contains(&operation),
            None => self.dialects.is_empty() || openai.iter().any(|dialect| self.dialects.contains(dialect)),
        }
    }
}

impl PartialEq for UpstreamSettings {
    fn eq(&self, other: &Self) -> bool {
        let secret = |settings: &Self| settings.key.as_ref().map(|key| key.expose_secret().to_owned());
        let rest = |settings: &Self| {
            (
                (settings.name.clone(), settings.base_url.clone(), settings.key_header),
                (settings.dialects.clone(), settings.operations.clone()),
                (settings.headers.clone(), settings.connect_timeout, settings.head_timeout, settings.idle_timeout),
                (settings.total_timeout, settings.keep_alive, settings.ask_for_usage, settings.list_models),
                settings.proxy.clone(),
            )
        };
        secret(self) == secret(other) && rest(self) == rest(other)
    }
}

impl Route {
    /// The order in which the route's upstreams are tried, as indexes into `upstreams`. Upstreams with a weight come
    /// first, drawn at random in proportion to their weights; the others follow in the order of the file.
    /// `random_below(n)` returns a random number below `n`.
    pub fn upstream_order(&self, mut random_below: impl FnMut(u64) -> u64) -> Vec<usize> {
        let mut weighted: Vec<(usize, u64)> = Vec::new();
        let mut unweighted = Vec::new();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            match upstream.weight {
                Some(weight) => weighted.push((index, u64::from(weight))),
                None => unweighted.push(index),
            }
        }
        let mut order = Vec::with_capacity(self.upstreams.len());
        while !weighted.is_empty() {
            let mut drawn = match weighted.iter().map(|(_, weight)| weight).sum() {
                0 => 0,
                all => random_below(all),
            };
            let position = weighted.iter().position(|(_, weight)| {
                let is_drawn = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                is_drawn
            });
            order.push(weighted.remove(position.unwrap_or(0)).0);
        }
        order.append(&mut unweighted);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(models: &[&str], weights: &[Option<u32>]) -> Route {
        Route {
            models: models.iter().map(|model| ModelPattern::parse(model).unwrap()).collect(),
            upstreams: weights
                .iter()
                .map(|weight| RouteUpstream { upstream_index: 0, weight: *weight, model: None })
                .collect(),
            retry_policy: RetryPolicy::default(),
            on_disconnect: None,
            billing_headers: BillingHeaders::Stop,
            recording: RecordingMode::Full,
        }
    }

    #[test]
    fn an_exact_name_goes_before_a_pattern() {
        let table = RoutingTable {
            upstreams: Vec::new(),
            routes: vec![route(&["gpt-*"], &[]), route(&["o3", "gpt-4o"], &[]), route(&["*-mini"], &[])],
            pass_through: Vec::new(),
            default_model: None,
            origin: TableOrigin::File,
        };
        let cases = [("gpt-4o", Some(1)), ("gpt-5-mini", Some(0)), ("o3", Some(1)), ("o3-mini", Some(2)), ("x", None)];
        for (model, expected) in cases {
            assert_eq!(table.route_index(model), expected, "{model}");
        }
    }

    #[test]
    fn upstreams_without_weights_keep_the_order_of_the_file() {
        assert_eq!(route(&["m"], &[None, None, None]).upstream_order(|_| unreachable!()), [0, 1, 2]);
    }

    #[test]
    fn weights_share_the_load_and_the_others_come_last() {
        let route = route(&["m"], &[None, Some(3), Some(1), Some(0)]);
        let mut first = [0; 4];
        for drawn in 0..4 {
            let order = route.upstream_order(|all| drawn % all);
            first[order[0]] += 1;
            assert_eq!(order[3], 0, "an upstream without a weight is tried last");
        }
        assert_eq!(first, [0, 3, 1, 0]);
    }
}
