//! Any JSON object, sent by Gemini in pieces of any size and cut anywhere, is recorded as it is.

use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use gateway::response::transcript::Transcript;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use shared::event::DialectName;

/// Any object. Empty objects and lists have no place in the pieces.
fn object() -> impl Strategy<Value = Value> {
    let text =
        prop::collection::vec(prop::sample::select(vec!["a", "é", "\u{1f600}", "\"", "\\", "\n", "{", "data:"]), 0..9);
    let leaf = prop_oneof![
        4 => text.prop_map(|text| Value::from(text.concat())),
        1 => any::<i32>().prop_map(Value::from),
        1 => (-1e9..1e9).prop_map(|number: f64| Value::from(number)),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let name = prop::sample::select(vec!["a", "b", "full name", "é", "it's", "a.b[0]", "\"", "\\", "*", ""]);
    let members = move |value| prop::collection::vec((name.clone(), value), 1..5).prop_map(object_of);
    let value = leaf.prop_recursive(4, 24, 5, {
        let members = members.clone();
        move |inner| {
            prop_oneof![members(inner.clone().boxed()), prop::collection::vec(inner, 1..4).prop_map(Value::from)]
        }
    });
    members(value.boxed())
}

fn object_of(members: Vec<(&'static str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

/// The pieces of a value: of a text, parts of this many characters.
fn pieces(path: &str, value: &Value, length: usize, found: &mut Vec<Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let is_plain = !name.is_empty() && name.chars().all(char::is_alphanumeric);
                let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
                let path = if is_plain { format!("{path}.{name}") } else { format!("{path}['{quoted}']") };
                pieces(&path, value, length, found);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                pieces(&format!("{path}[{index}]"), value, length, found);
            }
        }
        Value::String(text) => {
            let characters: Vec<char> = text.chars().collect();
            for part in characters.chunks(length) {
                let part: String = part.iter().collect();
                found.push(json!({"jsonPath": path, "stringValue": part, "willContinue": true}));
            }
            found.push(json!({"jsonPath": path, "stringValue": ""}));
        }
        Value::Number(number) => found.push(json!({"jsonPath": path, "numberValue": number})),
        Value::Bool(flag) => found.push(json!({"jsonPath": path, "boolValue": flag})),
        Value::Null => found.push(json!({"jsonPath": path, "nullValue": null})),
    }
}

fn run(body: &[u8], sizes: &[usize]) -> Transcript {
    let mut tap = Tap::new(Fold::new(DialectName::GoogleGemini), ExpectedBody::Answer, UsageChunkPolicy::Forward);
    let (mut rest, mut sizes) = (body, sizes.iter().cycle());
    while let (false, Some(size)) = (rest.is_empty(), sizes.next()) {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        tap.feed(bytes::Bytes::copy_from_slice(piece));
        rest = after;
    }
    tap.finish();
    tap.take_transcript().0
}

/// The events of calls with these arguments, whose pieces take turns if the calls have ids.
fn body(calls: &[(Value, usize, usize)], has_ids: bool) -> String {
    let mut parts: Vec<Vec<Value>> = Vec::new();
    for (number, (arguments, length, per_part)) in calls.iter().enumerate() {
        let mut found = Vec::new();
        pieces("$", arguments, *length, &mut found);
        let id = if has_ids { json!(number.to_string()) } else { Value::Null };
        let mut call = vec![json!({"id": id, "name": "f", "willContinue": true})];
        call.extend(
            found.chunks(*per_part).map(|pieces| json!({"id": id, "partialArgs": pieces, "willContinue": true})),
        );
        call.push(json!({"id": id}));
        parts.push(call);
    }
    let mut ordered = Vec::new();
    if has_ids {
        for turn in 0..parts.iter().map(Vec::len).max().unwrap_or(0) {
            ordered.extend(parts.iter().filter_map(|call| call.get(turn)));
        }
    } else {
        ordered.extend(parts.iter().flatten());
    }
    let chunk = |call: &Value| json!({"candidates": [{"content": {"parts": [{"functionCall": call}]}}]});
    let end = json!({"candidates": [{"finishReason": "STOP"}]});
    ordered.into_iter().map(chunk).chain([end]).map(|chunk| format!("data: {chunk}\n\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arguments_in_pieces_are_joined(
        calls in prop::collection::vec((object(), 1..5_usize, 1..4_usize), 1..4),
        has_ids in any::<bool>(),
        sizes in prop::collection::vec(1..80_usize, 1..20),
    ) {
        let transcript = run(body(&calls, has_ids).as_bytes(), &sizes);
        let recorded: Vec<&str> = transcript.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
        let expected: Vec<String> = calls.iter().map(|(arguments, ..)| arguments.to_string()).collect();
        prop_assert_eq!(recorded, expected);
        prop_assert!(transcript.notes.is_empty(), "{:?}", transcript.notes);
    }

    #[test]
    fn arguments_of_an_answer_that_breaks_off_are_json(
        call in (object(), 1..5_usize, 1..4_usize),
        cut_at in any::<prop::sample::Index>(),
    ) {
        let stream = body(&[call], false);
        let transcript = run(&stream.as_bytes()[..cut_at.index(stream.len() + 1)], &[usize::MAX]);
        for call in &transcript.tool_calls {
            prop_assert!(call.arguments.is_empty() || serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok());
            prop_assert!(!transcript.notes.contains(&"arguments_in_pieces"));
        }
    }
}
