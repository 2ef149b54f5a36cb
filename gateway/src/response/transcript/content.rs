//! How much content a transcript has.

use super::Transcript;

/// The bytes of text to which one token is taken to correspond.
const BYTES_PER_TOKEN: u64 = 4;

impl Transcript {
    /// True if the response has no content, no finish reason and no output of another kind, whatever has marked its end. A
    /// part that could not be parsed counts as content.
    pub fn is_empty(&self) -> bool {
        !self.has_any_content() && self.finish_reason.is_none() && !self.is_truncated && !self.has_output
    }

    /// True if there is any content, recorded or not.
    pub fn has_any_content(&self) -> bool {
        let mut others = self.other_choices.iter();
        self.has_content() || self.has_unrecorded_content || others.any(|(_, other)| other.has_unrecorded_content)
    }

    /// True if there is any content that is recorded: text, a tool call or another choice.
    pub fn has_content(&self) -> bool {
        let texts = [&self.text, &self.reasoning, &self.refusal, &self.audio_transcript];
        texts.iter().any(|text| !text.is_empty())
            || !self.tool_calls.is_empty()
            || self.server_tool_calls > 0
            || self.other_choices.iter().any(|(_, other)| other.has_content())
    }

    /// Returns the number of tokens that have arrived, estimated: a token for every four bytes, and one for every piece at least.
    pub fn arrived_tokens(&self) -> u64 {
        let own = self.arrived_bytes.div_ceil(BYTES_PER_TOKEN).max(self.arrived_pieces);
        self.other_choices.iter().fold(own, |sum, (_, other)| sum + other.arrived_tokens())
    }
}
