//! The endpoints that are no chats, of OpenAI's API and of Google's, and their members.

use std::borrow::Cow;

use shared::event::{DialectName, Operation};

use crate::request::gemini;

/// An endpoint whose calls are recorded, but are no chats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/completions`.
    Completions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /v1/moderations`.
    Moderations,
    /// `POST /v1/rerank` and `POST /v2/rerank`.
    Rerank,
    /// `POST /v1/images/generations`.
    ImageGenerations,
    /// `POST /v1/images/edits`.
    ImageEdits,
    /// `POST /v1/images/variations`.
    ImageVariations,
    /// `POST /v1/audio/speech`.
    Speech,
    /// `POST /v1/audio/transcriptions`.
    Transcriptions,
    /// `POST /v1/audio/translations`.
    Translations,
    /// `POST /v1/responses/compact`.
    ResponseCompaction,
    /// `POST /v1beta/models/{model}:embedContent`.
    GeminiEmbedding,
    /// `POST /v1beta/models/{model}:batchEmbedContents`.
    GeminiEmbeddings,
}

impl Endpoint {
    /// The operation of the endpoint's calls, as in events.
    pub fn operation(self) -> Operation {
        match self {
            Self::Completions => Operation::TextCompletion,
            Self::Embeddings | Self::GeminiEmbedding | Self::GeminiEmbeddings => Operation::Embeddings,
            Self::Moderations => Operation::Moderation,
            Self::Rerank => Operation::Rerank,
            Self::ImageGenerations => Operation::ImageGeneration,
            Self::ImageEdits => Operation::ImageEdit,
            Self::ImageVariations => Operation::ImageVariation,
            Self::Speech => Operation::Speech,
            Self::Transcriptions => Operation::Transcription,
            Self::Translations => Operation::Translation,
            Self::ResponseCompaction => Operation::ResponseCompaction,
        }
    }

    /// The dialect of the endpoint.
    pub fn dialect(self) -> DialectName {
        match self {
            Self::GeminiEmbedding | Self::GeminiEmbeddings => DialectName::GoogleGemini,
            _ => DialectName::Openai,
        }
    }

    /// The path of the upstream's endpoint for a model, relative to the upstream's base URL.
    pub fn path(self, model: &str) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::GeminiEmbedding => return gemini::path(model, "embedContent").into(),
            Self::GeminiEmbeddings => return gemini::path(model, "batchEmbedContents").into(),
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Moderations => "/moderations",
            Self::Rerank => "/rerank",
            Self::ImageGenerations => "/images/generations",
            Self::ImageEdits => "/images/edits",
            Self::ImageVariations => "/images/variations",
            Self::Speech => "/audio/speech",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
            Self::ResponseCompaction => "/responses/compact",
        })
    }

    /// The name of the member that holds the input, and the kind of value that the member needs. `None` if the input is
    /// only a file.
    pub(super) fn input_member(self) -> Option<(&'static str, InputKind)> {
        match self {
            Self::Completions => Some(("prompt", InputKind::Optional)),
            Self::Embeddings | Self::Moderations => Some(("input", InputKind::TextOrList)),
            Self::Rerank => Some(("documents", InputKind::List)),
            Self::ImageGenerations | Self::ImageEdits => Some(("prompt", InputKind::Text)),
            Self::Speech => Some(("input", InputKind::Text)),
            Self::ResponseCompaction => Some(("input", InputKind::Optional)),
            Self::Transcriptions | Self::Translations => Some(("prompt", InputKind::Optional)),
            Self::GeminiEmbedding => Some(("content", InputKind::Content)),
            Self::GeminiEmbeddings => Some(("requests", InputKind::List)),
            Self::ImageVariations => None,
        }
    }

    /// The model that OpenAI uses for a request without a model. `None` if the endpoint requires a model.
    pub(super) fn default_model(self) -> Option<&'static str> {
        match self {
            Self::Moderations => Some("omni-moderation-latest"),
            Self::ImageGenerations | Self::ImageEdits | Self::ImageVariations => Some("dall-e-2"),
            _ => None,
        }
    }
}

/// The kind of value that the input of an endpoint needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputKind {
    /// Anything, or nothing.
    Optional,
    /// An object with parts, which is one input.
    Content,
    /// A text.
    Text,
    /// A list.
    List,
    /// A text or a list.
    TextOrList,
}
