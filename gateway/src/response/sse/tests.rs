//! Tests of the parser of server-sent events.

use proptest::prelude::*;

use super::*;

fn read(chunks: &[&[u8]]) -> Vec<(String, String)> {
    let mut reader = SseParser::default();
    let mut events = Vec::new();
    let mut on_event = |event: SseEvent<'_>| {
        if let Some(data) = event.data {
            events.push((event.name.to_owned(), String::from_utf8_lossy(data).into_owned()));
        }
        ControlFlow::Continue(())
    };
    for chunk in chunks {
        reader.feed(chunk, &mut on_event);
    }
    reader.finish(&mut on_event);
    events
}

fn check(stream: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(n, d)| ((*n).to_owned(), (*d).to_owned())).collect();
    assert_eq!(read(&[stream.as_bytes()]), expected, "whole: {stream:?}");
    let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
    assert_eq!(read(&bytes), expected, "byte by byte: {stream:?}");
}

#[test]
fn events_are_read_by_the_whatwg_algorithm() {
    check("data: a\n\ndata:b\n\n", &[("", "a"), ("", "b")]);
    check("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &[("", "a"), ("", "b"), ("", "c")]);
    check("\u{feff}data: a\n\n", &[("", "a")]);
    check("\n\n: comment\n\nid: 7\nretry: 10\nevent: x\ndata: 1\ndata: 2\n\n", &[("x", "1\n2")]);
    check("data\n\nevent: lonely\n\n", &[("", "")]);
    check("data:  two spaces\n\n", &[("", " two spaces")]);
}

#[test]
fn some_violations_of_the_algorithm_are_read_too() {
    check("data: no blank line\n", &[("", "no blank line")]);
    check("data: no line end", &[("", "no line end")]);
    check("data: a\n\ndata: [DONE]", &[("", "a"), ("", "[DONE]")]);
    check("data: a\n\ndata: [DONE] \n\n", &[("", "a"), ("", "[DONE]")]);
    check("data:  [DONE]\t\r\n\r\n", &[("", "[DONE]")]);
    check("error: {\"code\":500}\n\n", &[("error", "{\"code\":500}")]);
}

#[test]
fn done_is_reported_before_its_blank_line_with_its_span() {
    let mut reader = SseParser::default();
    let mut spans = Vec::new();
    reader.feed(b"data: x\n\ndata: [DONE]", |event| {
        spans.push(event.span);
        ControlFlow::Continue(())
    });
    assert_eq!(spans, [0..9, 9..21]);
}

#[test]
fn an_event_that_is_too_long_is_skipped_and_the_next_is_read() {
    let long = format!("data: {}\n\ndata: ok\n\n", "x ".repeat(MAX_EVENT_BYTES));
    let chunks: Vec<&[u8]> = long.as_bytes().chunks(100_000).collect();
    assert_eq!(read(&chunks), [(String::new(), "ok".to_owned())]);
    assert_eq!(read(&[long.as_bytes()]), [(String::new(), "ok".to_owned())]);
}

#[test]
fn long_base64_in_an_event_is_shortened() {
    let long = format!("data: {{\"x\":\"{}\"}}\n\ndata: ok\n\n", "x".repeat(MAX_EVENT_BYTES));
    for size in [1_000, 100_000, long.len()] {
        let chunks: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
        let events = read(&chunks);
        assert_eq!(events.len(), 2, "in chunks of {size}");
        let data = &events[0].1;
        let is_shortened = data.len() < 100_000 && data.starts_with("{\"x\":\"xx") && data.ends_with("x\"}");
        assert!(is_shortened, "in chunks of {size}");
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events(
        text in "(data: [a-zé\\[\\]DONE]{0,6}|event: x|: c|error: e|\n|\r|\r\n|\n\n){0,30}",
        cuts in proptest::collection::vec(0..200_usize, 0..12),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(&bytes[from..cut]);
            from = cut;
        }
        chunks.push(&bytes[from..]);
        // Only a line that begins with [DONE] depends on the cut, on purpose.
        prop_assume!(!text.contains("data: [DONE]"));
        prop_assert_eq!(read(&chunks), read(&[bytes]));
    }

    #[test]
    fn never_panics(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10)) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let _ = read(&chunks);
    }
}
