//! Words of open sets: a field takes one of the listed words, or a word that a later version of the software has added.

use std::fmt;
use std::str::FromStr;

/// The maximum length of a word, in bytes.
pub const MAX_BYTES: usize = 32;

/// A word that this build does not list: 1 to 32 lower-case letters, digits and underscores.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word {
    /// The bytes of the word, filled up with zeros.
    bytes: [u8; MAX_BYTES],
    length: u8,
}

/// The error for a text that is not a word.
#[derive(Debug, thiserror::Error)]
#[error("expected a word of 1 to 32 lower-case letters, digits and underscores")]
pub struct InvalidWord;

impl Word {
    /// Returns the word as text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.length)).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl FromStr for Word {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if text.is_empty() || text.len() > MAX_BYTES || !text.bytes().all(is_plain) {
            return Err(InvalidWord);
        }
        let mut bytes = [0; MAX_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length: u8::try_from(text.len()).map_err(|_| InvalidWord)? })
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Returns the JSON Schema of an open set: the listed words with their descriptions, or any other word.
#[cfg(feature = "schema")]
pub(crate) fn schema(description: &[&str], words: &[(&str, &[&str])]) -> schemars::Schema {
    let text = |lines: &[&str]| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n");
    let listed = words.iter().map(
        |(word, description)| serde_json::json!({"description": text(description), "type": "string", "const": word}),
    );
    let other = serde_json::json!({
        "description": "A word of a later version. Readers must accept words that they do not know.",
        "type": "string",
        "pattern": format!("^[a-z0-9_]{{1,{MAX_BYTES}}}$"),
    });
    let choices: Vec<_> = listed.chain([other]).collect();
    schemars::json_schema!({"description": text(description), "anyOf": choices})
}

/// Declares an enum of an open set of words. In JSON and in columns, a value is its word; the variant `Other` keeps a word that
/// is not listed, so that a later version can add words without a new version of an event.
macro_rules! open_words {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $variant_doc])+ $variant,)+
            /// A word that this build does not list.
            Other($crate::word::Word),
        }

        impl $name {
            /// The words that this build lists, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// Returns the word.
            pub fn as_str(&self) -> &str {
                match self {
                    Self::Other(word) => word.as_str(),
                    listed => listed.label(),
                }
            }

            /// Returns the word for a label of a metric: `other` for every word that this build does not list, so that the
            /// number of labels is bounded.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(_) => "other",
                }
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::word::InvalidWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    other => other.parse().map(Self::Other),
                }
            }
        }

        /// The order of the words as text, which does not depend on the list of words.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> ::std::cmp::Ordering {
                self.as_str().cmp(other.as_str())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<::std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = ::std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }

        #[cfg(feature = "schema")]
        impl ::schemars::JsonSchema for $name {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut ::schemars::generate::SchemaGenerator) -> ::schemars::Schema {
                $crate::word::schema(&[$($doc,)+], &[$(($word, &[$($variant_doc,)+]),)+])
            }
        }
    };
}
pub(crate) use open_words;

#[cfg(test)]
mod tests {
    use crate::event::DialectName;

    #[test]
    fn a_listed_word_is_its_variant_and_any_other_word_is_kept() {
        for word in DialectName::WORDS {
            let dialect: DialectName = word.parse().unwrap();
            assert!(!matches!(dialect, DialectName::Other(_)), "{word}");
            assert_eq!((dialect.as_str(), dialect.label()), (*word, *word));
        }
        let later: DialectName = serde_json::from_str("\"a_dialect_of_2031\"").unwrap();
        assert_eq!((later.as_str(), later.label()), ("a_dialect_of_2031", "other"));
        assert_eq!(serde_json::to_string(&later).unwrap(), "\"a_dialect_of_2031\"");
        assert_eq!("x".repeat(32).parse::<DialectName>().unwrap().as_str(), "x".repeat(32));
    }

    #[test]
    fn a_text_that_is_not_a_word_is_refused() {
        for text in ["", "Upper", "two words", "a-b", "ü", "a\u{0}", &"x".repeat(33)] {
            assert!(text.parse::<DialectName>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<DialectName>("7").is_err());
    }
}
