//! Compares the parser of plain chunks with the general parser: the results must be equal, or the chunk not plain.

use proptest::prelude::*;

use super::super::{ChatCompletionsFold, ContentForm};
use super::PlainChunk;

/// Chunks as sent by providers that must be plain, so that the fast parser is worthwhile.
const PLAIN: [&str; 9] = [
    r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"gpt","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aZ4"}"#,
    r#"{"id":"1","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}]}"#,
    r#"{"id": "gen-1", "created": 1773932873, "choices": [{"index": 0, "delta": {"content": "\u8bb0 a\n", "role": "assistant", "tool_calls": []}, "finish_reason": null, "native_finish_reason": null}]}"#,
    r#"{"choices":[{"delta":{"content":null,"reasoning_content":"héh\"é"},"index":0,"finish_reason":null}],"usage":null,"model":"q","id":"c"}"#,
    r#"{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"list":[1,[true],{}]},"delta":{"content":"x"},"finish_reason":"stop","index":0}]}"#,
    r#"{"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"x_groq":{}}"#,
    r#"{"choices":[{"delta":{"reasoning":"a","reasoning_text":"b","reasoning_details":[]}}],"error":null}"#,
    r#"{"choices":[{"delta":{"content":"","refusal":"no","audio":null,"function_call":null}}]} "#,
    r#"{"choices":[{"delta":{"content":"a","images":[ ],"image":null,"videos":[],"files":{},"audio_content":""}}]}"#,
];

/// Chunks that must be left to the general parser, whatever its result.
const NOT_PLAIN: [&str; 24] = [
    "",
    "{}",
    "[]",
    r#"{"choices":[]}"#,
    r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#,
    r#"{"choices":[{"index":1,"delta":{"content":"a"}}]}"#,
    r#"{"choices":[{"index":00,"delta":{"content":"a"}}]}"#,
    r#"{"choices":[{"delta":{"content":"a","content":"b"}}]}"#,
    r#"{"choices":[{"delta":{"content":"a"}}],"choices":[]}"#,
    r#"{"choices":[{"delta":{"content":["a"]}}]}"#,
    r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#,
    r#"{"choices":[{"delta":{"content":"\x"}}]}"#,
    r#"{"choices":[{"delta":{"content":"a\"}}]}"#,
    r#"{"choices":[{"delta":{"content":"a"},"message":{"content":"b"}}]}"#,
    r#"{"choices":[{"delta":{"content":"a"}}],"usage":{}}"#,
    r#"{"choices":[{"delta":{"content":"a"}}],"error":"x"}"#,
    r#"{"choices":[{"delta":{"content":"a"},"error":{"code":1}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{}]}}]}"#,
    r#"{"choices":[{"delta":{"cont\u0065nt":"a"}}]}"#,
    r#"{"choices":[{"delta":{"content":"a"}}]}}"#,
    r#"{"choices":[{"delta":{"content":"a"},"x":[1.5,-1]}],}"#,
    r#"{"choices":[{"delta":{"content":"","images":[{"type":"image_url"}]}}]}"#,
    r#"{"choices":[{"delta":{"content":"a","images":[],"images":[]}}]}"#,
    r#"{"choices":[{"delta":{"content":"","audio_content":"494433"}}]}"#,
];

/// Folds the chunks with both parsers and compares the states after each chunk.
fn check(chunks: &[&[u8]]) {
    let (mut fold, mut expected_fold) = (ChatCompletionsFold::default(), ChatCompletionsFold::default());
    for json in chunks {
        let disposition = fold.fold_chunk(json, ContentForm::Delta);
        let expected = expected_fold.fold_any_chunk(json, std::str::from_utf8(json).ok(), ContentForm::Delta);
        let json = String::from_utf8_lossy(json);
        assert_eq!(disposition, expected, "{json}");
        assert_eq!(state(&fold), state(&expected_fold), "{json}");
    }
}

/// The state of a fold, apart from the template.
fn state(fold: &ChatCompletionsFold) -> String {
    format!("{:?} {:?} {:?} {:?}", fold.transcript, fold.choice, fold.other_choices, fold.usage_location)
}

#[test]
fn plain_chunks_are_read_and_all_others_are_left() {
    for json in PLAIN {
        assert!(PlainChunk::read(json).is_some(), "{json}");
    }
    for json in NOT_PLAIN {
        assert!(PlainChunk::read(json).is_none(), "{json}");
    }
    check(&PLAIN.map(str::as_bytes));
    check(&NOT_PLAIN.map(str::as_bytes));
}

/// A value in place of a text.
fn text_value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "\"[a-zé記 ]{0,6}\"",
        2 => r#""(a|é|\\n|\\"|\\\\|\\/|\\u00e9|\\u8bb0|\\ud83d|\\ude00|\\ud83d\\ude00|\\x|\\u12){0,4}""#,
        1 => unexpected_value(),
    ]
}

/// A value of an unexpected type.
fn unexpected_value() -> impl Strategy<Value = String> {
    let unexpected_value =
        r#"null true false 0 7 -1 00 1.5 1e3 [] {} [1,"a",[]] {"a":{"b":null}} {"content":"z"} "" nul tru"#;
    let unexpected_value: Vec<String> = unexpected_value.split(' ').map(str::to_owned).collect();
    proptest::sample::select(unexpected_value)
}

