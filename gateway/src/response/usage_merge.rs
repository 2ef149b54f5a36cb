//! Merges the usage objects that the events of one response report, member by member.
//!
//! Counts within a response are cumulative. A later count therefore replaces an earlier one, but a count of 0, a `null`
//! and a missing member replace nothing that was positive: several providers fill only some members of their later
//! reports. A later positive count may be smaller, because the first report of some providers is an estimate.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::lenient::{Count, List, Members, Object, Text};

/// The maximum length of a usage object that is kept, in bytes.
pub(super) const MAX_USAGE_BYTES: usize = 256 << 10;

/// The maximum nesting depth at which members are merged. Deeper objects are replaced as a whole.
const MAX_DEPTH: u32 = 8;

/// The names of Anthropic's counts of input that was read from or written to a cache. `input_tokens` excludes both.
const CACHE_NAMES: [&str; 2] = ["cache_read_input_tokens", "cache_creation_input_tokens"];

/// The result of merging two usage objects.
#[derive(Debug)]
pub(super) struct MergedUsage {
    /// The merged object.
    pub(super) raw: Box<RawValue>,
    /// True if the later object counted the cached input, which the earlier object had counted apart, as part of the
    /// input. The earlier count of the input is kept.
    pub(super) has_cache_in_input: bool,
}

/// Merges two usage objects. `None` if the later report changes nothing.
pub(super) fn merge_usage(earlier: &RawValue, later: &RawValue) -> Option<MergedUsage> {
    if earlier.get() == later.get() {
        return None;
    }
    let (Some(before), Some(after)) = (members(earlier.get()), members(later.get())) else {
        let raw = match merge_value(earlier.get(), later.get(), 0) {
            Cow::Borrowed(kept) if kept == earlier.get() => return None,
            kept => RawValue::from_string(kept.into_owned()).ok()?,
        };
        return Some(MergedUsage { raw, has_cache_in_input: false });
    };
    let has_cache_in_input = has_cache_in_input(&before, &after);
    let replaces_all = has_compaction(&after);
    let merged = merge_members(&before, &after, |name, before, after| {
        if name == "input_tokens" && has_cache_in_input {
            Cow::Borrowed(before)
        } else if replaces_all && (name == "input_tokens" || name == "output_tokens" || CACHE_NAMES.contains(&name)) {
            Cow::Borrowed(if after == "null" { before } else { after })
        } else {
            merge_value(before, after, MAX_DEPTH)
        }
    });
    Some(MergedUsage { raw: RawValue::from_string(merged).ok()?, has_cache_in_input })
}

/// Shortens a usage object to [`MAX_USAGE_BYTES`] by leaving out its longest members. `None` if the value is not an
/// object.
pub(super) fn shorten_usage(usage: &RawValue) -> Option<Box<RawValue>> {
    let Members(members) = members(usage.get())?;
    let length = |place: usize| members[place].0.len() + members[place].1.get().len() + 8;
    let mut by_length: Vec<usize> = (0..members.len()).collect();
    by_length.sort_by_key(|place| length(*place));
    let mut room = MAX_USAGE_BYTES;
    by_length.retain(|place| match room.checked_sub(length(*place)) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    });
    by_length.sort_unstable();
    let kept = by_length.into_iter().map(|place| (members[place].0.as_ref(), members[place].1.get()));
    RawValue::from_string(Members::to_json(kept)).ok()
}

/// Merges two values. The later value is kept, except if it says nothing and the earlier value says something.
fn merge_value<'a>(earlier: &'a str, later: &'a str, depth: u32) -> Cow<'a, str> {
    if says_nothing(later) && (later == "null" || !says_nothing(earlier)) {
        return Cow::Borrowed(earlier);
    }
    // Some providers write counts as texts.
    let first_byte = |json: &str| {
        let digits = json.trim_matches('"');
        let is_count = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_count { b'0' } else { json.as_bytes().first().copied().unwrap_or(b' ') }
    };
    match (first_byte(earlier), first_byte(later)) {
        (b'{', b'{') if depth > 0 => match (members(earlier), members(later)) {
            (Some(before), Some(after)) => {
                Cow::Owned(merge_members(&before, &after, |_, before, after| merge_value(before, after, depth - 1)))
            }
            _ => Cow::Borrowed(later),
        },
        // A count or an object of counts is not replaced by a value of another kind.
        (b'{', b'{') => Cow::Borrowed(later),
        (b'{', _) => Cow::Borrowed(earlier),
        (b'0'..=b'9', b'0'..=b'9' | b'-') => Cow::Borrowed(later),
        (b'0'..=b'9', _) if !says_nothing(earlier) => Cow::Borrowed(earlier),
        _ => Cow::Borrowed(later),
    }
}

/// Writes the merged members: those of the earlier object in their order, followed by the new ones.
fn merge_members(
    before: &Members<'_>,
    after: &Members<'_>,
    merge: impl for<'m> Fn(&str, &'m str, &'m str) -> Cow<'m, str>,
) -> String {
    let mut merged: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(before.0.len() + after.0.len());
    let mut add = |name, value: &str| match merged.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = Cow::Owned(merge(name, known, value).into_owned()),
        None => merged.push((name, Cow::Owned(value.to_owned()))),
    };
    before.0.iter().chain(&after.0).for_each(|(name, value)| add(name.as_ref(), value.get()));
    Members::to_json(merged.iter().map(|(name, value)| (*name, value.as_ref())))
}

/// True for values that do not report anything: `null`, 0, also as a text, an empty text, object or list.
fn says_nothing(json: &str) -> bool {
    matches!(json, "null" | "0" | "\"0\"" | "\"\"" | "{}" | "[]")
        || json.parse::<f64>().is_ok_and(|number| number == 0.0)
}

