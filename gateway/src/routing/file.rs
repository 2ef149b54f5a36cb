//! Parses the routes file: from TOML to a [`RoutingTable`], or to an error that names the line.
//!
//! Pure: the lookup of API keys is passed in. `docs/ROUTES.md` explains the format, `deploy/routes.toml` is a sample.

mod key_source;
mod mistake;
mod pass_through;
mod recording;
mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use self::mistake::{Mistake, duration, mistake};
use self::recording::RecordingEntry;
use shared::event::RecordingMode;
use shared::model_pattern::ModelPattern;

use crate::headers::BillingHeaders;
use crate::routing::{
    RetryPolicy, Route, RouteOnDisconnect, RouteUpstream, RoutingTable, TableOrigin, UpstreamSettings,
};

pub use self::key_source::{KeyLookup, UpstreamKeySource};

/// The maximum size of a routes file, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_UPSTREAMS: usize = 256;
const MAX_ROUTES: usize = 1024;
const MAX_UPSTREAMS_PER_ROUTE: usize = 16;
const MAX_ATTEMPTS: u32 = 10;

/// An error in a routes file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct RoutesFileError {
    /// The path of the file, as given in the settings.
    pub file: String,
    /// The line number, counted from 1.
    pub line: usize,
    /// The message: found value and expected value. Never contains a key.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesFile {
    default_model: Option<Spanned<String>>,
    #[serde(default)]
    upstreams: BTreeMap<Spanned<String>, Spanned<upstream::UpstreamEntry>>,
    #[serde(default)]
    routes: Vec<Spanned<RouteEntry>>,
    #[serde(default)]
    pass_through: Vec<Spanned<pass_through::PassThroughEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteEntry {
    models: Vec<Spanned<String>>,
    upstreams: Vec<Spanned<toml::Value>>,
    tries: Option<Spanned<u32>>,
    attempts: Option<Spanned<u32>>,
    retry_within: Option<Spanned<String>>,
    leaving: Option<Spanned<OnDisconnectEntry>>,
    drain_for: Option<Spanned<String>>,
    pass_billing_headers: Option<bool>,
    recording: Option<RecordingEntry>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum OnDisconnectEntry {
    Cancel,
    Drain,
}

/// An upstream of a route in the long form. The short form is the name alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteUpstreamEntry {
    name: String,
    weight: Option<u32>,
    model: Option<String>,
}

