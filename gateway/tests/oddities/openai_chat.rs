//! Deviations in the Chat Completions dialect.

use shared::event::DialectName::OpenaiChat;

use super::{ExpectedTranscript, check, check_end_is_held_back, events, run_tap};

const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const HI: &str = r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;

/// An event stream of these chunks, followed by a finish reason and `[DONE]`.
fn stream(chunks: &[&str]) -> String {
    events(chunks) + &events(&[STOP, "[DONE]"])
}

fn expected_text(text: &'static str) -> ExpectedTranscript {
    ExpectedTranscript { text, finish_reason: Some("stop"), ..ExpectedTranscript::default() }
}

#[test]
fn usage_is_read_from_many_places_and_under_many_names() {
    let usage = |usage| ExpectedTranscript { usage: Some(usage), ..expected_text("hi") };
    let final_chunk = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let body = events(&[HI, STOP, final_chunk, "[DONE]"]);
    check(OpenaiChat, &body, &usage((3, 1)));

    let beside_choices =
        r#"{"choices":[{"index":0,"delta":{"content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    check(OpenaiChat, &stream(&[beside_choices]), &usage((3, 1)));

    // Growing usage in every chunk: the last usage object counts, without summing.
    let growing = |n: u64| {
        format!(
            r#"{{"choices":[{{"delta":{{"content":"{}"}}}}],"usage":{{"prompt_tokens":3,"completion_tokens":{n}}}}}"#,
            if n == 1 { "h" } else { "i" }
        )
    };
    check(OpenaiChat, &stream(&[&growing(1), &growing(2)]), &usage((3, 2)));

    let groq = r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":5,"completion_tokens":6}}}"#;
    check(OpenaiChat, &stream(&[HI, groq]), &usage((5, 6)));
    // Usage at the top level takes precedence over `x_groq`, in any order.
    check(OpenaiChat, &stream(&[HI, final_chunk, groq]), &usage((3, 1)));

    let on_choice =
        r#"{"choices":[{"index":0,"delta":{"content":"hi"},"usage":{"prompt_tokens":7,"completion_tokens":8}}]}"#;
    check(OpenaiChat, &stream(&[on_choice]), &usage((7, 8)));

    check(OpenaiChat, &stream(&[HI]), &expected_text("hi"));
    let of_message = r#"{"choices":[{"message":{"content":"hi","usage":{"prompt_tokens":7,"completion_tokens":8}}}]}"#;
    check(OpenaiChat, &stream(&[of_message]), &usage((7, 8)));
    for cohere in [
        r#"{"choices":[],"meta":{"billed_units":{"input_tokens":2,"output_tokens":8},"tokens":{"input_tokens":7,"output_tokens":8}}}"#,
        r#"{"choices":[],"meta":{"tokens":{"input_tokens":7,"output_tokens":8}}}"#,
        r#"{"choices":[],"usage":{"billed_units":{"input_tokens":2,"output_tokens":8},"tokens":{"input_tokens":7,"output_tokens":8}}}"#,
        r#"{"choices":[],"usage":{"tokens":{"input_tokens":7,"output_tokens":8}}}"#,
        r#"{"choices":[],"usage":{"promptTokens":7,"completionTokens":8,"totalTokens":15}}"#,
        r#"{"choices":[],"usage":{"inputTokens":7,"outputTokens":8,"totalTokens":15}}"#,
    ] {
        check(OpenaiChat, &stream(&[HI, cohere]), &usage((7, 8)));
    }

    let zero = r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;
    check(OpenaiChat, &stream(&[HI, zero]), &usage((0, 0)));
    let null_after = r#"{"choices":[],"usage":null}"#;
    check(OpenaiChat, &stream(&[HI, final_chunk, null_after]), &usage((3, 1)));
}

