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
    pub origin: Origin,
}

/// Where a table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the settings of one provider, which answers for every model.
    OneProvider,
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
    pub choices: Vec<Choice>,
    /// How hard it is tried.
    pub persistence: Persistence,
    /// What happens when a client leaves, where the deployment's rule is not to hold.
    pub leaving: Option<RouteLeaving>,
}

/// One upstream of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The place of the upstream in the table.
    pub upstream: usize,
    /// Its share of the load. Those without one are tried after those with one, in the order of the file.
    pub weight: Option<u32>,
    /// What the model is called there, if something else.
    pub model: Option<String>,
}

/// How hard a route tries before the first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Tries at one upstream before the next one's turn.
    pub tries: u32,
    /// Tries at all of them together.
    pub attempts: u32,
    /// No try begins later than this after the first.
    pub within: Duration,
}

/// What happens to an answer whose client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The upstream is let go of at once.
    Cancel,
    /// The answer is read on for at most this long, so that the record has all of it.
    Drain(Duration),
}

/// What a route says of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLeaving {
    /// As [`Leaving::Cancel`].
    Cancel,
    /// As [`Leaving::Drain`], for as long as the deployment says where the route does not.
    Drain(Option<Duration>),
}

impl Default for Persistence {
    fn default() -> Self {
        Self { tries: 2, attempts: 4, within: Duration::from_secs(20) }
    }
}

impl RoutingTable {
    /// One provider that answers for every model.
    pub fn one_provider(upstream: UpstreamSettings, default_model: Option<String>) -> Self {
        let choice = Choice { upstream: 0, weight: None, model: None };
        let route = Route {
            models: vec![ModelPattern::any()],
            choices: vec![choice],
            persistence: Persistence::default(),
            leaving: None,
        };
        Self { upstreams: vec![upstream], routes: vec![route], default_model, origin: Origin::OneProvider }
    }

    /// The place of the route that answers for this model.
    pub fn route(&self, model: &str) -> Option<usize> {
        let named = |route: &Route| route.models.iter().any(|pattern| pattern.name() == Some(model));
        let matching = |route: &Route| route.models.iter().any(|pattern| pattern.matches(model));
        self.routes.iter().position(named).or_else(|| self.routes.iter().position(matching))
    }
}

impl UpstreamSettings {
    /// Whether it speaks this dialect.
    pub fn speaks(&self, dialect: DialectName) -> bool {
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
    /// The order in which its choices are tried: those with a weight by chance, then the others. `chance` gives a number
    /// below the one it is given.
    pub fn order(&self, mut chance: impl FnMut(u64) -> u64) -> Vec<usize> {
        let mut weighted: Vec<(usize, u64)> = Vec::new();
        let mut after = Vec::new();
        for (place, choice) in self.choices.iter().enumerate() {
            match choice.weight {
                Some(weight) => weighted.push((place, u64::from(weight))),
                None => after.push(place),
            }
        }
        let mut order = Vec::with_capacity(self.choices.len());
        while !weighted.is_empty() {
            let mut drawn = match weighted.iter().map(|(_, weight)| weight).sum() {
                0 => 0,
                all => chance(all),
            };
            let at = weighted.iter().position(|(_, weight)| {
                let is_it = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                is_it
            });
            order.push(weighted.remove(at.unwrap_or(0)).0);
        }
        order.append(&mut after);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(models: &[&str], weights: &[Option<u32>]) -> Route {
        Route {
            models: models.iter().map(|model| ModelPattern::parse(model).unwrap()).collect(),
            choices: weights.iter().map(|weight| Choice { upstream: 0, weight: *weight, model: None }).collect(),
            persistence: Persistence::default(),
            leaving: None,
        }
    }

    #[test]
    fn a_name_goes_before_a_pattern() {
        let table = RoutingTable {
            upstreams: Vec::new(),
            routes: vec![route(&["gpt-*"], &[]), route(&["o3", "gpt-4o"], &[]), route(&["*-mini"], &[])],
            default_model: None,
            origin: Origin::File,
        };
        let cases = [("gpt-4o", Some(1)), ("gpt-5-mini", Some(0)), ("o3", Some(1)), ("o3-mini", Some(2)), ("x", None)];
        for (model, expected) in cases {
            assert_eq!(table.route(model), expected, "{model}");
        }
    }

    #[test]
    fn without_weights_the_order_is_the_files() {
        assert_eq!(route(&["m"], &[None, None, None]).order(|_| unreachable!()), [0, 1, 2]);
    }

    #[test]
    fn weights_share_the_load_and_the_others_stand_by() {
        let route = route(&["m"], &[None, Some(3), Some(1), Some(0)]);
        let mut first = [0; 4];
        for drawn in 0..4 {
            let order = route.order(|all| drawn % all);
            first[order[0]] += 1;
            assert_eq!(order[3], 0, "without a weight: last");
        }
        assert_eq!(first, [0, 3, 1, 0]);
    }
}