/// An object with some of these members in any order, some of them repeated.
fn object(members: Vec<(&'static str, BoxedStrategy<String>)>) -> impl Strategy<Value = String> {
    let member = proptest::strategy::Union::new(
        members.into_iter().map(|(name, value)| value.prop_map(move |value| (name, value)).boxed()),
    );
    let space = || prop_oneof![3 => Just(""), 1 => Just(" ")];
    (proptest::collection::vec(member, 0..6), space(), space()).prop_map(|(members, before, after)| {
        let written: Vec<String> =
            members.iter().map(|(name, value)| format!("{before}\"{name}\":{after}{value}{before}")).collect();
        format!("{{{}}}", written.join(","))
    })
}

fn delta() -> impl Strategy<Value = String> {
    let texts = ["role", "content", "reasoning_content", "reasoning", "reasoning_text", "refusal"];
    let lists = ["reasoning_details", "audio", "tool_calls", "function_call", "other"];
    let texts = texts.map(|name| (name, text_value().boxed()));
    object(texts.into_iter().chain(lists.map(|name| (name, unexpected_value().boxed()))).collect())
}

fn choice() -> impl Strategy<Value = String> {
    let index = prop_oneof![4 => Just("0".to_owned()), 1 => unexpected_value()];
    let delta = || prop_oneof![8 => delta(), 1 => unexpected_value()].boxed();
    object(vec![
        ("index", index.boxed()),
        ("delta", delta()),
        ("delta", delta()),
        ("message", delta()),
        ("finish_reason", text_value().boxed()),
        ("usage", unexpected_value().boxed()),
        ("error", unexpected_value().boxed()),
        ("logprobs", unexpected_value().boxed()),
    ])
}

fn chunk() -> impl Strategy<Value = String> {
    let choices = || {
        let one = choice().prop_map(|choice| format!("[{choice}]"));
        let some = proptest::collection::vec(choice(), 0..3).prop_map(|choices| format!("[{}]", choices.join(",")));
        prop_oneof![8 => one, 1 => some, 1 => unexpected_value()].boxed()
    };
    object(vec![
        ("choices", choices()),
        ("choices", choices()),
        ("choices", choices()),
        ("id", text_value().boxed()),
        ("model", text_value().boxed()),
        ("created", prop_oneof![4 => "[0-9]{1,25}", 1 => unexpected_value()].boxed()),
        ("usage", unexpected_value().boxed()),
        ("error", unexpected_value().boxed()),
        ("x_groq", unexpected_value().boxed()),
    ])
}

/// The contents of a string between quotation marks, valid and invalid.
fn raw_string() -> &'static str {
    r#"([a-zé記 ]|\\n|\\"|\\u8bb0|\\ud83d|\\x|"|\\|\x00|\x1f|","b":"|"\},"y":\{"z":"){0,4}"#
}

/// The range of the first string value from this position on.
fn first_string(chunk: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let begin = from + chunk[from..].find(r#":""#)? + 2;
    Some(begin..begin + chunk[begin..].find('"')?)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn chunks_of_every_kind_are_read_alike(chunks in proptest::collection::vec(chunk(), 1..4)) {
        check(&chunks.iter().map(String::as_bytes).collect::<Vec<_>>());
    }

    #[test]
    fn chunks_that_differ_in_their_strings_are_read_alike(
        sample in 0..PLAIN.len(),
        strings in proptest::collection::vec((raw_string(), raw_string()), 1..6),
    ) {
        let chunk = PLAIN[sample];
        let text_value = chunk.find(r#""delta":"#).and_then(|at| first_string(chunk, at)).unwrap_or(0..0);
        // Another irrelevant string, before or after the text, if the chunk has one.
        let other = [r#""service_tier":"#, r#""obfuscation":"#, r#""severity":"#, r#""object":"#];
        let mut other = other.iter().rev().filter_map(|name| first_string(chunk, chunk.find(name)? + name.len() - 2));
        let other = other.next().unwrap_or(chunk.len()..chunk.len());
        let like_it = |(text_is, other_is): &(String, String)| {
            let mut places = [(text_value.clone(), text_is), (other.clone(), other_is)];
            places.sort_by_key(|(place, _)| place.start);
            let [(first, first_is), (second, second_is)] = places;
            let second_is = if second.is_empty() { "" } else { second_is };
            let between = &chunk[first.end..second.start];
            format!("{}{first_is}{between}{second_is}{}", &chunk[..first.start], &chunk[second.end..])
        };
        // The first chunk is unchanged: the following chunks are compared with its template.
        let chunks: Vec<String> = std::iter::once(chunk.to_owned()).chain(strings.iter().map(like_it)).collect();
        check(&chunks.iter().map(String::as_bytes).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_chunks_are_read_alike(
        sample in 0..PLAIN.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8, prop_oneof![
            proptest::sample::select(br#"{}[]",:\ nul0e.-"#.to_vec()), any::<u8>(),
        ]), 1..3),
    ) {
        let mut json = PLAIN[sample].as_bytes().to_vec();
        for (place, how, byte) in damage {
            let at = place.index(json.len());
            match how {
                0 => json[at] = byte,
                1 => json.insert(at, byte),
                2 => drop(json.remove(at)),
                _ => json.truncate(at.max(1)),
            }
        }
        check(&[&json]);
    }
}
