//! The kinds of calls.

use crate::word::open_words;

open_words! {
    /// The kind of a call, in the words of OpenTelemetry's `gen_ai.operation.name` where it has a word. A chat is `chat` in every
    /// dialect, so OpenTelemetry's `generate_content` is not used. Readers must accept words that they do not know.
    pub enum Operation {
        /// An answer to the messages of a conversation.
        Chat = "chat",
        /// The continuation of a text without roles (`/v1/completions`).
        TextCompletion = "text_completion",
        /// Vectors for texts.
        Embeddings = "embeddings",
        /// A judgement whether inputs are harmful.
        Moderation = "moderation",
        /// Documents in the order of their relevance to a query.
        Rerank = "rerank",
        /// Images from a prompt.
        ImageGeneration = "image_generation",
        /// Images from a prompt and other images.
        ImageEdit = "image_edit",
        /// Images that resemble an image.
        ImageVariation = "image_variation",
        /// Spoken audio from a text.
        Speech = "speech",
        /// The text of spoken audio, in the language of the audio.
        Transcription = "transcription",
        /// The text of spoken audio, in English.
        Translation = "translation",
        /// A shorter form of a conversation (`/v1/responses/compact`).
        ResponseCompaction = "response_compaction",
        /// A request to another endpoint that a route lets pass, such as files and batches.
        PassThrough = "pass_through",
    }
}

impl Operation {
    /// Returns true if the answer of such a call is a message, even if the message is empty. Vectors, images and audio are no messages.
    pub fn answers_with_message(self) -> bool {
        matches!(self, Self::Chat | Self::TextCompletion | Self::Transcription | Self::Translation)
    }
}
