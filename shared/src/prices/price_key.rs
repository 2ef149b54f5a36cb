//! The price keys of the catalogue's format: the units in which providers name prices.

/// Declares the price keys with their names in a price list, and the number of counted units that one price pays for.
macro_rules! price_keys {
    ($($key:ident = $name:literal per $per:literal,)*) => {
        /// A unit in which a provider names a price, such as dollars per million input tokens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names are those of the price list's format")]
        pub enum PriceKey {
            $($key,)*
        }

        impl PriceKey {
            /// All price keys.
            pub const ALL: &[Self] = &[$(Self::$key,)*];

            /// Returns the name in a price list.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$key => $name,)*
                }
            }

            /// Returns the number of counted units for which one price is paid: tokens, pieces, pages, characters or milliseconds.
            pub fn per(self) -> u64 {
                match self {
                    $(Self::$key => $per,)*
                }
            }
        }
    };
}

price_keys! {
    Input = "input_mtok" per 1_000_000,
    InputText = "input_text_mtok" per 1_000_000,
    InputAudio = "input_audio_mtok" per 1_000_000,
    InputImage = "input_image_mtok" per 1_000_000,
    InputVideo = "input_video_mtok" per 1_000_000,
    CacheRead = "cache_read_mtok" per 1_000_000,
    CacheAudioRead = "cache_audio_read_mtok" per 1_000_000,
    CacheImageRead = "cache_image_read_mtok" per 1_000_000,
    CacheVideoRead = "cache_video_read_mtok" per 1_000_000,
    CacheWrite = "cache_write_mtok" per 1_000_000,
    CacheWrite5m = "cache_write_5m_mtok" per 1_000_000,
    CacheWrite1h = "cache_write_1h_mtok" per 1_000_000,
    Output = "output_mtok" per 1_000_000,
    OutputText = "output_text_mtok" per 1_000_000,
    OutputAudio = "output_audio_mtok" per 1_000_000,
    OutputImage = "output_image_mtok" per 1_000_000,
    OutputVideo = "output_video_mtok" per 1_000_000,
    OutputReasoning = "output_reasoning_mtok" per 1_000_000,
    OutputCitation = "output_citation_mtok" per 1_000_000,
    WebSearches = "web_searches_kcount" per 1_000,
    StorageSearches = "storage_searches_kcount" per 1_000,
    Requests = "requests_kcount" per 1_000,
    AudioHours = "audio_hours" per 3_600_000,
    InputAudioHours = "input_audio_hours" per 3_600_000,
    InputDocumentPages = "input_document_kpages" per 1_000,
    InputAnnotatedDocumentPages = "input_annotated_document_kpages" per 1_000,
    InputCharacters = "input_mchars" per 1_000_000,
    InputTextMessages = "input_text_messages_kcount" per 1_000,
}

impl PriceKey {
    /// Returns the key with the given name in a price list, or `None` if this build does not know the name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.name() == name)
    }

    /// Returns the key without which a list must not name this key: the price of all input or output tokens.
    pub fn required(self) -> Option<Self> {
        match self {
            Self::InputText
            | Self::InputAudio
            | Self::InputImage
            | Self::InputVideo
            | Self::CacheRead
            | Self::CacheAudioRead
            | Self::CacheImageRead
            | Self::CacheVideoRead
            | Self::CacheWrite
            | Self::CacheWrite5m
            | Self::CacheWrite1h => Some(Self::Input),
            Self::OutputText
            | Self::OutputAudio
            | Self::OutputImage
            | Self::OutputVideo
            | Self::OutputReasoning
            | Self::OutputCitation => Some(Self::Output),
            _ => None,
        }
    }
}
