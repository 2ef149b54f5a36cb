//! Property tests of all folds and of the SSE parser. The responses are random combinations of valid events, invalid
//! events and noise.

mod partial_arguments;
mod pools;
mod properties;
mod usage;

use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use pools::Pool;
use proptest::prelude::*;
use shared::event::DialectName;

/// Generates a body: events with any framing, some of them damaged, with noise in between.
fn answer(pool: &'static Pool) -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select([pool.plain, pool.odd].concat());
    let damaged = (known.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(data, cut_at, byte)| {
        let mut bytes = data.as_bytes().to_vec();
        let cut_at = cut_at.index(bytes.len());
        bytes[cut_at] = byte;
        bytes
    });
    let noise = prop::collection::vec(any::<u8>(), 0..30);
    let data = prop_oneof![8 => known.prop_map(|data| data.as_bytes().to_vec()), 2 => damaged, 1 => noise];
    let before = prop::sample::select(vec![
        "data: ",
        "data:",
        "event: x\ndata: ",
        ": c\ndata: ",
        "\u{feff}data: ",
        "error: ",
        "",
    ]);
    let next_byte = prop::sample::select(vec!["\n\n", "\r\n\r\n", "\r\r", "\n", "\r\n", ""]);
    let event = (before, data, next_byte)
        .prop_map(|(before, data, next_byte)| [before.as_bytes(), &data, next_byte.as_bytes()].concat());
    prop::collection::vec(event, 0..12).prop_map(|events| events.concat())
}

/// Checks that the transcript of a stream cut off at any byte is a prefix of the transcript of the whole stream.
fn check_truncated(dialect: DialectName, stream: &str, cut_at: usize) -> Result<(), TestCaseError> {
    let transcript_of = |body: &[u8]| {
        let mut tap = Tap::new(Fold::new(dialect), ExpectedBody::Answer, UsageChunkPolicy::Forward);
        tap.feed(bytes::Bytes::copy_from_slice(body));
        tap.finish();
        tap.take_transcript().0
    };
    let (whole, part) = (transcript_of(stream.as_bytes()), transcript_of(&stream.as_bytes()[..cut_at]));
    prop_assert!(whole.text.starts_with(&part.text), "{:?} of {:?}", part.text, whole.text);
    prop_assert!(whole.reasoning.starts_with(&part.reasoning), "{:?} of {:?}", part.reasoning, whole.reasoning);
    prop_assert!(part.tool_calls.len() <= whole.tool_calls.len());
    for (part, whole) in part.tool_calls.iter().zip(&whole.tool_calls) {
        prop_assert!(whole.arguments.starts_with(&part.arguments), "{part:?} of {whole:?}");
    }
    Ok(())
}

macro_rules! properties {
    ($module:ident, $dialect:expr, $pool:expr) => {
        mod $module {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn every_property_holds_of_any_answer(body in answer(&$pool), sizes in prop::collection::vec(1..80_usize, 1..20)) {
                    properties::check_fold($dialect, &body, &sizes);
                    properties::check_parser(&body, &sizes);
                }

                #[test]
                fn the_transcript_of_a_truncated_answer_is_a_beginning(
                    data in prop::collection::vec(prop::sample::select($pool.plain.to_vec()), 0..12),
                    cut_at in any::<prop::sample::Index>(),
                ) {
                    let stream: String = $pool.start.iter().chain(&data).map(|data| format!("data: {data}\n\n")).collect();
                    check_truncated($dialect, &stream, cut_at.index(stream.len() + 1))?;
                }
            }
        }
    };
}

properties!(openai_chat, DialectName::OpenaiChat, pools::OPENAI_CHAT);
properties!(openai_responses, DialectName::OpenaiResponses, pools::OPENAI_RESPONSES);
properties!(anthropic_messages, DialectName::AnthropicMessages, pools::ANTHROPIC_MESSAGES);
properties!(google_gemini, DialectName::GoogleGemini, pools::GOOGLE_GEMINI);
