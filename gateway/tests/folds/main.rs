//! What must hold of every fold and of the reader of event streams, on answers put together at random from what providers send,
//! from what they should not, and from noise.

mod pools;
mod properties;

use gateway::response::dialect::Fold;
use gateway::response::tap::{Expected, Tap, UsageChunk};
use pools::Pool;
use proptest::prelude::*;
use shared::event::DialectName;

/// Data lines, framed in any of the ways that there are, some of them damaged, with noise between them.
fn answer(pool: &'static Pool) -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select([pool.plain, pool.odd].concat());
    let damaged = (known.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(data, place, byte)| {
        let mut bytes = data.as_bytes().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
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
    let after = prop::sample::select(vec!["\n\n", "\r\n\r\n", "\r\r", "\n", "\r\n", ""]);
    let event =
        (before, data, after).prop_map(|(before, data, after)| [before.as_bytes(), &data, after.as_bytes()].concat());
    prop::collection::vec(event, 0..12).prop_map(|events| events.concat())
}

/// What was said by the time that a stream of plain events breaks off, at any byte, is a beginning of what it says.
fn breaks_off(dialect: DialectName, stream: &str, place: usize) -> Result<(), TestCaseError> {
    let said = |body: &[u8]| {
        let mut tap = Tap::new(Fold::new(dialect), Expected::Answer, UsageChunk::Passes);
        tap.feed(bytes::Bytes::copy_from_slice(body));
        tap.finish();
        tap.take_transcript().0
    };
    let (whole, part) = (said(stream.as_bytes()), said(&stream.as_bytes()[..place]));
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
                fn whatever_comes_it_holds(body in answer(&$pool), sizes in prop::collection::vec(1..80_usize, 1..20)) {
                    properties::hold_of_a_fold($dialect, &body, &sizes);
                    properties::hold_of_the_reader(&body, &sizes);
                }

                #[test]
                fn what_breaks_off_has_said_a_beginning(
                    data in prop::collection::vec(prop::sample::select($pool.plain.to_vec()), 0..12),
                    place in any::<prop::sample::Index>(),
                ) {
                    let stream: String = $pool.start.iter().chain(&data).map(|data| format!("data: {data}\n\n")).collect();
                    breaks_off($dialect, &stream, place.index(stream.len() + 1))?;
                }
            }
        }
    };
}

properties!(openai_chat, DialectName::OpenaiChat, pools::OPENAI_CHAT);
properties!(openai_responses, DialectName::OpenaiResponses, pools::OPENAI_RESPONSES);
properties!(anthropic_messages, DialectName::AnthropicMessages, pools::ANTHROPIC_MESSAGES);
