//! Parses one rule of a routes file that lets named paths pass for named callers.

use serde::Deserialize;
use toml::Spanned;

use super::mistake::{Mistake, mistake};
use super::recording::RecordingEntry;
use shared::event::RecordingMode;
use shared::model_pattern::ModelPattern;

use crate::routing::{PassThrough, UpstreamSettings};

/// The maximum number of paths, and of callers, of a rule.
const MAX_ENTRIES: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PassThroughEntry {
    paths: Vec<Spanned<String>>,
    callers: Vec<Spanned<String>>,
    upstream: Spanned<String>,
    recording: Option<RecordingEntry>,
}

/// Reads a rule. Paths begin with `/v1/`, and may have `*` for any text.
pub(super) fn read(
    spanned: &Spanned<PassThroughEntry>,
    upstreams: &[UpstreamSettings],
) -> Result<PassThrough, Mistake> {
    let entry = spanned.get_ref();
    let is_in_bounds = |entries: &[Spanned<String>]| (1..=MAX_ENTRIES).contains(&entries.len());
    if !is_in_bounds(&entry.paths) || !is_in_bounds(&entry.callers) {
        let message = format!("a pass_through rule: expected 1 to {MAX_ENTRIES} paths and 1 to {MAX_ENTRIES} callers");
        return Err(mistake(spanned, message));
    }
    let mut paths = Vec::new();
    for text in &entry.paths {
        if !text.get_ref().starts_with("/v1/") {
            return Err(mistake(text, "paths: expected a path that begins with /v1/, such as /v1/files*".into()));
        }
        paths.push(
            ModelPattern::parse(text.get_ref())
                .map_err(|_| mistake(text, "paths: expected a path of 1 to 256 bytes with at most 8 '*'".into()))?,
        );
    }
    if let Some(empty) = entry.callers.iter().find(|caller| caller.get_ref().is_empty() || caller.get_ref() == "*") {
        return Err(mistake(empty, "callers: expected the ids of users; there is no pattern for all users".into()));
    }
    let name = entry.upstream.get_ref();
    let Some(upstream_index) = upstreams.iter().position(|known| known.name == *name) else {
        return Err(mistake(&entry.upstream, format!("upstream {name:?} is not defined: expected [upstreams.{name}]")));
    };
    let callers = entry.callers.iter().map(|caller| caller.get_ref().clone()).collect();
    let mut rule = PassThrough::new(paths, callers, upstream_index);
    rule.route.recording = entry.recording.map_or(RecordingMode::Full, RecordingEntry::mode);
    Ok(rule)
}
