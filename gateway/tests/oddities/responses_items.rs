//! Output items of the Responses dialect: their kinds, and the ways in which imitations name items and deliver content.

use proptest::prelude::*;
use shared::event::DialectName::OpenaiResponses;

use super::{ExpectedTranscript, check, check_end_is_held_back, compare, events, run_tap};

const CREATED: &str =
    r#"{"type":"response.created","response":{"id":"r","model":"m","status":"in_progress","output":[]}}"#;
const EMPTY: &str = r#"{"type":"response.completed","response":{"id":"r","status":"completed","output":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#;

fn expected() -> ExpectedTranscript {
    ExpectedTranscript {
        finish_reason: Some("completed"),
        id: Some("r"),
        model: Some("m"),
        usage: Some((3, 1)),
        ..ExpectedTranscript::default()
    }
}

fn with_content() -> ExpectedTranscript {
    ExpectedTranscript { notes: &["final_output_empty"], ..expected() }
}

/// The expected transcript of a response that breaks off.
fn broken() -> ExpectedTranscript {
    ExpectedTranscript { finish_reason: None, usage: None, ..expected() }
}

fn document(items: &str) -> String {
    format!(
        r#"{{"id":"r","model":"m","status":"completed","output":[{items}],"usage":{{"input_tokens":3,"output_tokens":1}}}}"#
    )
}

