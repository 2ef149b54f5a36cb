//! An answer as server-sent events that can be resumed after each event: the stream of `GET /api/chats/{id}/stream`.
//!
//! Pure. The id of an event is the position in the answer after the event: the lengths of its texts, and a hash of the texts up to there. A
//! client that comes back with an id gets what follows. If the answer does not begin with what the client has, as when a provider began
//! anew or when the gateway was lost with the answer, the client is told to forget what it has (`reset`) and gets the whole answer.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::response::answer_piece::Lengths;
use crate::response::transcript::Transcript;

/// The id of the event that ends the stream.
pub const END_ID: &str = "end";

/// The maximum number of tool calls in a position; a transcript has no more.
const MAX_CALLS: usize = 1024;

/// A position in an answer that a client has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    have: Lengths,
    hash: u64,
}

/// The events of one answer to one client.
#[derive(Debug)]
pub struct AnswerEvents {
    /// What the client has.
    sent: Lengths,
    /// The position that the client has told, until the answer has come that far.
    claimed: Option<Position>,
}

/// The end of an answer, as on the record.
#[derive(Clone, Debug, Default)]
pub struct AnswerEnd {
    /// `completed`, `failed` or `orphaned`.
    pub status: String,
    /// The point of failure.
    pub stage: Option<String>,
    /// The error in words.
    pub error: Option<String>,
    /// The reason for the end of the answer.
    pub finish_reason: Option<String>,
    /// True if the record keeps the texts of the chat.
    pub is_kept: bool,
}

impl Position {
    /// Returns the position of a client that has this much of the answer. `None` if the answer is not that long.
    fn of(have: Lengths, answer: &Transcript) -> Option<Self> {
        Some(Self { hash: hash(&have, answer)?, have })
    }

    /// Parses an id. `None` for any other text.
    pub fn parse(id: &str) -> Option<Self> {
        let (lengths, hash) = id.split_once('-')?;
        let mut lengths = lengths.split('.').map(|length| length.parse::<usize>().ok());
        let (reasoning, text, refusal) = (lengths.next()??, lengths.next()??, lengths.next()??);
        let arguments = lengths.take(MAX_CALLS + 1).collect::<Option<Vec<_>>>()?;
        let hash = (hash.len() == 16).then(|| u64::from_str_radix(hash, 16).ok())??;
        (arguments.len() <= MAX_CALLS).then_some(Self { have: Lengths { reasoning, text, refusal, arguments }, hash })
    }

    fn id(&self) -> String {
        let Lengths { reasoning, text, refusal, arguments } = &self.have;
        let mut id = format!("{reasoning}.{text}.{refusal}");
        for length in arguments {
            let _ = write!(id, ".{length}");
        }
        let _ = write!(id, "-{:016x}", self.hash);
        id
    }

    /// Returns true if the answer has come to this position.
    fn is_covered(&self, answer: &Transcript) -> bool {
        let have = Lengths::of(answer);
        let covers_calls = self.have.arguments.iter().zip(&have.arguments).all(|(own, other)| own <= other);
        self.have.reasoning <= have.reasoning
            && self.have.text <= have.text
            && self.have.refusal <= have.refusal
            && self.have.arguments.len() <= have.arguments.len()
            && covers_calls
    }
}

impl AnswerEvents {
    /// Creates the events for a client that has told this position, or none.
    pub fn new(claimed: Option<Position>) -> Self {
        Self { sent: Lengths::default(), claimed }
    }

    /// Emits the event that begins a connection. The event has no id.
    pub fn start(chat: &str, conversation: Option<&str>, message: &str) -> Bytes {
        let data = json!({"chatId": chat, "conversationId": conversation, "messageId": message});
        format!("event: start\ndata: {data}\n\n").into()
    }

    /// Emits what the client does not have yet.
    pub fn advance(&mut self, answer: &Transcript) -> Bytes {
        let mut out = String::new();
        match self.claimed.take() {
            Some(claimed) if !claimed.is_covered(answer) => {
                self.claimed = Some(claimed);
                return Bytes::new();
            }
            Some(claimed) => self.continue_from(claimed, answer, &mut out),
            None => {}
        }
        self.emit(answer, &mut out);
        out.into()
    }

    /// Emits the rest of the recorded answer, and the end. `read` is what [`Self::advance`] was given last. If the record does not
    /// keep texts, the client keeps what it has.
    pub fn finish(&mut self, read: &Transcript, recorded: Option<&Transcript>, end: &AnswerEnd) -> Bytes {
        let mut out = String::new();
        let none = Transcript::default();
        if end.is_kept {
            let answer = recorded.unwrap_or(&none);
            match self.claimed.take() {
                Some(claimed) => self.continue_from(claimed, answer, &mut out),
                None => {
                    let sent = Position::of(self.sent.clone(), read);
                    if sent != Position::of(self.sent.clone(), answer) {
                        self.reset(&mut out);
                    }
                }
            }
            self.emit(answer, &mut out);
        }
        let AnswerEnd { status, stage, error, finish_reason, .. } = end;
        let data = json!({"status": status, "finishReason": finish_reason, "stage": stage, "error": error});
        let _ = write!(out, "id: {END_ID}\nevent: end\ndata: {data}\n\n");
        out.into()
    }

