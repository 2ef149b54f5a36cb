//! The JSON paths (RFC 9535) of single values: `$.items[0]['full name']`. Wildcards, slices and filters name no single
//! value.

use std::borrow::Cow;

/// The maximum number of steps of a path. Parsers of JSON read a few more levels than this.
const MAX_STEPS: usize = 64;

/// One step of a path, from a value to one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A member of an object.
    Member(Cow<'a, str>),
    /// An element of a list, counted from 0.
    Element(u32),
}

/// Parses a path into its steps. `None` if the path does not name a single value within an object, or has too many steps.
/// Names after a dot may have any characters but dots and brackets, because models write them so; `$` may be missing.
pub(super) fn parse_path(path: &str) -> Option<Vec<Step<'_>>> {
    let (mut rest, mut is_bare) = path.strip_prefix('$').map_or((path, true), |rest| (rest, false));
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = match rest.as_bytes()[0] {
            _ if steps.len() == MAX_STEPS => return None,
            b'[' => bracketed(&rest[1..])?,
            b'.' => named(&rest[1..])?,
            _ if is_bare => named(rest)?,
            _ => return None,
        };
        steps.push(step);
        (rest, is_bare) = (after, false);
    }
    matches!(steps.first(), Some(Step::Member(_))).then_some(steps)
}

fn named(text: &str) -> Option<(Step<'_>, &str)> {
    let (name, rest) = text.split_at(text.find(['.', '[']).unwrap_or(text.len()));
    (!matches!(name, "" | "*")).then_some((Step::Member(name.into()), rest))
}

/// Parses a step in brackets, from after the opening bracket.
fn bracketed(text: &str) -> Option<(Step<'_>, &str)> {
    let Some(quote @ (b'\'' | b'"')) = text.bytes().next() else {
        let (digits, rest) = text.split_once(']')?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        return Some((Step::Element(digits.parse().ok().filter(|_| is_number)?), rest));
    };
    let mut end = 1;
    loop {
        end += memchr::memchr2(quote, b'\\', text.as_bytes().get(end..)?)?;
        if text.as_bytes()[end] == quote {
            break;
        }
        end += 2;
    }
    let rest = text[end + 1..].strip_prefix(']')?;
    Some((Step::Member(unescape(&text[1..end])?), rest))
}

/// Replaces the escapes of a quoted name: those of JSON, and `\'`.
fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains('\\') {
        return Some(name.into());
    }
    let mut json = String::with_capacity(name.len() + 2);
    json.push('"');
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        match (character, if character == '\\' { characters.next() } else { None }) {
            (_, Some('\'')) => json.push('\''),
            (_, Some(escaped)) => json.extend(['\\', escaped]),
            ('"', None) => json.push_str("\\\""),
            (other, None) => json.push(other),
        }
    }
    json.push('"');
    serde_json::from_str::<String>(&json).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_single_values_are_parsed() {
        let member = |name: &'static str| Step::Member(name.into());
        for (path, expected) in [
            ("$.a", vec![member("a")]),
            ("a", vec![member("a")]),
            ("$.foo.bar[0].data", vec![member("foo"), member("bar"), Step::Element(0), member("data")]),
            ("$.a[12][3]", vec![member("a"), Step::Element(12), Step::Element(3)]),
            ("$['full name'].x-y", vec![member("full name"), member("x-y")]),
            (r#"$["a.b[0]"]['it\'s']"#, vec![member("a.b[0]"), member("it's")]),
            (r#"$['"\u00e9\\\n']"#, vec![member("\"é\\\n")]),
            ("$['']", vec![member("")]),
            ("$.é.$x", vec![member("é"), member("$x")]),
        ] {
            assert_eq!(parse_path(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let deep = "$".to_owned() + &".a".repeat(MAX_STEPS + 1);
        for path in [
            "",
            "$",
            "$.",
            "$..a",
            "$.*",
            "$[*]",
            "$.a[*]",
            "$.a[-1]",
            "$.a[1:2]",
            "$.a[?@.b]",
            "$.a[",
            "$.a[1",
            "$.a['b",
            "$.a['b'",
            r"$['\x']",
            r"$['\",
            "$a",
            "$[0]",
            "$.a[]",
            "$.a[+1]",
            "$.a[4294967296]",
            &deep,
        ] {
            assert_eq!(parse_path(path), None, "{path}");
        }
        assert!(parse_path(&deep[..deep.len() - 2]).is_some());
    }
}