/// True if the later input count is the sum of the earlier one and the cached input. Providers that imitate Anthropic's
/// API count the cached input apart in one event and as part of the input in another.
fn has_cache_in_input(before: &Members<'_>, after: &Members<'_>) -> bool {
    let caches = |members| CACHE_NAMES.map(|name| count(members, name).unwrap_or(0));
    let (earlier, later) = (caches(before), caches(after));
    let cached = earlier[0].saturating_add(earlier[1]);
    let is_repeated = earlier.into_iter().zip(later).all(|(earlier, later)| later == 0 || later == earlier);
    let whole = count(before, "input_tokens").map(|input| input.saturating_add(cached));
    cached > 0 && is_repeated && whole.is_some() && count(after, "input_tokens") == whole
}

/// True if the object lists a pass in which the conversation was compacted. The first event of such a response counts
/// that pass, and the object counts the passes after the compaction.
fn has_compaction(usage: &Members<'_>) -> bool {
    #[derive(serde::Deserialize)]
    struct Pass<'a> {
        #[serde(default, borrow, rename = "type")]
        kind: Text<'a>,
    }
    let Some(passes) = usage.get("iterations") else { return false };
    let List(passes) = serde_json::from_str::<List<Object<Pass<'_>>>>(passes.get()).unwrap_or_default();
    passes.iter().filter_map(|pass| pass.0.as_ref()).any(|pass| pass.kind.non_empty() == Some("compaction"))
}

fn count(members: &Members<'_>, name: &str) -> Option<u64> {
    serde_json::from_str::<Count>(members.get(name)?.get()).ok()?.0
}

fn members(json: &str) -> Option<Members<'_>> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn merged(earlier: &str, later: &str) -> String {
        merge_usage(&raw(earlier), &raw(later)).map_or_else(|| earlier.to_owned(), |merged| merged.raw.get().to_owned())
    }

    #[test]
    fn a_later_report_replaces_what_it_counts() {
        assert_eq!(merged(r#"{"a":4,"b":1}"#, r#"{"a":3,"b":11,"c":"x"}"#), r#"{"a":3,"b":11,"c":"x"}"#);
        assert_eq!(merged(r#"{"a":0.5}"#, r#"{"a":1e2}"#), r#"{"a":1e2}"#);
        assert_eq!(merged("null", r#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(merged("7", r#"{"a":1}"#), "7");
    }

    #[test]
    fn nothing_positive_is_replaced_by_nothing() {
        let report = r#"{"a":4,"b":{"c":2,"d":{"e":1}},"f":[1],"g":"x"}"#;
        for later in [
            "{}",
            "null",
            "[]",
            r#"{"a":0,"b":{"c":0,"d":{"e":0.0}},"f":[],"g":""}"#,
            r#"{"a":null,"b":null,"f":null,"g":null}"#,
            r#"{"a":"none","b":0}"#,
            r#"{"a":-0,"b":{}}"#,
        ] {
            assert_eq!(merged(report, later), report, "{later}");
        }
        assert_eq!(merged(r#"{"a":0}"#, r#"{"a":null}"#), r#"{"a":0}"#);
        assert_eq!(merged(r#"{"a":null}"#, r#"{"a":0}"#), r#"{"a":0}"#);
    }

    #[test]
    fn members_of_several_reports_are_joined() {
        assert_eq!(merged(r#"{"a":{"x":1}}"#, r#"{"a":{"y":2},"b":3}"#), r#"{"a":{"x":1,"y":2},"b":3}"#);
        assert_eq!(merged(r#"{"a":1,"a":2}"#, r#"{"a":0,"b":1}"#), r#"{"a":2,"b":1}"#);
    }

    #[test]
    fn the_cached_input_is_counted_once() {
        let split = r#"{"input_tokens":20,"cache_read_input_tokens":70,"cache_creation_input_tokens":10}"#;
        for whole in [r#"{"input_tokens":100}"#, r#"{"input_tokens":100,"cache_read_input_tokens":70}"#] {
            let merged = merge_usage(&raw(split), &raw(whole)).unwrap();
            assert!(merged.has_cache_in_input && merged.raw.get() == split, "{whole}");
        }
        let more = merge_usage(&raw(split), &raw(r#"{"input_tokens":101}"#)).unwrap();
        assert!(!more.has_cache_in_input && more.raw.get().contains("101"));
    }

    #[test]
    fn counts_beside_a_compaction_replace_those_of_the_first_pass() {
        let first = r#"{"input_tokens":900,"output_tokens":5}"#;
        let last =
            r#"{"input_tokens":0,"cache_read_input_tokens":16,"output_tokens":7,"iterations":[{"type":"compaction"}]}"#;
        assert!(merged(first, last).starts_with(r#"{"input_tokens":0,"output_tokens":7,"#));
        assert!(merged(first, &last.replace("compaction", "message")).starts_with(r#"{"input_tokens":900,"#));
    }

    #[test]
    fn a_usage_object_is_shortened_by_its_longest_members() {
        let long = "x".repeat(MAX_USAGE_BYTES);
        let usage = raw(&format!(r#"{{"a":1,"long":"{long}","b":[{}1],"c":2}}"#, "1,".repeat(1_000)));
        let short = shorten_usage(&usage).unwrap();
        assert!(short.get().len() <= MAX_USAGE_BYTES && !short.get().contains("long"));
        assert!(short.get().starts_with(r#"{"a":1,"b":[1,"#) && short.get().ends_with(r#""c":2}"#));
        assert!(shorten_usage(&raw("[1]")).is_none());
    }
}