/// Checks an item as a document, as the final output of a stream, and as events of a stream without a final output.
fn check_item(item: &str, calls: &'static [(&'static str, &'static str, &'static str)], server_tool_calls: u64) {
    let expected = ExpectedTranscript { calls, server_tool_calls, ..expected() };
    let document = document(item);
    let output = run_tap(OpenaiResponses, &[document.as_bytes()]);
    compare(&expected, &output.transcript, &output.usage, &document);
    let completed = format!(r#"{{"type":"response.completed","response":{document}}}"#);
    let added = format!(r#"{{"type":"response.output_item.added","output_index":0,"item":{item}}}"#);
    let done = format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#);
    check(OpenaiResponses, &events(&[CREATED, &added, &done, &completed]), &expected);
    let has_content = !calls.is_empty() || server_tool_calls > 0;
    let notes: &'static [&'static str] = if has_content { &["final_output_empty"] } else { &[] };
    check(OpenaiResponses, &events(&[CREATED, &added, &done, EMPTY]), &ExpectedTranscript { notes, ..expected });
}

#[test]
fn calls_that_the_client_acts_on_are_recorded_with_their_arguments() {
    check_item(
        r#"{"type":"mcp_approval_request","id":"ap","server_label":"s","name":"pay","arguments":"{\"sum\":5}"}"#,
        &[("ap", "pay", "{\"sum\":5}")],
        0,
    );
    check_item(
        r#"{"type":"local_shell_call","id":"ls","call_id":"c","action":{"type":"exec","command":["pwd"]}}"#,
        &[("c", "local_shell_call", r#"{"type":"exec","command":["pwd"]}"#)],
        0,
    );
    check_item(
        r#"{"type":"shell_call","id":"s","call_id":"c","action":{"commands":["pwd"]},"environment":{"type":"local"}}"#,
        &[("c", "shell_call", r#"{"commands":["pwd"]}"#)],
        0,
    );
    check_item(
        r#"{"type":"shell_call","id":"s","call_id":"c","action":{"commands":["pwd"]},"environment":null}"#,
        &[("c", "shell_call", r#"{"commands":["pwd"]}"#)],
        0,
    );
    check_item(
        r#"{"type":"computer_call","id":"cu","call_id":"c","action":{"type":"wait"},"pending_safety_checks":[]}"#,
        &[("c", "computer_call", r#"{"type":"wait"}"#)],
        0,
    );
    check_item(
        r#"{"type":"computer_call","id":"cu","call_id":"c","action":null,"actions":[{"type":"wait"},{"type":"screenshot"}]}"#,
        &[("c", "computer_call", r#"[{"type":"wait"},{"type":"screenshot"}]"#)],
        0,
    );
    check_item(
        r#"{"type":"apply_patch_call","id":"ap","call_id":"c","operation":{"type":"create_file","path":"x","diff":"+y"}}"#,
        &[("c", "apply_patch_call", r#"{"type":"create_file","path":"x","diff":"+y"}"#)],
        0,
    );
    check_item(
        r#"{"type":"tool_search_call","id":"t","call_id":"c","execution":"client","arguments":{"goal":"g"}}"#,
        &[("c", "tool_search_call", r#"{"goal":"g"}"#)],
        0,
    );
    check_item(
        r#"{"type":"custom_tool_call","id":"t","call_id":"c","name":"grammar","input":"a b"}"#,
        &[("c", "grammar", "a b")],
        0,
    );
    check_item(
        r#"{"type":"function_call","id":"t","call_id":"c","name":"f","namespace":"n","arguments":"{}","caller":{"type":"program","caller_id":"p"}}"#,
        &[("c", "f", "{}")],
        0,
    );
}

#[test]
fn calls_of_the_provider_are_counted_and_other_items_are_not() {
    for server_call in [
        r#"{"type":"web_search_call","id":"i","action":{"type":"search","query":"q"}}"#,
        r#"{"type":"file_search_call","id":"i","queries":["q"]}"#,
        r#"{"type":"code_interpreter_call","id":"i","code":"1"}"#,
        r#"{"type":"image_generation_call","id":"i","result":"QUJD"}"#,
        r#"{"type":"mcp_call","id":"i","name":"f","arguments":"{}","output":"o"}"#,
        r#"{"type":"tool_search_call","id":"i","call_id":null,"execution":"server","arguments":{}}"#,
        r#"{"type":"shell_call","id":"i","call_id":"c","action":{"commands":["pwd"]},"environment":{"type":"container_reference","container_id":"k"}}"#,
        r#"{"type":"program","id":"i","call_id":"c","code":"1","fingerprint":"f"}"#,
        r#"{"type":"multi_agent_call","id":"i","call_id":"c","action":"spawn_agent","arguments":"{}"}"#,
        r#"{"type":"unheard_of_call","id":"i"}"#,
    ] {
        check_item(server_call, &[], 1);
    }
    for no_call in [
        r#"{"type":"mcp_list_tools","id":"i","tools":[]}"#,
        r#"{"type":"mcp_approval_response","id":"i","approve":true}"#,
        r#"{"type":"tool_search_output","id":"i","call_id":"c","tools":[]}"#,
        r#"{"type":"function_call_output","id":"i","call_id":"c","output":"o"}"#,
        r#"{"type":"custom_tool_call_output","id":"i","call_id":"c","output":"o"}"#,
        r#"{"type":"computer_call_output","id":"i","call_id":"c","output":{}}"#,
        r#"{"type":"local_shell_call_output","id":"i","output":"o"}"#,
        r#"{"type":"shell_call_output","id":"i","call_id":"c","output":[]}"#,
        r#"{"type":"apply_patch_call_output","id":"i","call_id":"c"}"#,
        r#"{"type":"program_output","id":"i","call_id":"c","result":"1"}"#,
        r#"{"type":"multi_agent_call_output","id":"i","call_id":"c","output":[]}"#,
        r#"{"type":"additional_tools","id":"i","tools":[]}"#,
        r#"{"type":"agent_message","id":"i","content":[{"type":"text","text":"not for the client"}]}"#,
        r#"{"type":"compaction","id":"i","encrypted_content":"QUJD"}"#,
        r#"{"type":"compaction_trigger"}"#,
        "{}",
    ] {
        check_item(no_call, &[], 0);
    }
    // An output has the call id of its call, and stays apart from the call.
    let pair = document(
        r#"{"type":"tool_search_call","id":"i","call_id":"c","execution":"server"},{"type":"tool_search_output","id":"o","call_id":"c"}"#,
    );
    assert_eq!(run_tap(OpenaiResponses, &[pair.as_bytes()]).transcript.server_tool_calls, 1);
}

#[test]
fn items_are_told_apart_without_output_indexes() {
    let added = |id: &str, name: &str| {
        format!(
            r#"{{"type":"response.output_item.added",INDEX"item":{{"type":"function_call",{id},"name":"{name}","arguments":""}}}}"#
        )
    };
    let delta = |id: &str, delta: &str| {
        format!(r#"{{"type":"response.function_call_arguments.delta",INDEX"item_id":"{id}","delta":"{delta}"}}"#)
    };
    let done = |id: &str, arguments: &str| {
        format!(
            r#"{{"type":"response.output_item.done",INDEX"item":{{"type":"function_call",{id},"arguments":"{arguments}"}}}}"#
        )
    };
    let two = [("a", "f", "{\"x\":1}"), ("b", "g", "{\"y\":2}")];
    // The ids are call ids, item ids, or both.
    for (first, second, in_deltas) in [
        (r#""call_id":"a""#, r#""call_id":"b""#, ["a", "b"]),
        (r#""id":"a""#, r#""id":"b""#, ["a", "b"]),
        (r#""id":"i","call_id":"a""#, r#""id":"k","call_id":"b""#, ["i", "k"]),
        // The item ids come in the deltas for the first time.
        (r#""call_id":"a""#, r#""call_id":"b""#, ["i", "k"]),
    ] {
        for index in ["", r#""output_index":0,"#, r#""output_index":null,"#] {
            if index.contains('0') && in_deltas == ["i", "k"] && !first.contains("\"id\"") {
                continue;
            }
            let [i, k] = in_deltas;
            let list = [
                CREATED.to_owned(),
                added(first, "f"),
                added(second, "g"),
                delta(i, "{\\\"x\\\":"),
                delta(k, "{\\\"y\\\":"),
                delta(i, "1}"),
                delta(k, "2}"),
                done(first, "{\\\"x\\\":1}"),
                done(second, "{\\\"y\\\":2}"),
            ];
            let list: Vec<String> = list.iter().map(|event| event.replace("INDEX", index)).collect();
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            let output = run_tap(OpenaiResponses, &[events(&list).as_bytes()]);
            let calls: Vec<_> = output
                .transcript
                .tool_calls
                .iter()
                .map(|call| (call.id.as_str(), call.name.as_str(), call.arguments.as_str()))
                .collect();
            assert_eq!(calls, two, "ids {first} {second} {in_deltas:?}, index {index:?}");
        }
    }
}

#[test]
fn an_item_whose_id_changes_stays_one_item() {
    let list = [
        CREATED,
        r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"1","summary":[]}}"#,
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"item_id":"2","summary_index":0,"delta":"hm"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","id":"3","summary":[{"type":"summary_text","text":"hm"}]}}"#,
        r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"message","id":"4","content":[]}}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"item_id":"5","content_index":0,"delta":"h"}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"item_id":"6","content_index":0,"delta":"i"}"#,
        r#"{"type":"response.output_text.done","output_index":1,"item_id":"7","content_index":0,"text":"hi"}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"message","id":"8","content":[{"type":"output_text","text":"hi"}]}}"#,
        r#"{"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","id":"9","call_id":"c","name":"f","arguments":""}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":2,"item_id":"10","delta":"{}"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":2,"item_id":"11","arguments":"{}"}"#,
        r#"{"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","id":"12","call_id":"c","name":"f","arguments":"{}"}}"#,
        EMPTY,
    ];
    let expected = ExpectedTranscript { text: "hi", reasoning: "hm", calls: &[("c", "f", "{}")], ..with_content() };
    check(OpenaiResponses, &events(&list), &expected);
    // The same, with one output index for all items.
    let flat = list.map(|event| event.replace("\"output_index\":1", "\"output_index\":0"));
    let flat = flat.map(|event| event.replace("\"output_index\":2", "\"output_index\":0"));
    check(OpenaiResponses, &events(&flat.each_ref().map(String::as_str)), &expected);
}

#[test]
fn content_of_the_events_that_end_a_part_is_read() {
    let done = |kind: &str, content: &str| format!(r#"{{"type":"response.{kind}.done","output_index":0,{content}}}"#);
    let text = done("output_text", r#""content_index":0,"item_id":"i","text":"hi""#);
    check(OpenaiResponses, &events(&[CREATED, &text, EMPTY]), &ExpectedTranscript { text: "hi", ..with_content() });
    let part = done("content_part", r#""content_index":0,"part":{"type":"output_text","text":"hi"}"#);
    for repeated in [vec![CREATED, &part, EMPTY], vec![CREATED, &text, &part, &part, EMPTY]] {
        check(OpenaiResponses, &events(&repeated), &ExpectedTranscript { text: "hi", ..with_content() });
    }
    let refusal = done("refusal", r#""content_index":0,"refusal":"no""#);
    check(
        OpenaiResponses,
        &events(&[CREATED, &refusal, EMPTY]),
        &ExpectedTranscript { refusal: "no", ..with_content() },
    );
    for reasoning in [
        done("reasoning_summary_text", r#""summary_index":0,"text":"hm""#),
        done("reasoning_summary_part", r#""summary_index":0,"part":{"type":"summary_text","text":"hm"}"#),
        done("reasoning_text", r#""content_index":0,"text":"hm""#),
        done("reasoning_part", r#""content_index":0,"part":{"type":"reasoning_text","text":"hm"}"#),
    ] {
        let expected = ExpectedTranscript { reasoning: "hm", ..with_content() };
        let output = run_tap(OpenaiResponses, &[events(&[CREATED, &reasoning, EMPTY]).as_bytes()]);
        assert_eq!(output.transcript.reasoning, expected.reasoning, "{reasoning}");
    }
    let arguments = done("function_call_arguments", r#""item_id":"i","name":"f","arguments":"{}""#);
    check(
        OpenaiResponses,
        &events(&[CREATED, &arguments, EMPTY]),
        &ExpectedTranscript { calls: &[("", "f", "{}")], ..with_content() },
    );
    let input = done("custom_tool_call_input", r#""item_id":"i","input":"a b""#);
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"custom_tool_call","id":"i","call_id":"c","name":"g","input":""}}"#;
    check(
        OpenaiResponses,
        &events(&[CREATED, added, &input, EMPTY]),
        &ExpectedTranscript { calls: &[("c", "g", "a b")], ..with_content() },
    );
}

#[test]
fn content_of_an_opening_event_is_read_if_nothing_else_has_it() {
    let message = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"i","content":[{"type":"output_text","text":"hi"}]}}"#;
    let call = r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","id":"k","call_id":"c","name":"f","arguments":"{}"}}"#;
    let expected = ExpectedTranscript { text: "hi", calls: &[("c", "f", "{}")], ..with_content() };
    check(OpenaiResponses, &events(&[CREATED, message, call, EMPTY]), &expected);
    let delta =
        r#"{"type":"response.output_text.delta","output_index":0,"item_id":"i","content_index":0,"delta":"hi"}"#;
    check(OpenaiResponses, &events(&[CREATED, message, delta, call, EMPTY]), &expected);
    // In a response that breaks off, the opening event may have had a mere beginning.
    check(
        OpenaiResponses,
        &events(&[CREATED, message, call]),
        &ExpectedTranscript { calls: &[("c", "f", "")], ..broken() },
    );
}

#[test]
fn audio_transcripts_are_read() {
    for name in ["audio.transcript", "audio_transcript", "output_audio_transcript"] {
        let [first, second] =
            ["he", "llo"].map(|delta| format!(r#"{{"type":"response.{name}.delta","delta":"{delta}"}}"#));
        let done = format!(r#"{{"type":"response.{name}.done"}}"#);
        let list = [CREATED, &first, &second, &done, EMPTY];
        check(OpenaiResponses, &events(&list), &ExpectedTranscript { audio: "hello", ..with_content() });
        let whole = format!(r#"{{"type":"response.{name}.done","transcript":"hello"}}"#);
        let item = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"i","content":[{"type":"output_audio","data":"QUJD","transcript":"hello"}]}}"#;
        for list in [vec![CREATED, &whole, item, EMPTY], vec![CREATED, &first, &second, &whole, item, EMPTY]] {
            check(OpenaiResponses, &events(&list), &ExpectedTranscript { audio: "hello", ..with_content() });
        }
    }
}

#[test]
fn response_done_is_an_end() {
    let delta = r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"hi"}"#;
    let done = EMPTY.replace("response.completed", "response.done");
    let expected = ExpectedTranscript { text: "hi", ..with_content() };
    check(OpenaiResponses, &events(&[CREATED, delta, &done]), &expected);
    check_end_is_held_back(OpenaiResponses, &events(&[CREATED, delta, &done]), "response.done");
    let bare = events(&[CREATED, delta, r#"{"type":"response.done"}"#]);
    check(OpenaiResponses, &bare, &ExpectedTranscript { notes: &[], ..ExpectedTranscript { text: "hi", ..broken() } });
    assert!(run_tap(OpenaiResponses, &[bare.as_bytes()]).transcript.is_ended);
}

#[test]
fn content_that_the_final_output_lacks_is_kept() {
    let list = [
        CREATED,
        r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"hi"}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}}"#,
        r#"{"type":"response.completed","response":{"id":"r","status":"completed","output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]}],"usage":{"input_tokens":3,"output_tokens":1}}}"#,
    ];
    let expected = ExpectedTranscript {
        text: "hi",
        reasoning: "hm",
        calls: &[("c", "f", "{}")],
        notes: &["final_output_incomplete"],
        ..expected()
    };
    let output = run_tap(OpenaiResponses, &[events(&list).as_bytes()]);
    compare(&expected, &output.transcript, &output.usage, "a final output with reasoning alone");
}

#[test]
fn content_outside_of_parts_is_read() {
    for items in [
        r#"{"type":"message","content":"hi"}"#,
        r#"{"role":"assistant","content":[{"type":"output_text","text":"hi"}]}"#,
        r#"{"type":"output_text","text":"hi"}"#,
        r#"{"type":"message","content":[{"text":"hi"}]}"#,
    ] {
        let document = document(items);
        let output = run_tap(OpenaiResponses, &[document.as_bytes()]);
        compare(&ExpectedTranscript { text: "hi", ..expected() }, &output.transcript, &output.usage, &document);
    }
    for items in [r#"{"type":"reasoning","summary":"hm"}"#, r#"{"type":"reasoning","content":"hm"}"#] {
        let document = document(items);
        let output = run_tap(OpenaiResponses, &[document.as_bytes()]);
        compare(&ExpectedTranscript { reasoning: "hm", ..expected() }, &output.transcript, &output.usage, &document);
    }
    let text_alone = document("").replace(r#""output":[]"#, r#""output":[],"output_text":"hi""#);
    let output = run_tap(OpenaiResponses, &[text_alone.as_bytes()]);
    compare(&ExpectedTranscript { text: "hi", ..expected() }, &output.transcript, &output.usage, &text_alone);
}

proptest! {
    /// Calls whose events are interleaved at random keep their arguments apart, whichever ids and indexes name them.
    #[test]
    fn interleaved_calls_stay_apart(
        order in prop::collection::vec(0..4_usize, 0..40),
        index in prop::sample::select(vec!["", "\"output_index\":0,", "\"output_index\":#,"]),
        id in prop::sample::select(vec!["\"call_id\":\"c#\"", "\"id\":\"c#\"", "\"id\":\"i#\",\"call_id\":\"c#\""]),
    ) {
        let number = |template: &str, call: usize| template.replace('#', &call.to_string());
        let in_delta = if id.contains("i#") { "i#" } else { "c#" };
        let mut list = vec![CREATED.to_owned()];
        let mut arguments = [const { String::new() }; 4];
        for call in 0..4 {
            list.push(number(&format!(r#"{{"type":"response.output_item.added",{index}"item":{{"type":"function_call",{id},"name":"f#"}}}}"#), call));
        }
        for (place, call) in order.iter().enumerate() {
            arguments[*call] += &format!("{place},");
            list.push(number(&format!(r#"{{"type":"response.function_call_arguments.delta",{index}"item_id":"{in_delta}","delta":"{place},"}}"#), *call));
        }
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let transcript = run_tap(OpenaiResponses, &[events(&list).as_bytes()]).transcript;
        prop_assert_eq!(transcript.tool_calls.len(), 4);
        for (call, recorded) in transcript.tool_calls.iter().enumerate() {
            prop_assert_eq!(&recorded.arguments, &arguments[call]);
            prop_assert_eq!(&recorded.id, &format!("c{call}"));
        }
    }
}