/// Parses a routes file. Timeouts that an upstream leaves out are taken from `defaults`.
pub fn parse(
    text: &str,
    file: &str,
    defaults: &UpstreamSettings,
    keys: &KeyLookup<'_>,
) -> Result<RoutingTable, RoutesFileError> {
    read(text, defaults, keys).map_err(|mistake| {
        let before = text.as_bytes().get(..mistake.span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        RoutesFileError { file: file.to_owned(), line, message: mistake.message }
    })
}

fn read(text: &str, defaults: &UpstreamSettings, keys: &KeyLookup<'_>) -> Result<RoutingTable, Mistake> {
    if text.len() > MAX_BYTES {
        return Err(Mistake { span: 0..0, message: format!("expected at most {MAX_BYTES} bytes") });
    }
    let file: RoutesFile = toml::from_str(text).map_err(|error| Mistake {
        span: error.span().unwrap_or(0..0),
        message: error.message().replace('\n', ", ").to_lowercase(),
    })?;
    if file.upstreams.len() > MAX_UPSTREAMS || file.routes.len() > MAX_ROUTES {
        let message = format!("expected at most {MAX_UPSTREAMS} upstreams and {MAX_ROUTES} routes");
        return Err(Mistake { span: 0..0, message });
    }
    if file.routes.is_empty() {
        return Err(Mistake { span: 0..0, message: "no routes: expected at least one [[routes]]".into() });
    }
    let mut upstreams = Vec::new();
    for (name, text) in &file.upstreams {
        upstreams.push(upstream::read(name, text, defaults, keys)?);
    }
    let mut named_models: BTreeMap<String, usize> = BTreeMap::new();
    let mut routes = Vec::new();
    for route in &file.routes {
        routes.push(read_route(route, &upstreams, &mut named_models)?);
    }
    let pass_through =
        file.pass_through.iter().map(|rule| pass_through::read(rule, &upstreams)).collect::<Result<_, _>>()?;
    let table = RoutingTable {
        upstreams,
        routes,
        pass_through,
        default_model: file.default_model.as_ref().map(|model| model.get_ref().clone()),
        origin: TableOrigin::File,
    };
    match &file.default_model {
        Some(model) if table.route_index(model.get_ref()).is_none() => {
            Err(mistake(model, format!("default_model: no route answers for {:?}", model.get_ref())))
        }
        _ => Ok(table),
    }
}

fn read_route(
    spanned: &Spanned<RouteEntry>,
    upstreams: &[UpstreamSettings],
    named_models: &mut BTreeMap<String, usize>,
) -> Result<Route, Mistake> {
    let route = spanned.get_ref();
    if route.models.is_empty() || route.upstreams.is_empty() || route.upstreams.len() > MAX_UPSTREAMS_PER_ROUTE {
        let message = format!("a route: expected one or more models, and 1 to {MAX_UPSTREAMS_PER_ROUTE} upstreams");
        return Err(mistake(spanned, message));
    }
    let mut models = Vec::new();
    for text in &route.models {
        let pattern = ModelPattern::parse(text.get_ref()).map_err(|expected| mistake(text, expected.into()))?;
        if let Some(name) = pattern.exact_name()
            && named_models.insert(name.to_owned(), text.span().start).is_some()
        {
            return Err(mistake(text, format!("model {name:?} is named by two routes: expected one")));
        }
        models.push(pattern);
    }
    let mut route_upstreams: Vec<RouteUpstream> = Vec::new();
    for text in &route.upstreams {
        route_upstreams.push(read_route_upstream(text, upstreams)?);
    }
    let defaults = RetryPolicy::default();
    let retry_policy = RetryPolicy {
        attempts_per_upstream: bounded_count("tries", route.tries.as_ref(), defaults.attempts_per_upstream)?,
        max_attempts: bounded_count("attempts", route.attempts.as_ref(), defaults.max_attempts)?,
        retry_within: duration("retry_within", route.retry_within.as_ref(), defaults.retry_within)?,
    };
    let drain_for =
        route.drain_for.as_ref().map(|text| duration("drain_for", Some(text), Duration::ZERO)).transpose()?;
    let on_disconnect = match (route.leaving.as_ref().map(|text| *text.get_ref()), &route.drain_for) {
        (Some(OnDisconnectEntry::Drain), _) => Some(RouteOnDisconnect::Drain(drain_for)),
        (_, Some(text)) => return Err(mistake(text, "drain_for: expected leaving = \"drain\" with it".into())),
        (Some(OnDisconnectEntry::Cancel), None) => Some(RouteOnDisconnect::Cancel),
        (None, None) => None,
    };
    let billing_headers = match route.pass_billing_headers {
        Some(true) => BillingHeaders::Pass,
        Some(false) | None => BillingHeaders::Stop,
    };
    let recording = route.recording.map_or(RecordingMode::Full, RecordingEntry::mode);
    Ok(Route { models, upstreams: route_upstreams, retry_policy, on_disconnect, billing_headers, recording })
}

fn read_route_upstream(text: &Spanned<toml::Value>, upstreams: &[UpstreamSettings]) -> Result<RouteUpstream, Mistake> {
    let expected = "an upstream of a route: expected its name, or { name, weight, model }";
    let entry = match text.get_ref() {
        toml::Value::String(name) => RouteUpstreamEntry { name: name.clone(), weight: None, model: None },
        other => other
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| mistake(text, format!("{expected}: {}", error.message())))?,
    };
    let Some(upstream_index) = upstreams.iter().position(|known| known.name == entry.name) else {
        return Err(mistake(text, format!("upstream {:?} is not defined: expected [upstreams.{0}]", entry.name)));
    };
    if entry.weight.is_some_and(|weight| weight > 1_000_000) {
        return Err(mistake(text, "weight: expected a number from 0 to 1000000".into()));
    }
    if entry.model.as_ref().is_some_and(|model| model.is_empty() || model.len() > ModelPattern::MAX_BYTES) {
        return Err(mistake(text, "model: expected a model name of 1 to 256 bytes".into()));
    }
    Ok(RouteUpstream { upstream_index, weight: entry.weight, model: entry.model })
}

fn bounded_count(name: &str, text: Option<&Spanned<u32>>, default: u32) -> Result<u32, Mistake> {
    match text {
        Some(text) if !(1..=MAX_ATTEMPTS).contains(text.get_ref()) => {
            Err(mistake(text, format!("{name}: expected a number from 1 to {MAX_ATTEMPTS}")))
        }
        Some(text) => Ok(*text.get_ref()),
        None => Ok(default),
    }
}

#[cfg(test)]
mod tests;
