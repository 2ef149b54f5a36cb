//! Refusal of members that stand twice, or that differ only in case from a member on which the gateway acts.
//!
//! Pure. Parsers disagree on such members: some take the first of two, some the last, and some accept `Model` for `model`.
//! Such a body could be checked and recorded as one request, and be answered as another.

use crate::json::lenient::Members;
use crate::request::invalid_request::InvalidRequest;

/// The members of a request on which the gateway acts: members that are checked, that decide over route, conversation or
/// streaming, or that are recorded in a column of their own.
const ACTED_ON: [&str; 25] = [
    "background",
    "chat_id",
    "conversation",
    "conversationId",
    "conversation_id",
    "documents",
    "id",
    "input",
    "instructions",
    "langfuse_session_id",
    "litellm_session_id",
    "messages",
    "metadata",
    "model",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "session_id",
    "stream",
    "stream_options",
    "system",
    "temperature",
    "thread_id",
    "tools",
    "user",
];

/// A comparison of a member's name with a name on which the gateway acts.
type IsSameName = fn(&str, &str) -> bool;

/// Members of members on which the gateway acts. The names in `metadata` are the client's own, so that another case is
/// another name there.
const ACTED_ON_INSIDE: [(&str, &[&str], IsSameName); 3] = [
    ("conversation", &["id"], has_same_letters),
    ("metadata", &["chat_id", "conversation_id", "langfuse_session_id", "session_id", "thread_id", "user_id"], str::eq),
    ("stream_options", &["include_usage"], has_same_letters),
];

/// Checks the members of a request. The error names the member.
pub(super) fn refuse(members: &Members<'_>) -> Result<(), InvalidRequest> {
    refuse_among(members, &ACTED_ON, has_same_letters, None)?;
    for (outer, names, is_same) in ACTED_ON_INSIDE {
        let inner: Option<Members<'_>> = members
            .get(outer)
            .filter(|raw| raw.get().starts_with('{'))
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        if let Some(inner) = inner {
            refuse_among(&inner, names, is_same, Some(outer))?;
        }
    }
    Ok(())
}

fn refuse_among(
    members: &Members<'_>,
    acted_on: &[&'static str],
    is_same: IsSameName,
    outer: Option<&'static str>,
) -> Result<(), InvalidRequest> {
    let mut seen = 0_u32;
    for (name, _) in &members.0 {
        let Some(index) = acted_on.iter().position(|known| is_same(name, known)) else { continue };
        let known = acted_on[index];
        let problem = if name.as_ref() != known {
            format!("expected the name {known:?}, found {name:?}")
        } else if seen & 1 << index != 0 {
            "expected one member of this name, found two".to_owned()
        } else {
            seen |= 1 << index;
            continue;
        };
        let path = outer.map_or_else(|| known.to_owned(), |outer| format!("{outer}.{known}"));
        return Err(InvalidRequest { message: format!("{path}: {problem}"), param: Some(outer.unwrap_or(known)) });
    }
    Ok(())
}

/// True if two names differ at most in case. Besides the ASCII letters, U+017F counts as `s` and U+212A as `k`: some parsers
/// fold case like Unicode.
fn has_same_letters(name: &str, known: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(known);
    }
    let folded = |character: char| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    name.chars().map(folded).eq(known.chars().map(folded))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::request::{ApiSurface, ChatRequest};

    fn error(body: &str) -> Option<String> {
        refuse(&serde_json::from_str(body).unwrap()).err().map(|error| error.message)
    }

    #[test]
    fn the_error_names_the_member() {
        let cases = [
            (r#"{"model":"a","model":"b"}"#, "model: expected one member of this name, found two"),
            (r#"{"model":"a","mod\u0065l":"b"}"#, "model: expected one member of this name, found two"),
            (r#"{"Model":"a"}"#, r#"model: expected the name "model", found "Model""#),
            (r#"{"model":"a","MODEL":"b"}"#, r#"model: expected the name "model", found "MODEL""#),
            (
                "{\"me\u{17f}\u{17f}ages\":[]}",
                "messages: expected the name \"messages\", found \"me\u{17f}\u{17f}ages\"",
            ),
            (
                r#"{"conversationID":"a"}"#,
                r#"conversationId: expected the name "conversationId", found "conversationID""#,
            ),
            (
                r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
                "stream_options.include_usage: expected one member of this name, found two",
            ),
            (
                r#"{"stream_options":{"Include_Usage":true}}"#,
                r#"stream_options.include_usage: expected the name "include_usage", found "Include_Usage""#,
            ),
            (
                r#"{"metadata":{"session_id":"a","session_id":"b"}}"#,
                "metadata.session_id: expected one member of this name, found two",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(error(body).as_deref(), Some(message), "{body}");
        }
        for body in [
            r#"{"model":"a","seed":1,"seed":2,"Seed":3,"models":[]}"#,
            r#"{"metadata":{"a":1,"a":2,"A":3,"User_Id":4},"stream_options":7}"#,
            r#"{"stream_options":{"x":{"include_usage":1,"Include_Usage":2}}}"#,
        ] {
            assert_eq!(error(body), None, "{body}");
        }
    }

    /// The value of a member for a parser that takes the first of two, or the last.
    fn value_of<'a>(members: &'a [(String, Value)], name: &str, is_first: bool) -> Option<&'a Value> {
        let mut found = members.iter().filter(|(known, _)| known.to_lowercase() == name.to_lowercase());
        if is_first { found.next().map(|(_, value)| value) } else { found.next_back().map(|(_, value)| value) }
    }

    const NAMES: [&str; 10] =
        ["model", "Model", "MODEL", "messages", "Messages", "stream", "Stream", "temperature", "x", "X"];

    fn member() -> impl Strategy<Value = (String, Value)> {
        let values = prop_oneof![
            Just(Value::from("m")),
            Just(Value::from("other")),
            Just(Value::from(true)),
            Just(Value::from(0.5)),
            Just(serde_json::json!([{"role": "user", "content": "x"}])),
        ];
        (proptest::sample::select(&NAMES[..]).prop_map(str::to_owned), values)
    }

    proptest! {
        #[test]
        fn a_body_is_refused_or_every_parser_reads_the_same(more in proptest::collection::vec(member(), 0..5)) {
            let mut members = vec![
                ("model".to_owned(), Value::from("m")),
                ("messages".to_owned(), serde_json::json!([{"role": "user", "content": "x"}])),
            ];
            members.extend(more);
            let written: Vec<String> =
                members.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
            let body = Bytes::from(format!("{{{}}}", written.join(",")));
            if let Ok(request) = ChatRequest::parse(&body, ApiSurface::ChatCompletions) {
                for name in ["model", "messages", "stream", "temperature"] {
                    prop_assert_eq!(value_of(&members, name, true), value_of(&members, name, false), "{}", name);
                }
                prop_assert_eq!(value_of(&members, "model", true), Some(&Value::from(request.model)));
            }
        }
    }
}
