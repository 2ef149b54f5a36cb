//! Routes: which upstreams answer for which model, and on what terms.
//!
//! Pure. The table is read from a file ([`mod@file`]) or made of the two settings of a deployment with one provider; chance
//! is passed in.

pub mod breaker;
pub mod file;
pub mod pattern;
pub mod retry;
pub mod stream_options;

use std::time::Duration;

use http::{HeaderMap, Uri};
use secrecy::{ExposeSecret, SecretString};
use shared::event::DialectName;

use pattern::ModelPattern;

/// Every route, and every upstream that one of them names.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    /// The upstreams.
    pub upstreams: Vec<UpstreamSettings>,
    /// The routes: the first one that names a model answers for it, else the first one with a pattern for it.
    pub routes: Vec<Route>,
    /// The model of a request that names none.
    pub default_model: Option<String>,
    /// Where the table comes from.
    pub origin: TableOrigin,
}

/// Where a table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableOrigin {
    /// From the settings of one provider, which answers for every model.
    SingleProvider,
    /// From a routes file, which says which models there are.
    File,
}

/// One upstream: an LLM provider's endpoint, and how it wants to be spoken to.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Its name, as in events and metrics.
    pub name: String,
    /// The address, with the path that `/chat/completions` is appended to.
    pub base_url: Uri,
    /// The gateway's own key there.
    pub key: Option<SecretString>,
    /// The header that the key goes into.
    pub key_header: KeyHeader,
    /// The dialects that it speaks; all of them if none is named.
    pub dialects: Vec<DialectName>,
    /// Headers that it gets with every request, in place of the caller's of the same name.
    pub headers: HeaderMap,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long the response head may take.
    pub head_timeout: Duration,
    /// How long an answer may be silent.
    pub idle_timeout: Duration,
    /// How long an answer may take altogether.
    pub total_timeout: Duration,
    /// How long an unused connection is kept.
    pub keep_alive: Duration,
    /// Whether it may be asked for usage that the client did not ask for.
    pub ask_for_usage: bool,
    /// Whether it is asked which models it has.
    pub list_models: bool,
}

/// The header that a key goes into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyHeader {
    /// `x-api-key` where Anthropic's dialect is spoken, else `authorization`.
    #[default]
    ByDialect,
    /// `authorization: Bearer`.
    Authorization,
    /// `x-api-key`.
    XApiKey,
    /// `api-key`, as Azure has it.
    ApiKey,
}

/// A route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The models that it answers for.
    pub models: Vec<ModelPattern>,
    /// Who answers.
    pub upstreams: Vec<RouteUpstream>,
    /// How hard it is tried.
    pub retry_policy: RetryPolicy,
    /// What happens when a client leaves, where the deployment's rule is not to hold.
    pub on_disconnect: Option<RouteOnDisconnect>,
}

/// One upstream of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteUpstream {
    /// The place of the upstream in the table.
    pub upstream_index: usize,
    /// Its share of the load. Those without one are tried after those with one, in the order of the file.
    pub weight: Option<u32>,
    /// What the model is called there, if something else.
    pub model: Option<String>,
}

/// How hard a route tries before the first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries at one upstream before the next one's turn.
    pub attempts_per_upstream: u32,
    /// Tries at all of them together.
    pub max_attempts: u32,
    /// No try begins later than this after the first.
    pub retry_within: Duration,
}

/// What happens to an answer whose client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The upstream is let go of at once.
    Cancel,
    /// The answer is read on for at most this long, so that the record has all of it.
    Drain(Duration),
}

/// What a route says of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteOnDisconnect {
    /// As [`OnDisconnect::Cancel`].
    Cancel,
    /// As [`OnDisconnect::Drain`], for as long as the deployment says where the route does not.
    Drain(Option<Duration>),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_per_upstream: 2, max_attempts: 4, retry_within: Duration::from_secs(20) }
    }
}

impl RoutingTable {
    /// One provider that answers for every model.
    pub fn single_provider(upstream: UpstreamSettings, default_model: Option<String>) -> Self {
        let only = RouteUpstream { upstream_index: 0, weight: None, model: None };
        let route = Route {
            models: vec![ModelPattern::match_all()],
            upstreams: vec![only],
            retry_policy: RetryPolicy::default(),
            on_disconnect: None,
        };
        Self { upstreams: vec![upstream], routes: vec![route], default_model, origin: TableOrigin::SingleProvider }
    }

    /// The place of the route that answers for this model.
    pub fn route_index(&self, model: &str) -> Option<usize> {
        let has_name = |route: &Route| route.models.iter().any(|pattern| pattern.exact_name() == Some(model));
        let has_pattern = |route: &Route| route.models.iter().any(|pattern| pattern.matches(model));
        self.routes.iter().position(has_name).or_else(|| self.routes.iter().position(has_pattern))
    }
}

impl UpstreamSettings {
    /// Whether it speaks this dialect.
    pub fn supports(&self, dialect: DialectName) -> bool {
        self.dialects.is_empty() || self.dialects.contains(&dialect)
    }
}

impl PartialEq for UpstreamSettings {
    fn eq(&self, other: &Self) -> bool {
        let secret = |settings: &Self| settings.key.as_ref().map(|key| key.expose_secret().to_owned());
        let rest = |settings: &Self| {
            (
                (settings.name.clone(), settings.base_url.clone(), settings.key_header, settings.dialects.clone()),
                (settings.headers.clone(), settings.connect_timeout, settings.head_timeout, settings.idle_timeout),
                (settings.total_timeout, settings.keep_alive, settings.ask_for_usage, settings.list_models),
            )
        };
        secret(self) == secret(other) && rest(self) == rest(other)
    }
}

impl Route {
    /// The order in which its choices are tried: those with a weight by chance, then the others. `random_below` gives a number
    /// below the one it is given.
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
        }
    }

    #[test]
    fn an_exact_name_goes_before_a_pattern() {
        let table = RoutingTable {
            upstreams: Vec::new(),
            routes: vec![route(&["gpt-*"], &[]), route(&["o3", "gpt-4o"], &[]), route(&["*-mini"], &[])],
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
            assert_eq!(order[3], 0, "without a weight: last");
        }
        assert_eq!(first, [0, 3, 1, 0]);
    }
}
