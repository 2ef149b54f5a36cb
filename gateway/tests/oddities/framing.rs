//! Variants in the framing of event streams: line ends, comments, byte order marks, cuts.

use shared::event::DialectName::{AnthropicMessages, OpenaiChat, OpenaiResponses};

use super::{ExpectedTranscript, check, check_bytes};

const HI: &str = r#"{"choices":[{"index":0,"delta":{"content":"hé\u0301 😀"},"finish_reason":"stop"}]}"#;

fn expected_text() -> ExpectedTranscript {
    ExpectedTranscript { text: "hé\u{301} 😀", finish_reason: Some("stop"), ..ExpectedTranscript::default() }
}

#[test]
fn line_ends_of_all_kinds_are_read() {
    for end in ["\n", "\r\n", "\r"] {
        check(OpenaiChat, &format!("data: {HI}{end}{end}data: [DONE]{end}{end}"), &expected_text());
        check(
            OpenaiChat,
            &format!("{end}{end}{end}data: {HI}{end}{end}{end}{end}data: [DONE]{end}{end}"),
            &expected_text(),
        );
    }
}

#[test]
fn comments_byte_order_marks_and_other_fields_are_skipped() {
    for before in
        ["\u{feff}", ": OPENROUTER PROCESSING\n\n", ":\n\n", "id: 7\nretry: 3000\n", "event: chunk\n", "nonsense\n\n"]
    {
        check(OpenaiChat, &format!("{before}data: {HI}\n\ndata: [DONE]\n\n"), &expected_text());
    }
    let within = format!("data: {HI}\n: comment within\nid: 1\n\n: and between\n\ndata: [DONE]\n\n");
    check(OpenaiChat, &within, &expected_text());
}

#[test]
fn data_in_several_lines_or_without_a_space_is_read() {
    let (one, two) = HI.split_at(HI.find("\"delta\"").unwrap());
    check(OpenaiChat, &format!("data: {one}\ndata:{two}\n\ndata:[DONE]\n\n"), &expected_text());
}

#[test]
fn ends_of_all_kinds_are_recognized() {
    for end in ["", "data: [DONE]", "data: [DONE]\n", "data: [DONE]\n\n\n", "data:  [DONE]\t\n\n", ": bye\n\n"] {
        check(OpenaiChat, &format!("data: {HI}\n\n{end}"), &expected_text());
    }
    for end in ["", "\n"] {
        check(OpenaiChat, &format!("data: {HI}{end}"), &expected_text());
    }
}

#[test]
fn the_end_with_spaces_around_it_is_the_end() {
    for end in ["data: [DONE] \n\n", "data: [DONE] \r\n\r\n", "data:\t[DONE]\t\n", "data:   [DONE] ", "data: [DONE] \n"]
    {
        let body = format!("data: {HI}\n\n{end}");
        check(OpenaiChat, &body, &expected_text());
        super::check_end_is_held_back(OpenaiChat, &body, "[DONE]");
    }
}

#[test]
fn invalid_utf8_is_replaced() {
    let mut body = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec();
    body.extend_from_slice(format!("data: {HI}\n\n").as_bytes());
    check_bytes(
        OpenaiChat,
        &body,
        &ExpectedTranscript { text: "\u{fffd}hé\u{301} 😀", notes: &["text_mended"], ..expected_text() },
    );
    let cut = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xf0\x9f\n\ndata: [DONE]\n\n";
    check_bytes(OpenaiChat, cut, &ExpectedTranscript { notes: &["unreadable_chunk"], ..ExpectedTranscript::default() });
}

#[test]
fn bodies_that_are_no_event_stream_are_forwarded() {
    for dialect in [OpenaiChat, OpenaiResponses, AnthropicMessages] {
        check(dialect, "Hello there.\nThis is no event stream", &ExpectedTranscript::default());
        check(dialect, "", &ExpectedTranscript::default());
        check(dialect, "\n \n", &ExpectedTranscript::default());
    }
}

#[test]
fn the_beginning_may_be_cut_anywhere() {
    for before in ["\u{feff}", "\n\u{feff}", " \r\n", "\u{feff}\n\n"] {
        let body = format!("{before}data: {HI}\n\ndata: [DONE]\n\n");
        for cut_at in 0..=before.len() + 1 {
            let (one, other) = body.as_bytes().split_at(cut_at);
            let output = super::run_tap(OpenaiChat, &[one, other]);
            assert!(
                output.forwarded == body.as_bytes(),
                "cut at {cut_at}, the forwarded bytes differ from the body: {body:?}"
            );
            assert_eq!(output.transcript.text, expected_text().text, "cut at {cut_at}: {body:?}");
        }
    }
}