#[test]
fn several_choices_are_kept_apart() {
    let odd =
        [r#"{"choices":[]}"#, r#"{"id":"x"}"#, r#"{"choices":null}"#, r#"{"choices":[null,7]}"#, r#"{"choices":{}}"#];
    for chunk in odd {
        let id = chunk.contains("id").then_some("x");
        check(OpenaiChat, &stream(&[HI, chunk]), &ExpectedTranscript { id, ..expected_text("hi") });
    }
    let second = r#"{"choices":[{"index":1,"delta":{"content":"ho"},"finish_reason":"length"}]}"#;
    let both = r#"{"choices":[{"index":0,"delta":{"content":" there"}},{"index":1,"delta":{"content":"!"}}]}"#;
    let body = stream(&[HI, second, both]);
    check(OpenaiChat, &body, &ExpectedTranscript { notes: &["several_choices"], ..expected_text("hi there") });
    let other = &run_tap(OpenaiChat, &[body.as_bytes()]).transcript.other_choices[0];
    assert_eq!((other.0, other.1.text.as_str()), (1, "ho!"));
    assert_eq!(other.1.finish_reason.as_deref(), Some("length"));
}

#[test]
fn tool_calls_are_read_in_every_form() {
    let call = |calls| ExpectedTranscript { calls, ..expected_text("") };
    let delta = |calls: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{calls}]}}}}]}}"#);
    let first = delta(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#);
    let more = |index: &str, arguments: &str| delta(&format!(r#"{{{index}"function":{{"arguments":"{arguments}"}}}}"#));
    check(
        OpenaiChat,
        &stream(&[&first, &more("\"index\":0,", "{\\\"x\\\""), &more("\"index\":0,", ":1}")]),
        &call(&[("a", "f", "{\"x\":1}")]),
    );

    // Without an index: a delta with an id opens a call, other deltas extend the last call.
    let opened = |id: &str| delta(&format!(r#"{{"id":"{id}","function":{{"name":"f","arguments":"1"}}}}"#));
    check(
        OpenaiChat,
        &stream(&[&opened("a"), &more("", "2"), &opened("b")]),
        &call(&[("a", "f", "12"), ("b", "f", "1")]),
    );

    // A repeated id extends the call. Another id on a known index opens a call.
    let with_id = |id: &str, arguments: &str| {
        delta(&format!(r#"{{"index":0,"id":"{id}","function":{{"name":"f","arguments":"{arguments}"}}}}"#))
    };
    check(
        OpenaiChat,
        &stream(&[&with_id("a", "1"), &with_id("a", "2"), &with_id("", "3")]),
        &call(&[("a", "f", "123")]),
    );
    check(
        OpenaiChat,
        &stream(&[&with_id("a", "1"), &with_id("b", "2"), &more("\"index\":0,", "3")]),
        &call(&[("a", "f", "1"), ("b", "f", "23")]),
    );

    let several = delta(
        r#"{"index":0,"id":"a","function":{"name":"f","arguments":"1"}},{"index":1,"id":"b","function":{"name":"g","arguments":{"y": 2}}}"#,
    );
    check(OpenaiChat, &stream(&[&several]), &call(&[("a", "f", "1"), ("b", "g", "{\"y\":2}")]));

    let legacy = |function: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"function_call":{function}}}}}]}}"#);
    let body = stream(&[&legacy(r#"{"name":"f","arguments":""}"#), &legacy(r#"{"arguments":"{}"}"#)]);
    check(OpenaiChat, &body, &call(&[("", "f", "{}")]));
    check(OpenaiChat, &stream(&[HI, &legacy(r#"{"name":"","arguments":""}"#)]), &expected_text("hi"));

    // The input of a custom tool is not JSON.
    let custom = |custom: &str| delta(&format!(r#"{{"index":0,"id":"a","type":"custom","custom":{{{custom}}}}}"#));
    let more = delta(r#"{"index":0,"custom":{"input":" 1"}}"#);
    let body = stream(&[&custom(r#""name":"sql","input":"""#), &custom(r#""input":"SELECT""#), &more]);
    check(OpenaiChat, &body, &call(&[("a", "sql", "SELECT 1")]));
    let filled_in = delta(
        r#"{"index":0,"id":"a","function":{"name":"","arguments":""},"custom":{"name":"sql","input":"SELECT 1"}}"#,
    );
    check(OpenaiChat, &stream(&[&filled_in]), &call(&[("a", "sql", "SELECT 1")]));
    let document = r#"{"choices":[{"message":{"tool_calls":[{"id":"a","type":"custom","custom":{"name":"sql","input":"SELECT 1"}}]},"finish_reason":"stop"}]}"#;
    let output = run_tap(OpenaiChat, &[document.as_bytes()]);
    super::compare(&call(&[("a", "sql", "SELECT 1")]), &output.transcript, &output.usage, document);

    // The tool calls of a document have no indexes. Each is a separate call.
    let document = r#"{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":"1"}},{"function":{"name":"g","arguments":"2"}}]},"finish_reason":"stop"}]}"#;
    let transcript = run_tap(OpenaiChat, &[document.as_bytes()]).transcript;
    assert_eq!(transcript.tool_calls.len(), 2);
}

#[test]
fn reasoning_is_read_under_every_name() {
    let delta = |fields: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{{fields}}}}}]}}"#);
    for fields in [
        r#""reasoning_content":"hm","content":"""#,
        r#""reasoning":"hm""#,
        r#""reasoning_text":"hm""#,
        r#""reasoning":"hm","reasoning_content":"","reasoning_details":[{"type":"reasoning.text","text":"hm"}]"#,
        r#""reasoning_details":[{"type":"reasoning.text","text":"h"},{"type":"reasoning.summary","summary":"m"},{"type":"reasoning.encrypted","data":"x"}]"#,
        r#""content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]"#,
        r#""content":[{"type":"thinking","thinking":"hm"}]"#,
    ] {
        check(
            OpenaiChat,
            &stream(&[&delta(fields), HI]),
            &ExpectedTranscript { reasoning: "hm", ..expected_text("hi") },
        );
    }
    // Reasoning inside the text stays in the text.
    let inline = r#"{"choices":[{"delta":{"content":"<think>hm</think>hi"}}]}"#;
    check(OpenaiChat, &stream(&[inline]), &expected_text("<think>hm</think>hi"));
}

#[test]
fn content_of_every_kind_is_read() {
    let content = |content: &str| stream(&[&format!(r#"{{"choices":[{{"delta":{{"content":{content}}}}}]}}"#)]);
    check(
        OpenaiChat,
        &content(r#"[{"type":"text","text":"a"},"b",{"type":"reference","reference_ids":[1]}]"#),
        &expected_text("ab"),
    );
    check(OpenaiChat, &content(r#"{"a": [1, 2]}"#), &expected_text(r#"{"a":[1,2]}"#));
    check(OpenaiChat, &content(r#""\ud83d\ude00 \u00e9""#), &expected_text("\u{1f600} é"));
    for odd in ["null", "7", "true"] {
        check(OpenaiChat, &content(odd), &expected_text(""));
    }
    let lone = content(r#""\ud800""#);
    check(OpenaiChat, &lone, &ExpectedTranscript { notes: &["text_mended"], ..expected_text("\u{fffd}") });
    let reasoning = stream(&[r#"{"choices":[{"delta":{"reasoning":"\ud83d hm"}}]}"#]);
    check(
        OpenaiChat,
        &reasoning,
        &ExpectedTranscript { reasoning: "\u{fffd} hm", notes: &["text_mended"], ..expected_text("") },
    );
    let deep = format!(r#"[{}"x"{}]"#, r#"{"thinking":["#.repeat(50_000), "]}".repeat(50_000));
    assert_eq!(run_tap(OpenaiChat, &[content(&deep).as_bytes()]).transcript.finish_reason.as_deref(), Some("stop"));
}

#[test]
fn refusals_and_audio_transcripts_are_read() {
    let refusal = r#"{"choices":[{"delta":{"content":null,"refusal":"no"}}]}"#;
    check(OpenaiChat, &stream(&[refusal]), &ExpectedTranscript { refusal: "no", ..expected_text("") });
    let audio = r#"{"choices":[{"delta":{"audio":{"id":"a","transcript":"oh"}}}]}"#;
    let sound = r#"{"choices":[{"delta":{"audio":{"data":"UklGRg=="}}}]}"#;
    check(OpenaiChat, &stream(&[audio, sound, audio]), &ExpectedTranscript { audio: "ohoh", ..expected_text("") });
}

#[test]
fn finish_reasons_are_read() {
    let reason = |reason: &str| format!(r#"{{"choices":[{{"delta":{{"content":"x"}},"finish_reason":{reason}}}]}}"#);
    let body = |reasons: [&str; 2]| events(&[&reason(reasons[0]), &reason(reasons[1]), "[DONE]"]);
    let expected = |finish_reason| ExpectedTranscript { text: "xx", finish_reason, ..ExpectedTranscript::default() };
    check(OpenaiChat, &body([r#""stop""#, r#""tool_calls""#]), &expected(Some("tool_calls")));
    check(OpenaiChat, &body([r#""length""#, "null"]), &expected(Some("length")));
    check(OpenaiChat, &body([r#""""#, "null"]), &expected(None));
    check(OpenaiChat, &body(["null", "7"]), &expected(None));
}

#[test]
fn the_first_id_is_kept_where_ids_change() {
    let named = |id: &str| format!(r#"{{"id":"{id}","model":"m-{id}","choices":[]}}"#);
    let body = stream(&[&named(""), &named("a"), &named("b"), HI]);
    check(OpenaiChat, &body, &ExpectedTranscript { id: Some("a"), model: Some("m-"), ..expected_text("hi") });
}

#[test]
fn errors_in_a_stream_are_read() {
    let failed = |error| ExpectedTranscript { text: "hi", error: Some(error), ..ExpectedTranscript::default() };
    for (event, error) in [
        (r#"{"error":{"message":"m","type":"t","code":"c"}}"#, (Some("t"), Some("c"), "m")),
        (
            r#"{"error":{"message":"m","code":502},"choices":[{"delta":{"content":""},"index":0}]}"#,
            (None, Some("502"), "m"),
        ),
        (r#"{"error":"m"}"#, (None, None, "m")),
        (r#"{"object":"error","message":"m","type":"t","code":40303}"#, (Some("t"), Some("40303"), "m")),
        (r#"{"detail":"m"}"#, (None, None, "m")),
        (r#"{"choices":[],"x_groq":{"error":"m"}}"#, (None, None, "m")),
    ] {
        check(OpenaiChat, &events(&[HI, event]), &failed(error));
        check_end_is_held_back(OpenaiChat, &events(&[HI, event]), "\"m\"");
    }
    let hi = events(&[HI]);
    check(OpenaiChat, &(hi.clone() + "event: error\ndata: out of luck\n\n"), &failed((None, None, "out of luck")));
    let object = "event: error\ndata: {\"message\":\"m\",\"type\":null}\n\n";
    check(OpenaiChat, &(hi.clone() + object), &failed((None, None, "m")));
    let llamacpp = "error: {\"code\":500,\"message\":\"m\",\"type\":\"server_error\"}\n\n";
    check(OpenaiChat, &(hi + llamacpp), &failed((Some("server_error"), Some("500"), "m")));
    // An error in the choice, as sent by OpenRouter. No client stops there, so the rest is read.
    let choice = r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error","error":{"code":502,"message":"m"}}]}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let on_choice =
        ExpectedTranscript { finish_reason: Some("error"), usage: Some((3, 1)), ..failed((None, Some("502"), "m")) };
    check(OpenaiChat, &events(&[HI, choice, usage, "[DONE]"]), &on_choice);
    let document = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"error","error":{"code":502,"message":"m"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let output = run_tap(OpenaiChat, &[document.as_bytes()]);
    super::compare(&on_choice, &output.transcript, &output.usage, document);
    check(OpenaiChat, &stream(&[r#"{"choices":[{"delta":{"content":"hi"},"error":null}]}"#]), &expected_text("hi"));
    // Error members that report no error.
    for event in [r#"{"error":null,"choices":[]}"#, r#"{"error":{},"choices":[]}"#] {
        check(OpenaiChat, &stream(&[HI, event]), &expected_text("hi"));
    }
}

#[test]
fn answers_that_are_one_document_are_read() {
    let body = r#" {"id":"r","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let expected = ExpectedTranscript { id: Some("r"), model: Some("m"), usage: Some((3, 1)), ..expected_text("hi") };
    let check_document = |body: &str, expected: &ExpectedTranscript| {
        let output = run_tap(OpenaiChat, &body.as_bytes().chunks(9).collect::<Vec<_>>());
        assert_eq!(output.forwarded, body.as_bytes());
        super::compare(expected, &output.transcript, &output.usage, body);
    };
    check_document(body, &expected);
    check_document(&format!("\u{feff}{body}\n"), &expected);
    let error = ExpectedTranscript { error: Some((None, Some("400"), "m")), ..ExpectedTranscript::default() };
    check_document("\n\n  {\"error\":{\"message\":\"m\",\"code\":400}}", &error);
    // A list of chunks, and several chunks in a row.
    check_document(&format!("[{HI},\n{STOP}]"), &expected_text("hi"));
    check_document(&format!("{HI}\n{STOP}\n"), &expected_text("hi"));
    check_document(
        "<html>no</html>",
        &ExpectedTranscript { notes: &["unreadable_chunk"], ..ExpectedTranscript::default() },
    );
    check_document(
        "{\"choices\":[{\"message\":",
        &ExpectedTranscript { notes: &["unreadable_chunk"], ..ExpectedTranscript::default() },
    );
}

#[test]
fn the_last_of_repeated_members_is_read() {
    let twice = |expected: ExpectedTranscript| ExpectedTranscript { notes: &["repeated_member"], ..expected };
    let delta = r#"{"choices":[{"index":0,"delta":{"content":"x","content":"hi","reasoning_content":null,"reasoning_content":"hm"}}]}"#;
    check(OpenaiChat, &stream(&[delta]), &twice(ExpectedTranscript { reasoning: "hm", ..expected_text("hi") }));
    let parts = r#"{"choices":[{"delta":{"content":[{"type":"text","text":"ho","text":"hi"}]}}]}"#;
    check(OpenaiChat, &stream(&[parts]), &twice(expected_text("hi")));
    let half_a_pair = r#"{"choices":[{"delta":{"content":[{"type":"text","text":"\ud83d"}]}}]}"#;
    check(
        OpenaiChat,
        &stream(&[half_a_pair]),
        &ExpectedTranscript { notes: &["text_mended"], ..expected_text("\u{fffd}") },
    );
    let both = r#"{"id":"a","id":"b","choices":[{"delta":{"reasoning":"\ud83d"}}]}"#;
    let notes: &[&str] = &["repeated_member", "text_mended"];
    check(
        OpenaiChat,
        &stream(&[both]),
        &ExpectedTranscript { id: Some("b"), reasoning: "\u{fffd}", notes, ..expected_text("") },
    );
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"prompt_tokens":3,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":0,"cached_tokens":2}}}"#;
    let body = stream(&[HI, usage]);
    check(OpenaiChat, &body, &ExpectedTranscript { usage: Some((3, 1)), ..expected_text("hi") });
    let usage_read = run_tap(OpenaiChat, &[body.as_bytes()]).usage;
    assert_eq!(usage_read.parts.cache_read, 2);
    assert!(usage.contains(usage_read.raw.unwrap().get()), "the usage object must stay as sent");
    for error in [
        r#"{"error":{"message":"n","message":"m","code":1,"code":2}}"#,
        r#"{"code":1,"code":2,"message":"m"}"#,
        r#"{"choices":[],"error":null,"error":{"message":"m","code":2}}"#,
    ] {
        let transcript = run_tap(OpenaiChat, &[events(&[HI, error]).as_bytes()]).transcript;
        let expected = transcript.error.map(|error| (error.code.unwrap_or_default(), error.message));
        assert_eq!(expected, Some(("2".to_owned(), "m".to_owned())), "{error}");
    }
    let document = r#"{"id":"r","choices":[{"message":{"content":"n","content":"hi"},"finish_reason":"stop"}]}"#;
    let transcript = run_tap(OpenaiChat, &[document.as_bytes()]).transcript;
    assert_eq!((transcript.text.as_str(), transcript.finish_reason.as_deref()), ("hi", Some("stop")));
}

#[test]
fn the_end_is_held_back() {
    check_end_is_held_back(OpenaiChat, &stream(&[HI]), "[DONE");
}
