//! The content of an answer that is still arriving, in pieces: a reader says how much it has, and gets what follows.

use serde::{Deserialize, Serialize};
use shared::event::ToolCall;

use crate::response::transcript::Transcript;

/// The maximum size of the texts of one piece, in bytes. Written as JSON, a piece fits into a message of the broker.
const MAX_PIECE_BYTES: usize = 128 << 10;

/// The amount of an answer that a reader has, in bytes of UTF-8.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The length of the reasoning text.
    pub reasoning: usize,
    /// The length of the text.
    pub text: usize,
    /// The length of the refusal.
    pub refusal: usize,
    /// The lengths of the arguments of each tool call that the reader knows.
    pub arguments: Vec<usize>,
}

/// A piece of an answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Piece {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reasoning: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    refusal: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallPiece>,
}

/// A piece of a tool call: the first one names the call.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
struct CallPiece {
    index: usize,
    id: String,
    name: String,
    arguments: String,
}

impl Piece {
    /// Returns the piece of the transcript that follows what the reader has, of bounded size.
    pub fn after(have: &Lengths, transcript: &Transcript) -> Self {
        let mut room = MAX_PIECE_BYTES;
        let reasoning = rest(&transcript.reasoning, have.reasoning, &mut room);
        let text = rest(&transcript.text, have.text, &mut room);
        let refusal = rest(&transcript.refusal, have.refusal, &mut room);
        let mut tool_calls = Vec::new();
        for (index, call) in transcript.tool_calls.iter().enumerate() {
            // The name has not arrived yet.
            if call.name.is_empty() || room == 0 {
                break;
            }
            let known = have.arguments.get(index).copied();
            let arguments = rest(&call.arguments, known.unwrap_or(0), &mut room);
            if known.is_none() || !arguments.is_empty() {
                tool_calls.push(CallPiece { index, id: call.id.clone(), name: call.name.clone(), arguments });
            }
        }
        Self { reasoning, text, refusal, tool_calls }
    }

    /// Appends the piece to what the reader has.
    pub fn append_to(self, transcript: &mut Transcript) {
        transcript.reasoning.push_str(&self.reasoning);
        transcript.text.push_str(&self.text);
        transcript.refusal.push_str(&self.refusal);
        for piece in self.tool_calls {
            match transcript.tool_calls.get_mut(piece.index) {
                Some(call) => call.arguments.push_str(&piece.arguments),
                None => {
                    transcript.tool_calls.push(ToolCall { id: piece.id, name: piece.name, arguments: piece.arguments });
                }
            }
        }
    }

    /// Returns true if the piece has nothing.
    pub fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.text.is_empty() && self.refusal.is_empty() && self.tool_calls.is_empty()
    }
}

impl Lengths {
    /// Returns the lengths of the texts of a transcript.
    pub fn of(transcript: &Transcript) -> Self {
        Self {
            reasoning: transcript.reasoning.len(),
            text: transcript.text.len(),
            refusal: transcript.refusal.len(),
            arguments: transcript.tool_calls.iter().map(|call| call.arguments.len()).collect(),
        }
    }
}

/// The text from a position on, as much as there is room for. Nothing, if the position is not in the text.
fn rest(text: &str, from: usize, room: &mut usize) -> String {
    let rest = text.get(from..).unwrap_or("");
    let rest = &rest[..rest.floor_char_boundary(*room)];
    *room -= rest.len();
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: format!("id-{name}"), name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn a_reader_gets_what_follows() {
        let mut transcript = Transcript::default();
        transcript.text = "héllo".into();
        transcript.tool_calls.extend([call("a", "{\"x\""), call("", "{")]);
        let first = Piece::after(&Lengths::default(), &transcript);
        assert_eq!((first.text.as_str(), first.tool_calls.len()), ("héllo", 1), "a call is told when it has a name");
        let have = Lengths { text: 6, arguments: vec![4], ..Lengths::default() };
        assert!(Piece::after(&have, &transcript).is_empty());
        transcript.tool_calls[0].arguments.push_str(":1}");
        transcript.tool_calls[1].name = "b".into();
        let next = Piece::after(&have, &transcript);
        let told: Vec<_> = next.tool_calls.iter().map(|call| (call.index, call.arguments.as_str())).collect();
        assert_eq!(told, [(0, ":1}"), (1, "{")]);
        assert!(Piece::after(&Lengths { text: 2, ..have }, &transcript).text.is_empty(), "within a character");
    }

    #[test]
    fn a_long_answer_comes_in_bounded_pieces() {
        let (mut transcript, mut read, mut pieces) = (Transcript::default(), Transcript::default(), 0);
        (transcript.reasoning, transcript.text) = ("é".repeat(100_000), "x".repeat(100_000));
        transcript.tool_calls.push(call("a", &"y".repeat(100_000)));
        while Lengths::of(&read) != Lengths::of(&transcript) {
            let piece = Piece::after(&Lengths::of(&read), &transcript);
            let size = piece.reasoning.len() + piece.text.len();
            assert!(size <= MAX_PIECE_BYTES && !piece.is_empty());
            piece.append_to(&mut read);
            pieces += 1;
        }
        assert_eq!(pieces, 4);
        assert_eq!((&read.reasoning, &read.text), (&transcript.reasoning, &transcript.text));
        assert_eq!(read.tool_calls, transcript.tool_calls);
    }
}
