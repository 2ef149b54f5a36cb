//! The wire formats in which clients send requests.

use crate::word::open_words;

open_words! {
    /// The wire format of a request and its answer. Readers must accept words that they do not know.
    pub enum DialectName {
        /// OpenAI chat completions.
        OpenaiChat = "openai_chat",
        /// OpenAI responses.
        OpenaiResponses = "openai_responses",
        /// Anthropic messages.
        AnthropicMessages = "anthropic_messages",
        /// Google Gemini: `generateContent` and the other methods of a model.
        GoogleGemini = "google_gemini",
        /// The other endpoints of OpenAI's API, such as embeddings, images and audio.
        Openai = "openai",
    }
}
