//! Lenient JSON types: a value of an unexpected type reads as absent instead of failing the whole document. A provider
//! that sends a number in place of a text therefore costs only that text, not the rest of the chunk. One pass, without
//! an intermediate tree.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A string; `None` for any other type.
#[derive(Debug, Default)]
pub struct Text<'a>(pub Option<Cow<'a, str>>);

/// A non-negative whole number; `None` for any other value. `7.0` and `"7"` read as 7, because some providers write
/// numbers as strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub Option<u64>);

/// A boolean; false for any other value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

/// An object; `None` for any other type.
#[derive(Debug)]
pub struct Object<T>(pub Option<T>);

/// A list; empty for any other type.
#[derive(Debug)]
pub struct List<T>(pub Vec<T>);

/// A string, borrowed from the input if the string has no escapes.
#[derive(Debug, Deserialize)]
pub struct BorrowedText<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The members of an object in their order, with values as sent.
#[derive(Debug, Default)]
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Object<T> {
    /// The object, or the default if the object is absent.
    pub fn unwrap_or_default(self) -> T {
        self.0.unwrap_or_default()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Text<'_> {
    /// The text, or `None` if the text is absent or empty.
    pub fn non_empty(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }
}

impl<'a> Members<'a> {
    /// The value of a member. If the name is repeated, the last value, like most parsers.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(member_name, _)| member_name == name).map(|(_, value)| *value)
    }

    /// Writes an object with these members: pairs of a name and a JSON value.
    pub fn to_json<'m>(members: impl Iterator<Item = (&'m str, &'m str)>) -> String {
        let mut json = String::with_capacity(512);
        json.push('{');
        for (name, value) in members {
            if json.len() > 1 {
                json.push(',');
            }
            if name.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                json.push('"');
                json.push_str(name);
                json.push('"');
            } else {
                json.push_str(&serde_json::Value::from(name).to_string());
            }
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        json
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((BorrowedText(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Visitor methods that read values of unexpected types as the default. Shared by all visitors in this module.
macro_rules! ignore {
    ($($method:ident($type:ty))*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }

        $(fn $method<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        })*

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (seq) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (map) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            ignore!(visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64));
            ignore!(seq);
            ignore!(map);

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl<'de> Visitor<'de> for CountVisitor {
            type Value = Count;
            ignore!(visit_bool(bool));
            ignore!(seq);
            ignore!(map);

            fn visit_str<E>(self, digits: &str) -> Result<Count, E> {
                let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                Ok(Count(digits.parse().ok().filter(|_| is_number)))
            }

            fn visit_u64<E>(self, count: u64) -> Result<Count, E> {
                Ok(Count(Some(count)))
            }

            fn visit_i64<E>(self, count: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(count).ok()))
            }

            fn visit_f64<E>(self, count: f64) -> Result<Count, E> {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked to be a whole number in range"
                )]
                let whole = ((0.0..1e15).contains(&count) && count.fract() == 0.0).then_some(count as u64);
                Ok(Count(whole))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagVisitor;
        impl<'de> Visitor<'de> for FlagVisitor {
            type Value = Flag;
            ignore!(visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str));
            ignore!(seq);
            ignore!(map);

            fn visit_bool<E>(self, flag: bool) -> Result<Flag, E> {
                Ok(Flag(flag))
            }
        }
        deserializer.deserialize_any(FlagVisitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            ignore!(visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str));
            ignore!(seq);

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|object| Object(Some(object)))
            }
        }
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = List<T>;
            ignore!(visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str));
            ignore!(map);

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

/// The value as sent, without white space between tokens.
pub fn compact(raw: &RawValue) -> String {
    let mut compact = String::with_capacity(raw.get().len());
    let mut rest = raw.get();
    while let Some(quote) = rest.find('"') {
        let (before, quoted) = rest.split_at(quote);
        compact.extend(before.split_ascii_whitespace());
        let (string, after) = quoted.split_at(quoted_string_length(quoted.as_bytes()).unwrap_or(quoted.len()));
        compact.push_str(string);
        rest = after;
    }
    compact.extend(rest.split_ascii_whitespace());
    compact
}

/// The length in bytes of the JSON string at the start of `quoted`, including both quotation marks. `None` if the
/// string is not terminated.
pub fn quoted_string_length(quoted: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', quoted.get(at..)?)?;
        match quoted[at] {
            b'"' => return Some(at + 1),
            // The escape is skipped unchecked: the parser of the string validates escapes.
            _ => at += 2,
        }
    }
}

/// Deserializes any value as text: a string as is, other values as JSON. `None` for `null` and for the empty string.
pub fn text_or_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
    .filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample<'a> {
        #[serde(default, borrow)]
        text: Text<'a>,
        #[serde(default)]
        count: Count,
        #[serde(default, borrow)]
        inner: Object<Box<Sample<'a>>>,
        #[serde(default)]
        list: List<Count>,
    }

    #[test]
    fn members_are_written_as_they_were_read() {
        let json = r#"{"model":"m","a \"quoted\" name":1,"back\\slash":[1, 2],"line\n":{"é":null},"":true}"#;
        let members: Members<'_> = serde_json::from_str(json).unwrap();
        let written = Members::to_json(members.0.iter().map(|(name, value)| (name.as_ref(), value.get())));
        assert_eq!(written, json);
    }

    #[test]
    fn values_of_unexpected_types_are_absent_and_the_rest_is_read() {
        for odd in ["null", "true", "-1", "1.5", "[1,[2]]", "{\"a\":{}}"] {
            let json = format!(r#"{{"text":{odd},"count":{odd},"inner":[{odd}],"list":"x","other":{odd}}}"#);
            let sample: Sample<'_> = serde_json::from_str(&json).unwrap();
            assert!(sample.text.0.is_none() && sample.count.0.is_none(), "{odd}");
            assert!(sample.inner.0.is_none() && sample.list.0.is_empty(), "{odd}");
        }
        let sample: Sample<'_> =
            serde_json::from_str(r#"{"text":"a\nb","count":7.0,"inner":{"text":"x"},"list":[1,"2",3]}"#).unwrap();
        assert_eq!(sample.text.non_empty(), Some("a\nb"));
        assert_eq!(sample.count.0, Some(7));
        assert_eq!(sample.inner.0.unwrap().text.non_empty(), Some("x"));
        assert_eq!(sample.list.0, [Count(Some(1)), Count(Some(2)), Count(Some(3))]);
        for odd in ["\"\"", "\"-1\"", "\"+1\"", "\" 1\"", "\"1.5\"", "\"one\"", "\"99999999999999999999\""] {
            assert_eq!(serde_json::from_str::<Count>(odd).unwrap(), Count(None), "{odd}");
        }
    }
}
