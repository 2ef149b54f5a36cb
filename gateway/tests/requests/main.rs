//! Property tests of the readers of requests: requests of every kind, with pieces exchanged, repeated, cut and damaged.

mod properties;

use proptest::prelude::*;

/// Pieces of requests: whole requests, members, values, broken text, and compressed bytes.
const PIECES: [&[u8]; 24] = [
    br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}],"stream_options":{"x":1}}"#,
    br#"{"conversationId":"c","model":"m","messages":[{"role":"user","content":[{"type":"text","text":"cut \ud83d"}]}]}"#,
    b"{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"\xff\"}]}],\"stream\":true}",
    br#"{"model":"m","system":"s","messages":[{"role":"user","content":[{"type":"tool_result","content":"\x41"}]}]}"#,
    br#"{"id":"t","messages":[{"id":"u","role":"user","parts":[{"type":"text","text":"hi \ud83d"}]}]}"#,
    br#"{"id":"t","messages":[{"role":"assistant","parts":[{"type":"tool-x","toolCallId":"c","state":"output-available","input":{"a":1},"output":[2]}]}]}"#,
    br#","model":"n""#,
    br#","Model":"n""#,
    br#""metadata":{"session_id":"s","user_id":"{\"session_id\":\"t\"}"},"#,
    br#""stream":null,"#,
    br#""stream_options":{"include_usage":false},"#,
    br"\ud83d",
    br"\ude00",
    br"\u",
    br"\",
    b"\xf0\x9f",
    b"\xed\xa0\x80",
    "\u{10f822}".as_bytes(),
    "\u{feff}".as_bytes(),
    b"{",
    b"}",
    b"\"",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x03\x00",
    b"\x28\xb5\x2f\xfd\x20\x0d\x69\x00\x00",
];

/// An input: a request with pieces inserted at any place, cut, and with a byte changed.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = || proptest::sample::select(&PIECES[..]);
    let inserted = proptest::collection::vec((any::<proptest::sample::Index>(), piece()), 0..4);
    let change = proptest::option::of((any::<proptest::sample::Index>(), any::<u8>()));
    let cut = proptest::option::weighted(0.1, any::<proptest::sample::Index>());
    (piece(), inserted, change, cut).prop_map(|(first, inserted, change, cut)| {
        let mut input = first.to_vec();
        for (place, piece) in inserted {
            let place = place.index(input.len() + 1);
            input.splice(place..place, piece.iter().copied());
        }
        if let Some((place, byte)) = change {
            let place = place.index(input.len());
            input[place] = byte;
        }
        if let Some(cut) = cut {
            input.truncate(cut.index(input.len()));
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_request_is_refused_or_forwarded_as_checked(input in input(), number in 0_usize..4) {
        properties::check_request(&input, number);
    }

    #[test]
    fn a_request_of_use_chat_is_refused_or_converted(input in input()) {
        properties::check_ui_message(&input);
    }

    #[test]
    fn an_edit_changes_one_member(input in input()) {
        properties::check_json_edit(&input);
    }

    #[test]
    fn any_bytes_are_decoded_within_the_bound(input in input(), number in 0_usize..4) {
        properties::check_body_decoder(&input, number);
    }
}
