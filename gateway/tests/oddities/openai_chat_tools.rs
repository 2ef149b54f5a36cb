//! Tool calls in the Chat Completions dialect, in the forms in which providers send them.

use proptest::prelude::*;
use shared::event::DialectName::OpenaiChat;

use super::{ExpectedTranscript, check, compare, events, run_tap};

type Calls = &'static [(&'static str, &'static str, &'static str)];

const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#;

fn expected(calls: Calls) -> ExpectedTranscript {
    ExpectedTranscript { calls, finish_reason: Some("tool_calls"), ..ExpectedTranscript::default() }
}

/// Checks a stream with one delta for each of these lists of pieces.
fn check_stream(deltas: &[&str], calls: Calls) {
    let delta = |pieces: &&str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":{pieces}}}}}]}}"#);
    let chunks: Vec<String> = deltas.iter().map(delta).chain([FINISH.to_owned(), "[DONE]".to_owned()]).collect();
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    check(OpenaiChat, &events(&chunks), &expected(calls));
}

/// Checks the same calls in a document.
fn check_document(message: &str, calls: Calls) {
    let document = format!(r#"{{"choices":[{{"index":0,"message":{{{message}}},"finish_reason":"tool_calls"}}]}}"#);
    let output = run_tap(OpenaiChat, &[document.as_bytes()]);
    compare(&expected(calls), &output.transcript, &output.usage, &document);
}

#[test]
fn a_known_id_goes_on_with_its_call() {
    const ONE: Calls = &[("a1", "weather", r#"{"city":"Oslo"}"#)];
    // Without an index.
    check_stream(
        &[
            r#"[{"id":"a1","function":{"name":"weather","arguments":""}}]"#,
            r#"[{"id":"a1","function":{"arguments":"{\"city\":"}}]"#,
            r#"[{"id":"a1","function":{"arguments":"\"Oslo\"}"}}]"#,
        ],
        ONE,
    );
    // With an index in the first delta only, and with the name in each.
    check_stream(
        &[
            r#"[{"index":3,"id":"a1","function":{"name":"weather","arguments":""}}]"#,
            r#"[{"id":"a1","function":{"name":"weather","arguments":"{\"city\":"}}]"#,
            r#"[{"id":"a1","function":{"name":"weather","arguments":"\"Oslo\"}"}}]"#,
        ],
        ONE,
    );
    // With an index that grows from delta to delta, and then without an id.
    check_stream(
        &[
            r#"[{"index":0,"id":"a1","function":{"name":"weather","arguments":"{\"ci"}}]"#,
            r#"[{"index":1,"id":"a1","function":{"arguments":"ty\":"}}]"#,
            r#"[{"index":1,"function":{"arguments":"\"Oslo"}}]"#,
            r#"[{"index":2,"function":{"arguments":"\"}"}}]"#,
        ],
        ONE,
    );
    // Interleaved, with the index 0 for all calls.
    check_stream(
        &[
            r#"[{"index":0,"id":"a1","function":{"name":"weather","arguments":""}}]"#,
            r#"[{"index":0,"id":"a2","function":{"name":"time","arguments":""}}]"#,
            r#"[{"index":0,"id":"a1","function":{"arguments":"{\"city\":"}}]"#,
            r#"[{"index":0,"function":{"arguments":"\"Oslo\"}"}}]"#,
            r#"[{"index":0,"id":"a2","function":{"arguments":"{}"}}]"#,
        ],
        &[("a1", "weather", r#"{"city":"Oslo"}"#), ("a2", "time", "{}")],
    );
}

#[test]
fn a_known_index_goes_on_with_its_call_unless_a_name_opens_another() {
    // A second id for the rest of the call, with the index and then without.
    check_stream(
        &[
            r#"[{"index":0,"id":"call_1","function":{"name":"weather","arguments":""}}]"#,
            r#"[{"index":0,"id":"x-7","function":{"arguments":"{\"city\":"}}]"#,
            r#"[{"id":"x-7","function":{"arguments":"\"Oslo\"}"}}]"#,
        ],
        &[("call_1", "weather", r#"{"city":"Oslo"}"#)],
    );
    check_stream(
        &[
            r#"[{"id":"call_1","function":{"name":"weather"}}]"#,
            r#"[{"id":"x-7","function":{"arguments":"{\"city\":\"Oslo\"}"}}]"#,
        ],
        &[("call_1", "weather", r#"{"city":"Oslo"}"#)],
    );
    // Two calls with an index each, interleaved, and the id after the name.
    check_stream(
        &[
            r#"[{"index":0,"function":{"name":"weather","arguments":""}}]"#,
            r#"[{"index":1,"id":"b","function":{"name":"time","arguments":""}}]"#,
            r#"[{"index":0,"id":"a","function":{"arguments":"{\"city\":"}}]"#,
            r#"[{"index":1,"function":{"arguments":"{}"}}]"#,
            r#"[{"index":0,"function":{"arguments":"\"Oslo\"}"}}]"#,
        ],
        &[("a", "weather", r#"{"city":"Oslo"}"#), ("b", "time", "{}")],
    );
    // The index 0 for all calls, and no ids: a name opens a call when the arguments before are complete.
    check_stream(
        &[
            r#"[{"index":0,"function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]"#,
            r#"[{"index":0,"function":{"name":"time","arguments":"{}"}}]"#,
            r#"[{"index":0,"function":{"name":"time","arguments":"{\"zone\":"}}]"#,
            r#"[{"index":0,"function":{"name":"time","arguments":"1}"}}]"#,
        ],
        &[("", "weather", r#"{"city":"Oslo"}"#), ("", "time", "{}"), ("", "time", r#"{"zone":1}"#)],
    );
    // The same in one delta, also before there are arguments.
    check_stream(
        &[
            r#"[{"index":0,"function":{"name":"now","arguments":""}},{"index":0,"function":{"name":"here","arguments":""}}]"#,
        ],
        &[("", "now", ""), ("", "here", "")],
    );
    // The index 0 for all calls, and an id each.
    check_stream(
        &[
            r#"[{"index":0,"id":"a","function":{"name":"time","arguments":"{\"x\":"}}]"#,
            r#"[{"index":0,"function":{"arguments":"1}"}}]"#,
            r#"[{"index":0,"id":"b","function":{"name":"time","arguments":"{\"x\":"}}]"#,
            r#"[{"index":0,"function":{"arguments":"2}"}}]"#,
        ],
        &[("a", "time", r#"{"x":1}"#), ("b", "time", r#"{"x":2}"#)],
    );
}

#[test]
fn parallel_calls_without_index_and_id_are_apart() {
    const TWO: Calls = &[("", "weather", r#"{"city":"Oslo"}"#), ("", "time", r#"{"zone":1}"#)];
    check_stream(
        &[
            r#"[{"id":"","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}},{"id":"","function":{"name":"time","arguments":"{\"zone\":1}"}}]"#,
        ],
        TWO,
    );
    check_stream(
        &[
            r#"[{"function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]"#,
            r#"[{"function":{"name":"time","arguments":"{\"zone\":1}"}}]"#,
        ],
        TWO,
    );
    // In pieces, one call after the other.
    check_stream(
        &[
            r#"[{"function":{"name":"weather","arguments":""}}]"#,
            r#"[{"function":{"arguments":"{\"city\":"}}]"#,
            r#"[{"function":{"arguments":"\"Oslo\"}"}}]"#,
            r#"[{"function":{"name":"time","arguments":"{\"zo"}}]"#,
            r#"[{"function":{"arguments":"ne\":1}"}}]"#,
        ],
        TWO,
    );
    // In pieces, both calls in each delta.
    check_stream(
        &[
            r#"[{"function":{"name":"weather","arguments":""}},{"function":{"name":"time","arguments":""}}]"#,
            r#"[{"function":{"arguments":"{\"city\":"}},{"function":{"arguments":"{\"zone\":"}}]"#,
            r#"[{"function":{"name":"weather","arguments":"\"Oslo\"}"}},{"function":{"name":"time","arguments":"1}"}}]"#,
        ],
        TWO,
    );
    // The same function twice, as objects.
    check_stream(
        &[
            r#"[{"function":{"name":"time","arguments":{"zone":1}}},{"function":{"name":"time","arguments":{"zone":1}}}]"#,
            r#"[{"function":{"name":"time","arguments":{"zone": 2}}}]"#,
        ],
        &[("", "time", r#"{"zone":1}"#), ("", "time", r#"{"zone":1}"#), ("", "time", r#"{"zone":2}"#)],
    );
    check_document(
        r#""tool_calls":[{"function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}},{"function":{"name":"time","arguments":{"zone": 1}}}]"#,
        TWO,
    );
}

#[test]
fn calls_in_other_shapes_are_read() {
    // One object in place of the list, and an object of calls by index.
    check_stream(
        &[
            r#"{"index":0,"id":"a","type":"function","function":{"name":"time","arguments":""}}"#,
            r#"{"index":0,"id":"","function":{"name":null,"arguments":"{\"zone\":1}"}}"#,
        ],
        &[("a", "time", r#"{"zone":1}"#)],
    );
    check_stream(
        &[
            r#"{"0":{"id":"a","function":{"name":"time","arguments":"{"}},"1":{"id":"b","function":{"name":"now","arguments":"{}"}}}"#,
            r#"{"0":{"function":{"arguments":"}"}}}"#,
        ],
        &[("a", "time", "{}"), ("b", "now", "{}")],
    );
    check_document(r#""tool_calls":{"id":"a","function":{"name":"time","arguments":"{}"}}"#, &[("a", "time", "{}")]);
    // The members of the function without the object around them.
    check_stream(&[r#"[{"id":"a","name":"time","arguments":"{}"}]"#], &[("a", "time", "{}")]);
    check_document(
        r#""tool_calls":[{"id":"a","name":"time","parameters":{"zone":1}}]"#,
        &[("a", "time", r#"{"zone":1}"#)],
    );
    // A number as the id.
    check_stream(
        &[
            r#"[{"index":0,"id":7,"function":{"name":"time","arguments":""}},{"index":1,"id":8,"function":{"name":"now","arguments":"{}"}}]"#,
            r#"[{"id":7,"function":{"arguments":"{}"}}]"#,
        ],
        &[("7", "time", "{}"), ("8", "now", "{}")],
    );
    for odd in ["null", "[]", "{}", "[null]", "[{}]", "7", "[[]]"] {
        check_document(&format!(r#""content":null,"tool_calls":{odd}"#), &[]);
    }
}

#[test]
fn calls_under_the_old_name_are_read() {
    let delta = |members: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{{members}}}}}]}}"#);
    let check_deltas = |deltas: &[&str], calls: Calls| {
        let chunks: Vec<String> =
            deltas.iter().map(|members| delta(members)).chain([FINISH.to_owned(), "[DONE]".to_owned()]).collect();
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        check(OpenaiChat, &events(&chunks), &expected(calls));
    };
    const ONE: Calls = &[("", "time", r#"{"zone":1}"#)];
    check_deltas(
        &[
            r#""function_call":{"name":"time","arguments":""}"#,
            r#""function_call":{"arguments":"{\"zone\":"}"#,
            r#""function_call":{"name":"time","arguments":"1}"}"#,
            r#""function_call":{"name":"","arguments":""}"#,
        ],
        ONE,
    );
    check_deltas(&[r#""function_call":{"name":"time","arguments":{"zone": 1}}"#], ONE);
    // Both names for the same call.
    let both = r#""function_call":{"name":"time","arguments":"{\"zone\":1}"},"tool_calls":[{"index":0,"id":"a","function":{"name":"time","arguments":"{\"zone\":1}"}}]"#;
    check_deltas(&[both], &[("a", "time", r#"{"zone":1}"#)]);
    check_document(both, &[("a", "time", r#"{"zone":1}"#)]);
    check_document(r#""function_call":{"name":"time","arguments":"{\"zone\":1}"}"#, ONE);
}

proptest! {
    /// The last delta repeats complete calls, one or all of them, whatever the calls have been told apart by.
    #[test]
    fn repeated_calls_are_recorded_once(
        values in prop::collection::vec(0..9_u8, 1..4),
        is_cut in any::<bool>(),
        keys in prop::sample::select(vec![r#""index":#,"id":"c#","#, r#""id":"c#","#, r#""index":#,"#]),
        repeated in 1..4_usize,
    ) {
        let piece = |call: usize, name: &str, arguments: &str| {
            let keys = keys.replace('#', &call.to_string());
            let arguments = serde_json::Value::from(arguments);
            format!(r#"{{{keys}"function":{{{name}"arguments":{arguments}}}}}"#)
        };
        let delta = |pieces: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{pieces}]}}}}]}}"#);
        let whole = |call: usize| format!(r#"{{"value":{}}}"#, values[call]);
        let mut chunks = Vec::new();
        for call in 0..values.len() {
            let arguments = whole(call);
            let (first, rest) = arguments.split_at(if is_cut { 4 } else { 0 });
            chunks.push(delta(&piece(call, r#""name":"f","#, first)));
            chunks.push(delta(&piece(call, "", rest)));
        }
        let last: Vec<String> =
            (0..values.len()).take(repeated).map(|call| piece(call, "", &whole(call))).collect();
        chunks.push(delta(&last.join(",")));
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        let transcript = run_tap(OpenaiChat, &[events(&chunks).as_bytes()]).transcript;
        let recorded: Vec<&str> = transcript.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
        let expected: Vec<String> = (0..values.len()).map(whole).collect();
        prop_assert_eq!(recorded, expected);
    }
}