    /// Goes on from a position, or from the start if the answer has another text up to there.
    fn continue_from(&mut self, claimed: Position, answer: &Transcript, out: &mut String) {
        if hash(&claimed.have, answer) == Some(claimed.hash) {
            self.sent = claimed.have;
        } else {
            self.reset(out);
        }
    }

    fn reset(&mut self, out: &mut String) {
        self.sent = Lengths::default();
        out.push_str("event: reset\ndata: {}\n\n");
    }

    fn emit(&mut self, answer: &Transcript, out: &mut String) {
        let reasoning = answer.reasoning.get(self.sent.reasoning..).unwrap_or("");
        self.sent.reasoning += reasoning.len();
        self.text_event(answer, ("reasoning", reasoning), out);
        let text = answer.text.get(self.sent.text..).unwrap_or("");
        self.sent.text += text.len();
        self.text_event(answer, ("text", text), out);
        let refusal = answer.refusal.get(self.sent.refusal..).unwrap_or("");
        self.sent.refusal += refusal.len();
        self.text_event(answer, ("refusal", refusal), out);
        for (index, call) in answer.tool_calls.iter().enumerate() {
            let known = self.sent.arguments.get(index).copied();
            let new = call.arguments.get(known.unwrap_or(0)..).unwrap_or("");
            let mut told = json!({"index": index, "arguments": new});
            match known {
                Some(_) if new.is_empty() => continue,
                Some(_) => self.sent.arguments[index] = call.arguments.len(),
                None => {
                    (told["id"], told["name"]) = (call.id.as_str().into(), call.name.as_str().into());
                    self.sent.arguments.push(call.arguments.len());
                }
            }
            self.event(answer, &json!({"toolCall": told}), out);
        }
    }

    fn text_event(&self, answer: &Transcript, (member, new): (&str, &str), out: &mut String) {
        if !new.is_empty() {
            self.event(answer, &json!({member: new}), out);
        }
    }

    fn event(&self, answer: &Transcript, data: &Value, out: &mut String) {
        if let Some(position) = Position::of(self.sent.clone(), answer) {
            let _ = write!(out, "id: {}\nevent: delta\ndata: {data}\n\n", position.id());
        }
    }
}

