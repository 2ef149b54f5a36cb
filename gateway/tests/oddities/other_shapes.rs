//! Answers in the formats of other APIs in place of a chat completion.

use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use shared::event::DialectName::OpenaiChat;

use super::{ExpectedTranscript, check, compare, drain, events, run_tap};

fn expected(text: &'static str, usage: Option<(u64, u64)>) -> ExpectedTranscript {
    ExpectedTranscript { text, usage, notes: &["other_format"], ..ExpectedTranscript::default() }
}

fn check_document(body: &str, expected: &ExpectedTranscript) {
    let output = run_tap(OpenaiChat, &[body.as_bytes()]);
    compare(expected, &output.transcript, &output.usage, body);
    assert!(output.forwarded == body.as_bytes());
}

#[test]
fn the_format_of_cloudflare_is_read() {
    let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}"#;
    let answer = |result: &str| format!(r#"{{"result":{result},"success":true,"errors":[],"messages":[]}}"#);
    check_document(&answer(&format!(r#"{{"response":"hi",{usage}}}"#)), &expected("hi", Some((3, 2))));
    check_document(&answer(r#"{"response":"h\u00e9"}"#), &expected("hé", None));
    // An answer in the form of a schema, and calls.
    check_document(&answer(r#"{"response":{"a": [1]}}"#), &expected(r#"{"a":[1]}"#, None));
    let calls: &[(&str, &str, &str)] = &[("", "f", r#"{"x":1}"#)];
    for response in [r#""response":null,"#, r#""response":"","#, ""] {
        let result = format!(r#"{{{response}"tool_calls":[{{"name":"f","arguments":{{"x":1}}}}]}}"#);
        check_document(&answer(&result), &ExpectedTranscript { calls, ..expected("", None) });
    }
    let chunks = [
        r#"{"response":"h","p":"abcdef"}"#.to_owned(),
        r#"{"response":"i"}"#.to_owned(),
        format!(r#"{{"response":"!",{usage}}}"#),
        "[DONE]".to_owned(),
    ];
    check(OpenaiChat, &events(&chunks.each_ref().map(String::as_str)), &expected("hi!", Some((3, 2))));
    let half = r#"{"response":"a\ud83d"}"#;
    let mended = ExpectedTranscript { notes: &["text_mended", "other_format"], ..expected("a\u{fffd}", None) };
    check(OpenaiChat, &events(&[half, "[DONE]"]), &mended);
    let failed = r#"{"result":null,"success":false,"errors":[{"code":7009,"message":"m"}],"messages":[]}"#;
    let error = ExpectedTranscript { error: Some((None, Some("7009"), "m")), ..ExpectedTranscript::default() };
    check_document(failed, &error);
}

/// A chunk without choices, with usage: where the gateway asked for usage, only what has nothing else is taken out.
#[test]
fn a_chunk_with_a_text_and_usage_reaches_the_client() {
    let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":2}"#;
    for (chunk, is_forwarded) in [
        (format!(r#"{{"response":"hi",{usage}}}"#), true),
        (format!(r#"{{"response":"",{usage}}}"#), true),
        (format!(r#"{{"choices":[],{usage}}}"#), false),
        (format!("{{{usage}}}"), false),
    ] {
        let mut tap = Tap::new(Fold::new(OpenaiChat), ExpectedBody::Answer, UsageChunkPolicy::Remove);
        tap.feed(events(&[&chunk, "[DONE]"]).into());
        tap.release();
        let mut forwarded = Vec::new();
        drain(&mut tap, &mut forwarded);
        let expected = if is_forwarded { events(&[&chunk, "[DONE]"]) } else { events(&["[DONE]"]) };
        assert_eq!(String::from_utf8(forwarded).unwrap(), expected);
        assert_eq!(tap.take_transcript().1.completion_tokens, Some(2), "{chunk}");
    }
}

#[test]
fn chat_completions_within_another_object_are_read() {
    let choices = r#""choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]"#;
    let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":2}"#;
    let all = ExpectedTranscript { finish_reason: Some("stop"), ..expected("hi", Some((3, 2))) };
    for wrapped in [
        format!(r#"{{"result":{{{choices},{usage}}},"success":true,"errors":[]}}"#),
        format!(r#"{{"code":200,"msg":"success","data":{{{choices},{usage}}}}}"#),
        format!(r#"{{"code":1000,"message":"fine","data":{{{choices},{usage}}}}}"#),
        format!(r#"{{"response":{{{choices},{usage}}},"traceId":"t"}}"#),
        format!(r#"{{"output":{{{choices}}},"usage":{{"input_tokens":3,"output_tokens":2}},"request_id":"r"}}"#),
    ] {
        check_document(&wrapped, &all);
        let event = events(&[&wrapped, "[DONE]"]);
        check(OpenaiChat, &event, &all);
    }
    let named = format!(r#"{{"result":{{"id":"c","model":"m",{choices}}}}}"#);
    let all = ExpectedTranscript { id: Some("c"), model: Some("m"), usage: None, ..all };
    check_document(&named, &all);
    let chunk = r#"{"data":{"choices":[{"index":0,"delta":{"content":"h"}}]}}"#;
    check(OpenaiChat, &events(&[chunk, chunk, "[DONE]"]), &expected("hh", None));
}

#[test]
fn the_older_format_of_dashscope_is_read() {
    let chunk = |text: &str, reason: &str, output: u64| {
        format!(
            r#"{{"output":{{"text":"{text}","finish_reason":"{reason}"}},"usage":{{"input_tokens":3,"output_tokens":{output}}}}}"#
        )
    };
    let all = ExpectedTranscript { finish_reason: Some("stop"), ..expected("hi!", Some((3, 2))) };
    check_document(&chunk("hi!", "stop", 2), &all);
    // Each chunk of a stream has all of the text so far.
    let chunks = [chunk("h", "null", 1), chunk("hi", "null", 1), chunk("hi!", "stop", 2)];
    check(OpenaiChat, &events(&chunks.each_ref().map(String::as_str)), &all);
}

#[test]
fn the_format_of_text_generation_is_read() {
    let details = r#""details":{"finish_reason":"eos_token","generated_tokens":2,"input_length":3,"seed":null}"#;
    let all = ExpectedTranscript { finish_reason: Some("eos_token"), ..expected("hi", Some((3, 2))) };
    check_document(&format!(r#"{{"generated_text":"hi",{details}}}"#), &all);
    check_document(r#"[{"generated_text":"hi"}]"#, &expected("hi", None));
    let token = |text: &str, special: bool| {
        format!(r#"{{"index":1,"token":{{"id":1,"text":"{text}","logprob":-0.1,"special":{special}}}"#)
    };
    let chunks = [
        format!(r#"{},"generated_text":null,"details":null}}"#, token("h", false)),
        format!(r#"{},"generated_text":null}}"#, token("i", false)),
        format!(r#"{},"generated_text":"hi",{details}}}"#, token("</s>", true)),
    ];
    check(OpenaiChat, &events(&chunks.each_ref().map(String::as_str)), &all);
    // An error of the server within the stream.
    let error = r#"{"error":"Model is overloaded","error_type":"overloaded"}"#;
    let failed =
        ExpectedTranscript { error: Some((Some("overloaded"), None, "Model is overloaded")), ..expected("h", None) };
    check(OpenaiChat, &events(&[&chunks[0], error]), &failed);
}

#[test]
fn the_format_of_ollama_is_read() {
    let part = |member: &str| format!(r#"{{"model":"m","created_at":"2026-01-01T00:00:00Z",{member},"done":false}}"#);
    let done = r#"{"model":"m","message":{"role":"assistant","content":""},"done_reason":"length","done":true,"prompt_eval_count":3,"eval_count":2}"#;
    let chunks = [
        part(r#""message":{"role":"assistant","content":"","thinking":"hm"}"#),
        part(r#""message":{"role":"assistant","content":"h"}"#),
        part(
            r#""message":{"role":"assistant","content":"i","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]}"#,
        ),
        done.to_owned(),
    ];
    let all = ExpectedTranscript {
        reasoning: "hm",
        calls: &[("", "f", r#"{"x":1}"#)],
        finish_reason: Some("length"),
        model: Some("m"),
        ..expected("hi", Some((3, 2)))
    };
    // A line for each object, and the same as events.
    check_document(&(chunks.join("\n") + "\n"), &all);
    check(OpenaiChat, &events(&chunks.each_ref().map(String::as_str)), &all);
    let generated = [part(r#""response":"h""#), r#"{"model":"m","response":"i","done":true}"#.to_owned()];
    let all = ExpectedTranscript { finish_reason: Some("stop"), model: Some("m"), ..expected("hi", None) };
    check_document(&generated.join("\n"), &all);
}

/// Members with these names say nothing of a text where other members are missing.
#[test]
fn status_chunks_are_no_answers() {
    let hi = r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;
    for status in [
        r#"{"type":"status","data":{"text":"searching"}}"#,
        r#"{"result":{"text":"x"}}"#,
        r#"{"output":{"status":"running"}}"#,
        r#"{"response":{"id":"r"}}"#,
        r#"{"message":{"role":"assistant","content":"x"}}"#,
        r#"{"done":true}"#,
        r#"{"token":"x","generated_text":null}"#,
        r#"{"data":{"choices":[]}}"#,
        r#"{"result":null,"response":null,"data":null,"output":null}"#,
    ] {
        let all = ExpectedTranscript { text: "hi", ..ExpectedTranscript::default() };
        check(OpenaiChat, &events(&[status, hi, "[DONE]"]), &all);
    }
}
