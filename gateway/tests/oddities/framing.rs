//! Event streams, whatever is in them: line ends, comments, marks, pieces.

use shared::event::DialectName::{AnthropicMessages, OpenaiChat, OpenaiResponses};

use super::{Told, check, check_bytes};

const HI: &str = r#"{"choices":[{"index":0,"delta":{"content":"hé\u0301 😀"},"finish_reason":"stop"}]}"#;

fn told() -> Told {
    Told { text: "hé\u{301} 😀", finish: Some("stop"), ..Told::default() }
}

#[test]
fn line_ends_of_all_kinds() {
    for end in ["\n", "\r\n", "\r"] {
        check(OpenaiChat, &format!("data: {HI}{end}{end}data: [DONE]{end}{end}"), &told());
        check(OpenaiChat, &format!("{end}{end}{end}data: {HI}{end}{end}{end}{end}data: [DONE]{end}{end}"), &told());
    }
}

#[test]
fn comments_marks_and_fields_that_mean_nothing() {
    for before in
        ["\u{feff}", ": OPENROUTER PROCESSING\n\n", ":\n\n", "id: 7\nretry: 3000\n", "event: chunk\n", "nonsense\n\n"]
    {
        check(OpenaiChat, &format!("{before}data: {HI}\n\ndata: [DONE]\n\n"), &told());
    }
    let within = format!("data: {HI}\n: comment within\nid: 1\n\n: and between\n\ndata: [DONE]\n\n");
    check(OpenaiChat, &within, &told());
}

#[test]
fn data_in_several_lines_and_without_a_space() {
    let (one, two) = HI.split_at(HI.find("\"delta\"").unwrap());
    check(OpenaiChat, &format!("data: {one}\ndata:{two}\n\ndata:[DONE]\n\n"), &told());
}

#[test]
fn ends_of_all_kinds() {
    for end in ["", "data: [DONE]", "data: [DONE]\n", "data: [DONE]\n\n\n", "data:  [DONE]\t\n\n", ": bye\n\n"] {
        check(OpenaiChat, &format!("data: {HI}\n\n{end}"), &told());
    }
    for end in ["", "\n"] {
        check(OpenaiChat, &format!("data: {HI}{end}"), &told());
    }
}

#[test]
fn the_end_with_spaces_around_it_is_the_end() {
    for end in ["data: [DONE] \n\n", "data: [DONE] \r\n\r\n", "data:\t[DONE]\t\n", "data:   [DONE] ", "data: [DONE] \n"]
    {
        let body = format!("data: {HI}\n\n{end}");
        check(OpenaiChat, &body, &told());
        super::check_end_waits(OpenaiChat, &body, "[DONE]");
    }
}

#[test]
fn bytes_that_are_no_text() {
    let mut body = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec();
    body.extend_from_slice(format!("data: {HI}\n\n").as_bytes());
    check_bytes(OpenaiChat, &body, &Told { text: "\u{fffd}hé\u{301} 😀", notes: &["text_mended"], ..told() });
    let cut = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xf0\x9f\n\ndata: [DONE]\n\n";
    check_bytes(OpenaiChat, cut, &Told { notes: &["unreadable_chunk"], ..Told::default() });
}

#[test]
fn what_is_no_event_stream_at_all() {
    for dialect in [OpenaiChat, OpenaiResponses, AnthropicMessages] {
        check(dialect, "Hello there.\nThis is no event stream", &Told::default());
        check(dialect, "", &Told::default());
        check(dialect, "\n \n", &Told::default());
    }
}

#[test]
fn what_comes_first_may_be_cut_anywhere() {
    for before in ["\u{feff}", "\n\u{feff}", " \r\n", "\u{feff}\n\n"] {
        let body = format!("{before}data: {HI}\n\ndata: [DONE]\n\n");
        for place in 0..=before.len() + 1 {
            let (one, other) = body.as_bytes().split_at(place);
            let tapped = super::tap(OpenaiChat, &[one, other]);
            assert!(tapped.passed == body.as_bytes(), "cut at {place}, other bytes passed: {body:?}");
            assert_eq!(tapped.transcript.text, told().text, "cut at {place}: {body:?}");
        }
    }
}