/// A hash (FNV-1a) of the texts up to a position. `None` if the position is not in the answer.
fn hash(have: &Lengths, answer: &Transcript) -> Option<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        // No text has this byte, so that texts are told apart.
        for byte in bytes.iter().chain(&[0xFF]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(answer.reasoning.get(..have.reasoning)?.as_bytes());
    add(answer.text.get(..have.text)?.as_bytes());
    add(answer.refusal.get(..have.refusal)?.as_bytes());
    for (index, length) in have.arguments.iter().enumerate() {
        let call = answer.tool_calls.get(index)?;
        add(call.id.as_bytes());
        add(call.name.as_bytes());
        add(call.arguments.get(..*length)?.as_bytes());
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::event::ToolCall;

    use super::*;
    use crate::response::answer_piece::Piece;

    /// A client that keeps what it receives.
    #[derive(Default)]
    struct Client {
        have: Transcript,
        last_id: Option<String>,
        ended: Option<Value>,
    }

    impl Client {
        /// Reads the first events of `stream`, and loses the rest with the connection.
        fn read(&mut self, stream: &[u8], events: usize) {
            let stream = std::str::from_utf8(stream).unwrap();
            for event in stream.split_terminator("\n\n").take(events) {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let data: Value = serde_json::from_str(field("data").unwrap()).unwrap();
                match field("event").unwrap() {
                    "reset" => self.have = Transcript::default(),
                    "end" => self.ended = Some(data),
                    "delta" => {
                        let text = |name: &str| data[name].as_str().unwrap_or_default();
                        self.have.reasoning.push_str(text("reasoning"));
                        self.have.text.push_str(text("text"));
                        self.have.refusal.push_str(text("refusal"));
                        let call = &data["toolCall"];
                        if let Some(name) = call["name"].as_str() {
                            let id = call["id"].as_str().unwrap().to_owned();
                            self.have.tool_calls.push(ToolCall { id, name: name.into(), arguments: String::new() });
                        }
                        if let Some(index) = call["index"].as_u64() {
                            let arguments = call["arguments"].as_str().unwrap();
                            self.have.tool_calls[usize::try_from(index).unwrap()].arguments.push_str(arguments);
                        }
                    }
                    other => panic!("{other}"),
                }
                self.last_id = field("id").map(str::to_owned).or(self.last_id.take());
            }
        }

        fn events(&self) -> AnswerEvents {
            AnswerEvents::new(self.last_id.as_deref().and_then(Position::parse))
        }

        fn assert_has(&self, answer: &Transcript) {
            assert_eq!((&self.have.reasoning, &self.have.text), (&answer.reasoning, &answer.text));
            assert_eq!((&self.have.refusal, &self.have.tool_calls), (&answer.refusal, &answer.tool_calls));
        }
    }

    fn end(status: &str) -> AnswerEnd {
        AnswerEnd { status: status.into(), is_kept: true, ..AnswerEnd::default() }
    }

    #[test]
    fn an_id_is_parsed_as_it_is_written() {
        let mut answer = Transcript::default();
        answer.text = "héllo".into();
        answer.tool_calls.push(ToolCall { id: "c".into(), name: "n".into(), arguments: "{}".into() });
        let position = Position::of(Lengths::of(&answer), &answer).unwrap();
        assert_eq!(Position::parse(&position.id()), Some(position));
        for other in
            ["", "end", "0.0-0", "0.0.0-", "0.0.0-zz00000000000000", "0.-1.0-0000000000000000", "0.0.0", "1.2.3-1"]
        {
            assert_eq!(Position::parse(other), None, "{other}");
        }
        assert_eq!(Position::parse(&format!("0.0.0{}-0000000000000000", ".0".repeat(MAX_CALLS + 1))), None);
    }

    #[test]
    fn an_answer_that_is_not_on_the_record_is_taken_back() {
        let (mut client, mut answer) = (Client::default(), Transcript::default());
        answer.text = "half".into();
        let mut events = client.events();
        client.read(&events.advance(&answer), 1);
        let stream = events.finish(&answer, None, &end("orphaned"));
        client.read(&stream, 9);
        client.assert_has(&Transcript::default());
        assert_eq!(client.ended.unwrap()["status"], "orphaned");
        // A record without texts leaves the client what it has.
        let mut client = Client { have: answer.clone_texts(), last_id: client.last_id.clone(), ended: None };
        let mut events = AnswerEvents::new(None);
        events.advance(&answer);
        client.read(&events.finish(&answer, None, &AnswerEnd { is_kept: false, ..end("completed") }), 9);
        client.assert_has(&answer);
    }

    impl Transcript {
        fn clone_texts(&self) -> Self {
            let mut copy = Self::default();
            (copy.reasoning, copy.text, copy.refusal) =
                (self.reasoning.clone(), self.text.clone(), self.refusal.clone());
            copy.tool_calls = self.tool_calls.clone();
            copy
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Connections that break off after any event, at any progress of the answer, and an answer that may begin anew.
        #[test]
        fn a_client_ends_with_the_recorded_answer(
            steps in proptest::collection::vec((0_u8..6, "[a-zé\n\"]{1,6}", 0_usize..4, any::<bool>()), 1..30),
            began_anew in any::<bool>(),
            at_the_end in any::<bool>(),
        ) {
            let (mut client, mut answer, mut events) = (Client::default(), Transcript::default(), AnswerEvents::new(None));
            // What the server of the connection has read of the answer.
            let mut read = Transcript::default();
            let middle = steps.len() / 2;
            for (number, (part, text, seen, breaks_off)) in steps.iter().enumerate() {
                match part {
                    0 => answer.reasoning.push_str(text),
                    1 | 2 => answer.text.push_str(text),
                    3 => answer.refusal.push_str(text),
                    4 => answer.tool_calls.push(ToolCall { id: text.clone(), name: text.clone(), arguments: String::new() }),
                    _ => if let Some(call) = answer.tool_calls.last_mut() { call.arguments.push_str(text); },
                }
                if began_anew && number == middle {
                    answer.clear_content();
                }
                Piece::after(&Lengths::of(&read), &answer).append_to(&mut read);
                let stream = events.advance(&read);
                if *breaks_off {
                    client.read(&stream, *seen);
                    (events, read) = (client.events(), Transcript::default());
                } else {
                    client.read(&stream, usize::MAX);
                }
            }
            let recorded = answer.clone_texts();
            if at_the_end {
                // The client comes back after the end: nothing was read here.
                events = client.events();
                client.read(&events.finish(&Transcript::default(), Some(&recorded), &end("completed")), usize::MAX);
            } else {
                client.read(&events.finish(&read, Some(&recorded), &end("completed")), usize::MAX);
            }
            client.assert_has(&recorded);
            prop_assert_eq!(&client.ended.unwrap()["status"], "completed");
        }
    }
}
