//! Answers in the OpenAI chat completions format, with chunks of a real provider's size and shape. Each chunk carries the due
//! time and the time of sending, so that a receiver can compute the delay.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::load::answer::Answer;

/// The end of a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Text in front of a stamp.
const STAMP_KEY: &[u8] = b"\"system_fingerprint\":\"fp_";

/// Length of a stamp: two times of 16 hexadecimal digits.
const STAMP_LENGTH: usize = 32;

/// Tokens of the answers, repeated in order: words, an escape, text beyond ASCII.
const TOKENS: [&str; 8] = [" the", " stream", " of", "\\n\\n", " tokens", " \u{e9}crit", ",", " \u{8a18}\u{9332}"];

/// Length of a content event in bytes, padded by the member `obfuscation` as a provider's events are.
const PADDED: usize = 300;

/// Due time and time of sending of a chunk, in nanoseconds since the Unix epoch on this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Time of the schedule.
    pub due: u64,
    /// Time of the write.
    pub sent: u64,
}

impl Stamp {
    /// Finds the stamp in an event, if there is one.
    pub fn find(event: &[u8]) -> Option<Self> {
        let at = memchr::memmem::find(event, STAMP_KEY)? + STAMP_KEY.len();
        let digits = std::str::from_utf8(event.get(at..at + STAMP_LENGTH)?).ok()?;
        let (due, sent) = digits.split_at(STAMP_LENGTH / 2);
        Some(Self { due: u64::from_str_radix(due, 16).ok()?, sent: u64::from_str_radix(sent, 16).ok()? })
    }
}

/// Nanoseconds since the Unix epoch, on a clock that all processes of the machine share.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Events of streams, composed except for the stamps.
#[derive(Debug)]
pub struct Events {
    first: Event,
    content: Vec<Event>,
    last: Event,
}

#[derive(Debug)]
struct Event {
    bytes: Vec<u8>,
    stamp_at: usize,
}

impl Events {
    /// Composes the events, once for each connection.
    pub fn new() -> Self {
        Self {
            first: Event::new(r#"{"role":"assistant","content":"","refusal":null}"#, "null", ""),
            content: TOKENS.iter().map(|token| Event::padded(token)).collect(),
            last: Event::new("{}", r#""stop""#, ""),
        }
    }

    /// Chunk `index` of an answer, with a stamp.
    pub fn chunk(&mut self, answer: Answer, index: u32, stamp: Stamp) -> &[u8] {
        let kinds = self.content.len();
        let event = match index {
            0 => &mut self.first,
            _ if index + 1 == answer.chunks => &mut self.last,
            _ => &mut self.content[index as usize % kinds],
        };
        event.stamp(stamp);
        &event.bytes
    }

    /// Number of bytes of an answer's events, without the usage chunk.
    pub fn length(&self, answer: Answer) -> u64 {
        let content = (answer.chunks - 2) as usize * self.content[0].bytes.len();
        (self.first.bytes.len() + content + self.last.bytes.len() + DONE.len()) as u64
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    fn new(delta: &str, finish_reason: &str, padding: &str) -> Self {
        let text = format!(
            r#"data: {{"id":"chatcmpl-BxT4kQ2mPz7LrWn","object":"chat.completion.chunk","created":1790000000,"model":"load-1","system_fingerprint":"fp_{:032}","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}],"obfuscation":"{padding}"}}"#,
            0
        );
        let bytes = format!("{text}\n\n").into_bytes();
        let stamp_at = memchr::memmem::find(&bytes, STAMP_KEY).map_or(0, |at| at + STAMP_KEY.len());
        Self { bytes, stamp_at }
    }

    fn padded(token: &str) -> Self {
        let delta = format!(r#"{{"content":"{token}"}}"#);
        let short = PADDED.saturating_sub(Self::new(&delta, "null", "").bytes.len());
        Self::new(&delta, "null", &"aZ4kQ9xT".repeat(short / 8 + 1)[..short])
    }

    fn stamp(&mut self, stamp: Stamp) {
        for (time, at) in [(stamp.due, self.stamp_at), (stamp.sent, self.stamp_at + STAMP_LENGTH / 2)] {
            for (digit, place) in self.bytes[at..at + STAMP_LENGTH / 2].iter_mut().rev().enumerate() {
                *place = b"0123456789abcdef"[(time >> (4 * digit)) as usize & 15];
            }
        }
    }
}

/// The chunk with the usage at the end of a stream.
pub fn usage_event(answer: Answer) -> Vec<u8> {
    let usage = usage(answer);
    format!(
        r#"data: {{"id":"chatcmpl-BxT4kQ2mPz7LrWn","object":"chat.completion.chunk","created":1790000000,"model":"load-1","choices":[],"usage":{usage}}}"#
    )
    .into_bytes()
    .into_iter()
    .chain(*b"\n\n")
    .collect()
}

/// JSON body of the same answer.
pub fn whole(answer: Answer) -> Vec<u8> {
    let text: String = (1..answer.chunks - 1).map(|index| TOKENS[index as usize % TOKENS.len()]).collect();
    let usage = usage(answer);
    format!(
        r#"{{"id":"chatcmpl-BxT4kQ2mPz7LrWn","object":"chat.completion","created":1790000000,"model":"load-1","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{usage}}}"#
    )
    .into_bytes()
}

fn usage(answer: Answer) -> String {
    let (prompt, completion) = (42, answer.chunks);
    let total = prompt + completion;
    format!(
        r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::answer::Writes;

    #[test]
    fn events_are_json_of_the_length_that_is_expected() {
        let mut events = Events::new();
        let answer = Answer::short(20, Writes::Each);
        let stamp = Stamp { due: 1_790_000_000_123_456_789, sent: u64::MAX };
        let mut length = DONE.len();
        for index in 0..answer.chunks {
            let event = events.chunk(answer, index, stamp);
            length += event.len();
            assert!((1..19).contains(&index) == (event.len() == PADDED), "only content is padded");
            assert_eq!(Stamp::find(event), Some(stamp));
            let text = std::str::from_utf8(event).unwrap();
            let json = text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).unwrap();
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            let finished = json["choices"][0]["finish_reason"] == "stop";
            assert_eq!(finished, index == 19);
        }
        assert_eq!(length as u64, events.length(answer));
        assert!(serde_json::from_slice::<serde_json::Value>(&whole(answer)).is_ok());
        let usage = usage_event(answer);
        assert!(serde_json::from_slice::<serde_json::Value>(&usage[6..]).is_ok());
    }
}
