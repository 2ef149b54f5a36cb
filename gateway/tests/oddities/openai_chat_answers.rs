//! Answers in the Chat Completions dialect that deviate as a whole: messages in streams, reasoning in other shapes, members
//! that look like errors, lines without blank lines, usage in several events.

use shared::event::DialectName::OpenaiChat;

use super::{ExpectedTranscript, check, check_end_is_held_back, compare, events, run_tap};

const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const HI: &str = r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;

fn stream(chunks: &[&str]) -> String {
    events(chunks) + &events(&[STOP, "[DONE]"])
}

fn expected_text(text: &'static str) -> ExpectedTranscript {
    ExpectedTranscript { text, finish_reason: Some("stop"), ..ExpectedTranscript::default() }
}

fn check_document(document: &str, expected: &ExpectedTranscript) {
    let output = run_tap(OpenaiChat, &[document.as_bytes()]);
    assert_eq!(output.forwarded, document.as_bytes());
    compare(expected, &output.transcript, &output.usage, document);
}

#[test]
fn a_complete_message_in_a_stream_adds_only_what_no_delta_has_said() {
    let delta = |members: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{{members}}}}}]}}"#);
    let message = |members: &str| {
        format!(
            r#"{{"object":"chat.completion","choices":[{{"index":0,"message":{{{members}}},"finish_reason":"stop"}}]}}"#
        )
    };
    let good = delta(r#""content":"Good ""#);
    let day = delta(r#""content":"day""#);
    for (last, text) in [
        (r#""role":"assistant","content":"Good day""#, "Good day"),
        (r#""content":"Good day to you""#, "Good day to you"),
        (r#""content":"Something else""#, "Good day"),
        (r#""content":null"#, "Good day"),
    ] {
        check(OpenaiChat, &events(&[&good, &day, &message(last), "[DONE]"]), &expected_text(text));
    }
    // All other parts.
    let parts = [
        delta(r#""reasoning_content":"Hm.""#),
        delta(r#""tool_calls":[{"index":0,"id":"a","function":{"name":"time","arguments":"{}"}}]"#),
    ];
    let whole = message(
        r#""content":"Good","reasoning_content":"Hm.","refusal":"no","tool_calls":[{"id":"a","function":{"name":"time","arguments":"{}"}},{"id":"b","function":{"name":"now","arguments":"{}"}}]"#,
    );
    let expected = ExpectedTranscript {
        reasoning: "Hm.",
        refusal: "no",
        calls: &[("a", "time", "{}"), ("b", "now", "{}")],
        ..expected_text("Good")
    };
    check(OpenaiChat, &events(&[&parts[0], &parts[1], &whole, "[DONE]"]), &expected);
    // A message beside each delta: the same addition, or all so far.
    for (first, second) in [("Good ", "day"), ("Good ", "Good day")] {
        let both = |delta: &str, message: &str| {
            format!(
                r#"{{"choices":[{{"index":0,"delta":{{"content":"{delta}"}},"message":{{"content":"{message}"}}}}]}}"#
            )
        };
        check(OpenaiChat, &stream(&[&both("Good ", first), &both("day", second)]), &expected_text("Good day"));
    }
    // The same from the first chunk on, which has no content yet.
    let both = |content: &str| {
        format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"{content}"}},"message":{{"content":"{content}"}}}}]}}"#
        )
    };
    check(OpenaiChat, &stream(&[&both(""), &both("Go"), &both("od"), &both(" day")]), &expected_text("Good day"));
    // A stream of messages: additions, or all so far.
    let said = |text: &str| format!(r#"{{"choices":[{{"index":0,"message":{{"content":"{text}"}}}}]}}"#);
    check(OpenaiChat, &stream(&[&said("Good "), &said("day")]), &expected_text("Good day"));
    let last = message(r#""content":"Good day""#);
    check(OpenaiChat, &events(&[&said("Good "), &said("Good day"), &last, "[DONE]"]), &expected_text("Good day"));
    // The whole answer in one event, and as the text of a completion.
    check(OpenaiChat, &events(&[&message(r#""content":"Good day""#), "[DONE]"]), &expected_text("Good day"));
    let text = |text: &str| format!(r#"{{"choices":[{{"index":0,"text":"{text}"}}]}}"#);
    check(OpenaiChat, &stream(&[&text("Good "), &text("day")]), &expected_text("Good day"));
}

#[test]
fn reasoning_is_read_in_every_shape() {
    let delta = |members: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{{members}}}}}]}}"#);
    for members in [
        r#""content":[{"type":"reasoning","summary":[{"type":"summary_text","text":"h","signature":""},{"type":"summary_text","text":"m"}]}]"#,
        r#""content":[{"type":"reasoning","text":"hm"}]"#,
        r#""content":[{"type":"reasoning","reasoning":"hm"}]"#,
        r#""content":[{"type":"thinking","thinking":["h",{"text":"m"}],"signature":"s"}]"#,
        r#""content":{"type":"thinking","thinking":"hm"}"#,
        r#""reasoning":[{"type":"text","text":"h"},{"text":"m"}]"#,
        r#""reasoning":{"content":"hm"}"#,
        r#""reasoning":{"type":"summary","summary":[{"text":"hm"}]}"#,
        r#""reasoning_content":[{"text":"hm"}],"reasoning":"not this""#,
        r#""thinking":"hm""#,
        r#""thinking":{"content":"hm","signature":"s"}"#,
        r#""thinking":[{"thinking":"hm"}]"#,
        r#""thinking":"hm","thinking_blocks":[{"type":"thinking","thinking":"hm","signature":"s"}]"#,
        r#""thinking_blocks":[{"type":"thinking","thinking":"hm"}]"#,
        r#""cot_summary":"hm","cot_id":"c""#,
        r#""thinking_content":"hm""#,
        r#""reasoning_summary":"hm""#,
        r#""thought":"hm""#,
        r#""provider_specific_fields":{"reasoning_content":"hm"}"#,
        r#""provider_specific_fields":{"thinking_blocks":[{"type":"thinking","thinking":"hm"}]}"#,
        r#""reasoning_content":"hm","provider_specific_fields":{"reasoning_content":"hm"}"#,
        r#""reasoning_details":[{"type":"reasoning.text","text":"h"},{"type":"reasoning.summary","summary":"m"}]"#,
    ] {
        let expected = ExpectedTranscript { reasoning: "hm", ..expected_text("hi") };
        check(OpenaiChat, &stream(&[&delta(members), HI]), &expected);
        let members = members.replace(r#""content":"#, r#""also":1,"content":"#);
        let document = format!(r#"{{"choices":[{{"index":0,"message":{{{members}}},"finish_reason":"stop"}}]}}"#);
        check_document(&document, &ExpectedTranscript { reasoning: "hm", ..expected_text("") });
    }
    let marked =
        delta(r#""content":"hi","thought":true,"extra_content":{"google":{"thought":true,"thought_signature":"s"}}"#);
    check(OpenaiChat, &stream(&[&marked]), &expected_text("hi"));
    for empty in [r#""thinking":"""#, r#""thinking":null"#, r#""reasoning":{}"#, r#""reasoning":[]"#, r#""thinking":7"#]
    {
        check(OpenaiChat, &stream(&[&delta(empty), HI]), &expected_text("hi"));
    }
    let refusal = delta(r#""content":[{"type":"refusal","refusal":"no"},{"type":"output_text","text":"hi"}]"#);
    check(OpenaiChat, &stream(&[&refusal]), &ExpectedTranscript { refusal: "no", ..expected_text("hi") });
    let part = delta(r#""content":{"type":"text","text":"hi"}"#);
    check(OpenaiChat, &stream(&[&part]), &expected_text("hi"));
}

#[test]
fn members_that_say_success_are_no_error() {
    for chunk in [
        r#"{"type":"status","message":"searching"}"#,
        r#"{"type":"progress","message":"step 2 of 3","status":"running"}"#,
        r#"{"code":0,"message":"Success","sid":"s","choices":[]}"#,
        r#"{"code":"0","msg":"ok","data":null}"#,
        r#"{"code":200,"message":"fine"}"#,
        r#"{"error":{"message":"","type":"","param":"","code":null}}"#,
        r#"{"error":{"code":0,"message":"success"},"choices":[]}"#,
        r#"{"error_code":0,"error_msg":""}"#,
        r#"{"base_resp":{"status_code":0,"status_msg":"success"},"choices":[]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":""}}],"error":{"message":"","code":""},"base_resp":{"status_code":0}}"#,
        r#"{"choices":[{"index":0,"delta":{},"error":{"message":"","code":0}}]}"#,
        // A code that suggests an error, but the answer follows.
        r#"{"code":1001,"message":"queued"}"#,
        r#"{"status":"error","message":"first try failed"}"#,
    ] {
        check(OpenaiChat, &stream(&[chunk, HI]), &expected_text("hi"));
        check(
            OpenaiChat,
            &stream(&[chunk, chunk, r#"{"choices":[{"index":0,"delta":{"content":[{"text":"hi"}]}}]}"#]),
            &expected_text("hi"),
        );
    }
    for member in [
        r#""error":{"message":"","type":"","param":"","code":null}"#,
        r#""base_resp":{"status_code":0,"status_msg":""}"#,
        r#""code":0,"message":"Success""#,
        r#""error":"","error_msg":"ok","detail":null"#,
    ] {
        let document =
            format!(r#"{{"choices":[{{"index":0,"message":{{"content":"hi"}},"finish_reason":"stop"}}],{member}}}"#);
        check_document(&document, &expected_text("hi"));
    }
}

#[test]
fn errors_in_members_of_other_names_are_read() {
    for (json, error) in [
        (
            r#"{"id":"","choices":null,"model":"","usage":{"total_tokens":0},"base_resp":{"status_code":1008,"status_msg":"m"}}"#,
            (None, Some("1008"), "m"),
        ),
        (r#"{"base_resp":{"status_code":2013,"status_msg":"m"}}"#, (None, Some("2013"), "m")),
        (r#"{"error_code":17,"error_msg":"m"}"#, (None, Some("17"), "m")),
        (r#"{"errcode":7,"errmsg":"m"}"#, (None, Some("7"), "m")),
        (r#"{"code":500,"msg":"m","success":false}"#, (None, Some("500"), "m")),
        (r#"{"code":10013,"message":"m","sid":"s"}"#, (None, Some("10013"), "m")),
        (r#"{"errors":[{"code":10000,"message":"m"}],"success":false}"#, (None, Some("10000"), "m")),
        (r#"{"error":{"code":"c","msg":"m"}}"#, (None, Some("c"), "m")),
    ] {
        let usage = json.contains("usage").then_some((0, 0));
        let failed = ExpectedTranscript { error: Some(error), usage, ..ExpectedTranscript::default() };
        check_document(json, &failed);
        check(OpenaiChat, &events(&[HI, json]), &ExpectedTranscript { text: "hi", ..failed });
    }
    let reported = r#"{"base_resp":{"status_code":1008,"status_msg":"m"}}"#;
    check_end_is_held_back(OpenaiChat, &events(&[HI, reported]), "\"m\"");
    // A suggested error is replaced by a reported one.
    let body = events(&[r#"{"code":7,"message":"n"}"#, r#"{"error":{"message":"m"}}"#]);
    let failed = ExpectedTranscript { error: Some((None, None, "m")), ..ExpectedTranscript::default() };
    check(OpenaiChat, &body, &failed);
}

#[test]
fn lines_without_blank_lines_are_events() {
    let first = r#"{"id":"r","choices":[{"index":0,"delta":{"content":"h"}}]}"#;
    let second = r#"{"choices":[{"index":0,"delta":{"content":"i"}}]}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let expected = ExpectedTranscript { id: Some("r"), usage: Some((3, 1)), ..expected_text("hi") };
    for end in ["\n", "\r\n", "\r"] {
        for space in ["", " "] {
            for done in [format!("data:{space}[DONE]{end}"), format!("data:{space}[DONE]"), String::new()] {
                let lines = [first, second, STOP, usage].map(|data| format!("data:{space}{data}{end}")).concat();
                check(OpenaiChat, &(lines + &done), &expected);
            }
        }
    }
    // Comments and names between the lines, and a blank line in between.
    let named = format!(
        ": c\nevent: a\ndata: {first}\nevent: b\nid: 1\ndata: {second}\n\ndata: {STOP}\ndata: {usage}\ndata: [DONE]\n"
    );
    check(OpenaiChat, &named, &expected);
    let lines = format!("data: {first}\ndata: {second}\ndata: [DONE]\n");
    check_end_is_held_back(OpenaiChat, &lines, "[DONE]");
    let failed = format!("data: {first}\nerror: {{\"error\":{{\"message\":\"m\"}}}}\ndata: [DONE]\n");
    check(
        OpenaiChat,
        &failed,
        &ExpectedTranscript {
            text: "h",
            id: Some("r"),
            error: Some((None, None, "m")),
            ..ExpectedTranscript::default()
        },
    );
    // One value in several lines is still one event.
    let (one, two) = second.split_at(second.find("[{").unwrap());
    check(
        OpenaiChat,
        &format!("data: {first}\n\ndata: {one}\ndata: {two}\n\ndata: {STOP}\n\n"),
        &ExpectedTranscript { id: Some("r"), ..expected_text("hi") },
    );
}

#[test]
fn usage_of_several_events_is_merged() {
    let counted = |prompt: &str, completion: &str| {
        format!(r#"{{"choices":[],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion}}}}}"#)
    };
    let usage = |usage| ExpectedTranscript { usage: Some(usage), ..expected_text("hi") };
    for (later, expected) in [("0", (10, 4)), ("null", (10, 4)), ("9", (9, 9))] {
        let body = events(&[HI, &counted("10", "4"), STOP, &counted(later, later), "[DONE]"]);
        check(OpenaiChat, &body, &usage(expected));
    }
    // A place that takes precedence, with nothing but zeros.
    let groq = r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":5,"completion_tokens":6}}}"#;
    for chunks in [[groq, &counted("0", "0")], [&counted("0", "0"), groq]] {
        check(OpenaiChat, &stream(&[HI, chunks[0], chunks[1]]), &usage((5, 6)));
    }
    let document = r#"{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_audio_seconds":7,"prompt_tokens":10,"total_tokens":389,"completion_tokens":4}}"#;
    check_document(document, &ExpectedTranscript { notes: &["usage_does_not_add_up"], ..usage((10, 4)) });
}

/// A stream that falls back to another model names both: the one that answers is recorded.
#[test]
fn the_model_that_answers_is_recorded() {
    let chunk = |model: &str, text: &str| {
        format!(r#"{{"id":"r","model":"{model}","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#)
    };
    let usage = r#"{"model":"asked","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let announced = r#"{"id":"r","model":"served","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    let [first, second] = [chunk("asked", "h"), chunk("served", "i")];
    let expected = ExpectedTranscript { id: Some("r"), model: Some("served"), ..expected_text("hi") };
    check(OpenaiChat, &stream(&[&first, &second]), &expected);
    check(OpenaiChat, &stream(&[&first, announced, r#"{"choices":[{"index":0,"delta":{"content":"i"}}]}"#]), &expected);
    // The last chunk, without a choice, has the name that the client sent.
    check(
        OpenaiChat,
        &events(&[&first, &second, STOP, usage, "[DONE]"]),
        &ExpectedTranscript { usage: Some((3, 1)), ..expected },
    );
}

#[test]
fn a_last_chunk_that_repeats_the_answer_twice_does_not_double_it() {
    let last = r#"{"choices":[{"index":0,"delta":{"content":"hi there"},"message":{"role":"assistant","content":"hi there"},"finish_reason":"stop"}]}"#;
    check(
        OpenaiChat,
        &stream(&[HI, r#"{"choices":[{"index":0,"delta":{"content":" there"}}]}"#, last]),
        &expected_text("hi there"),
    );
    // A delta that says the same again, beside a message that has both.
    let again = r#"{"choices":[{"index":0,"delta":{"content":"hi"},"message":{"content":"hihi"}}]}"#;
    check(OpenaiChat, &stream(&[HI, again]), &expected_text("hihi"));
}
