//! The routes file: TOML in, a table out, or an error that names the line.
//!
//! Pure: where keys come from is passed in. `docs/ROUTES.md` explains the format, `deploy/routes.toml` is a sample.

mod key_source;
mod mistake;
mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use self::mistake::{Mistake, duration, mistake};
use crate::routing::pattern::ModelPattern;
use crate::routing::{Choice, Origin, Persistence, Route, RouteLeaving, RoutingTable, UpstreamSettings};

pub use self::key_source::{KeySource, Keys};

/// The largest routes file.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_UPSTREAMS: usize = 256;
const MAX_ROUTES: usize = 1024;
const MAX_CHOICES: usize = 16;
const MAX_TRIES: u32 = 10;

/// What is wrong with a routes file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct FileError {
    /// The file, as it was named.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What was found and what was expected. Never a key.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    default_model: Option<Spanned<String>>,
    #[serde(default)]
    upstreams: BTreeMap<Spanned<String>, Spanned<upstream::UpstreamText>>,
    #[serde(default)]
    routes: Vec<Spanned<RouteText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteText {
    models: Vec<Spanned<String>>,
    upstreams: Vec<Spanned<toml::Value>>,
    tries: Option<Spanned<u32>>,
    attempts: Option<Spanned<u32>>,
    retry_within: Option<Spanned<String>>,
    leaving: Option<Spanned<LeavingText>>,
    drain_for: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum LeavingText {
    Cancel,
    Drain,
}

/// A choice in full; a mere name stands for one with nothing but that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChoiceText {
    name: String,
    weight: Option<u32>,
    model: Option<String>,
}

/// Reads a routes file. What it leaves out of an upstream's timeouts is as in `defaults`.
pub fn parse(text: &str, file: &str, defaults: &UpstreamSettings, keys: &Keys<'_>) -> Result<RoutingTable, FileError> {
    read(text, defaults, keys).map_err(|mistake| {
        let before = text.as_bytes().get(..mistake.at.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        FileError { file: file.to_owned(), line, message: mistake.message }
    })
}

fn read(text: &str, defaults: &UpstreamSettings, keys: &Keys<'_>) -> Result<RoutingTable, Mistake> {
    if text.len() > MAX_BYTES {
        return Err(Mistake { at: 0..0, message: format!("expected at most {MAX_BYTES} bytes") });
    }
    let file: FileText = toml::from_str(text).map_err(|error| Mistake {
        at: error.span().unwrap_or(0..0),
        message: error.message().replace('\n', ", ").to_lowercase(),
    })?;
    if file.upstreams.len() > MAX_UPSTREAMS || file.routes.len() > MAX_ROUTES {
        let message = format!("expected at most {MAX_UPSTREAMS} upstreams and {MAX_ROUTES} routes");
        return Err(Mistake { at: 0..0, message });
    }
    if file.routes.is_empty() {
        return Err(Mistake { at: 0..0, message: "no routes: expected at least one [[routes]]".into() });
    }
    let mut upstreams = Vec::new();
    for (name, text) in &file.upstreams {
        upstreams.push(upstream::read(name, text, defaults, keys)?);
    }
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    let mut routes = Vec::new();
    for route in &file.routes {
        routes.push(read_route(route, &upstreams, &mut named)?);
    }
    let table = RoutingTable {
        upstreams,
        routes,
        default_model: file.default_model.as_ref().map(|model| model.get_ref().clone()),
        origin: Origin::File,
    };
    match &file.default_model {
        Some(model) if table.route(model.get_ref()).is_none() => {
            Err(mistake(model, format!("default_model: no route answers for {:?}", model.get_ref())))
        }
        _ => Ok(table),
    }
}

fn read_route(
    spanned: &Spanned<RouteText>,
    upstreams: &[UpstreamSettings],
    named: &mut BTreeMap<String, usize>,
) -> Result<Route, Mistake> {
    let route = spanned.get_ref();
    if route.models.is_empty() || route.upstreams.is_empty() || route.upstreams.len() > MAX_CHOICES {
        let message = format!("a route: expected one or more models, and 1 to {MAX_CHOICES} upstreams");
        return Err(mistake(spanned, message));
    }
    let mut models = Vec::new();
    for text in &route.models {
        let pattern = ModelPattern::parse(text.get_ref()).map_err(|expected| mistake(text, expected.into()))?;
        if let Some(name) = pattern.name()
            && named.insert(name.to_owned(), text.span().start).is_some()
        {
            return Err(mistake(text, format!("model {name:?} is named by two routes: expected one")));
        }
        models.push(pattern);
    }
    let mut choices: Vec<Choice> = Vec::new();
    for text in &route.upstreams {
        choices.push(read_choice(text, upstreams)?);
    }
    let persistence = Persistence::default();
    let persistence = Persistence {
        tries: count("tries", route.tries.as_ref(), persistence.tries)?,
        attempts: count("attempts", route.attempts.as_ref(), persistence.attempts)?,
        within: duration("retry_within", route.retry_within.as_ref(), persistence.within)?,
    };
    let drain_for =
        route.drain_for.as_ref().map(|text| duration("drain_for", Some(text), Duration::ZERO)).transpose()?;
    let leaving = match (route.leaving.as_ref().map(|text| *text.get_ref()), &route.drain_for) {
        (Some(LeavingText::Drain), _) => Some(RouteLeaving::Drain(drain_for)),
        (_, Some(text)) => return Err(mistake(text, "drain_for: expected leaving = \"drain\" with it".into())),
        (Some(LeavingText::Cancel), None) => Some(RouteLeaving::Cancel),
        (None, None) => None,
    };
    Ok(Route { models, choices, persistence, leaving })
}

fn read_choice(text: &Spanned<toml::Value>, upstreams: &[UpstreamSettings]) -> Result<Choice, Mistake> {
    let expected = "an upstream of a route: expected its name, or { name, weight, model }";
    let choice = match text.get_ref() {
        toml::Value::String(name) => ChoiceText { name: name.clone(), weight: None, model: None },
        other => other
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| mistake(text, format!("{expected}: {}", error.message())))?,
    };
    let Some(upstream) = upstreams.iter().position(|known| known.name == choice.name) else {
        return Err(mistake(text, format!("upstream {:?} is not defined: expected [upstreams.{0}]", choice.name)));
    };
    if choice.weight.is_some_and(|weight| weight > 1_000_000) {
        return Err(mistake(text, "weight: expected a number from 0 to 1000000".into()));
    }
    if choice.model.as_ref().is_some_and(|model| model.is_empty() || model.len() > ModelPattern::MAX_BYTES) {
        return Err(mistake(text, "model: expected a model name of 1 to 256 bytes".into()));
    }
    Ok(Choice { upstream, weight: choice.weight, model: choice.model })
}

fn count(name: &str, text: Option<&Spanned<u32>>, default: u32) -> Result<u32, Mistake> {
    match text {
        Some(text) if !(1..=MAX_TRIES).contains(text.get_ref()) => {
            Err(mistake(text, format!("{name}: expected a number from 1 to {MAX_TRIES}")))
        }
        Some(text) => Ok(*text.get_ref()),
        None => Ok(default),
    }
}

#[cfg(test)]
mod tests;
