//! JSON values that are read as far as they make sense: a provider that sends a number where text belongs must not cost
//! us the rest of the chunk. One pass, no intermediate tree.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How deep objects are looked into for members that come twice. Nothing that is read lies deeper.
const MOST_DEPTH: u32 = 16;

/// Text, or nothing where there is something else.
#[derive(Debug, Default)]
pub struct Text<'a>(pub Option<Cow<'a, str>>);

/// A whole number that is not negative, or nothing where there is something else. `7.0` is 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub Option<u64>);

/// An object, or nothing where there is something else.
#[derive(Debug)]
pub struct Object<T>(pub Option<T>);

/// A list; nothing where there is something else.
#[derive(Debug)]
pub struct List<T>(pub Vec<T>);

/// The members of an object, in order, their values as sent.
#[derive(Debug, Default)]
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Text<'_> {
    /// The text, if there is any and it is not empty.
    pub fn filled(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }
}

impl<'a> Members<'a> {
    /// The value of a member; of several with the same name, the last, as most parsers have it.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// An object of these members.
    pub fn write<'m>(members: impl Iterator<Item = (&'m str, &'m str)>) -> String {
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
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// What every visitor here does with values that it has no use for.
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
            ignore!(visit_bool(bool) visit_str(&str));
            ignore!(seq);
            ignore!(map);

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

/// A value of a known shape if it has that shape, else nothing.
pub fn shaped<T: DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok().or_else(|| serde_json::from_str(&once_each(json.as_bytes())?).ok())
}

/// JSON that could not be read, such that it can be, and the note that says what was amiss.
pub fn righted(json: &[u8]) -> Option<(String, &'static str)> {
    let once = once_each(json).map(|json| (json, "repeated_member"));
    once.or_else(|| mended(json).map(|json| (json, "text_mended")))
}

/// JSON with what is no text in it replaced by U+FFFD: bytes that are no UTF-8, and halves of surrogate pairs, which some
/// send in two chunks. `None` if there is nothing of the kind, or no JSON all the same.
pub fn mended(json: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(json);
    let mut mended = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended.push_str(before);
        let length = match (surrogate(escape), escape.get(6..).and_then(surrogate)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.push_str("\\ufffd");
                rest = &escape[6..];
                continue;
            }
            _ => escape.char_indices().nth(2).map_or(escape.len(), |(length, _)| length),
        };
        mended.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    mended.push_str(rest);
    (mended.as_bytes() != json && serde_json::from_str::<IgnoredAny>(&mended).is_ok()).then_some(mended)
}

/// JSON in which no object has a member twice: of several of the same name the last one stands, as most parsers have it.
/// `None` if there is none such, or no JSON.
pub fn once_each(json: &[u8]) -> Option<String> {
    let raw: &RawValue = serde_json::from_slice(json).ok()?;
    let mut written = String::with_capacity(json.len());
    write_once_each(raw, MOST_DEPTH, &mut written).then_some(written)
}

/// Writes a value without what is repeated in it; whether anything was.
fn write_once_each(raw: &RawValue, depth: u32, written: &mut String) -> bool {
    let mut is_repeated = false;
    match raw.get().as_bytes()[0] {
        b'{' if depth > 0
            && let Ok(Members(members)) = serde_json::from_str(raw.get()) =>
        {
            let last: HashMap<&str, usize> =
                members.iter().enumerate().map(|(place, (name, _))| (name.as_ref(), place)).collect();
            is_repeated = last.len() < members.len();
            let kept = members.iter().enumerate().filter(|(place, (name, _))| last[name.as_ref()] == *place);
            let values: Vec<(&str, String)> = kept
                .map(|(_, (name, value))| {
                    let mut once = String::new();
                    is_repeated |= write_once_each(value, depth - 1, &mut once);
                    (name.as_ref(), once)
                })
                .collect();
            written.push_str(&Members::write(values.iter().map(|(name, value)| (*name, value.as_str()))));
        }
        b'[' if depth > 0
            && let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) =>
        {
            written.push('[');
            for (place, item) in items.into_iter().enumerate() {
                if place > 0 {
                    written.push(',');
                }
                is_repeated |= write_once_each(item, depth - 1, written);
            }
            written.push(']');
        }
        _ => written.push_str(raw.get()),
    }
    is_repeated
}

/// The code unit of an escape such as `\ud83d` that this text begins with.
fn surrogate(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// The value as it was sent, without white space between its tokens.
pub fn compact(raw: &RawValue) -> String {
    let mut compact = String::with_capacity(raw.get().len());
    let mut rest = raw.get();
    while let Some(quote) = rest.find('"') {
        let (before, quoted) = rest.split_at(quote);
        compact.extend(before.split_ascii_whitespace());
        let (string, after) = quoted.split_at(length_of_quoted(quoted.as_bytes()).unwrap_or(quoted.len()));
        compact.push_str(string);
        rest = after;
    }
    compact.extend(rest.split_ascii_whitespace());
    compact
}

/// How long the string is that begins with the quotation mark here, both marks included.
pub fn length_of_quoted(quoted: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', quoted.get(at..)?)?;
        match quoted[at] {
            b'"' => return Some(at + 1),
            // What it escapes is judged by who reads the string.
            _ => at += 2,
        }
    }
}

/// Text, whatever the value: a string as it is, anything else as its JSON; nothing for `null` and empty text.
pub fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
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
    fn what_is_no_text_is_mended() {
        let check = |json: &[u8], expected: Option<&str>| {
            assert_eq!(mended(json).as_deref(), expected, "{}", String::from_utf8_lossy(json));
        };
        check(br#"{"a":"\ud83d"}"#, Some(r#"{"a":"\ufffd"}"#));
        check(br#"{"a":"\ude00\ud83d\ude00"}"#, Some(r#"{"a":"\ufffd\ud83d\ude00"}"#));
        check(b"{\"a\":\"\xff\"}", Some("{\"a\":\"\u{fffd}\"}"));
        check(br#"{"a":"\ud83d\ude00 \\ud83d \n"}"#, None);
        check(b"{\"a\":\"\xff\"", None);
        check("\\é\\".as_bytes(), None);
    }

    #[test]
    fn of_members_that_come_twice_the_last_stands() {
        let check = |json: &str, expected: Option<&str>| {
            assert_eq!(once_each(json.as_bytes()).as_deref(), expected, "{json}");
        };
        check(r#"{"a":1,"b":2,"a":3.0}"#, Some(r#"{"b":2,"a":3.0}"#));
        check(
            r#"[{"x" : {"a":"\ud83d","\u0061":12345678901234567890123, "b":[ {"c":null,"c":{}} ]}}]"#,
            Some(r#"[{"x":{"a":12345678901234567890123,"b":[{"c":{}}]}}]"#),
        );
        for none in [r#"{"a":1,"b":{"a":1}}"#, r#"{"a":1,"a":2"#, "7", ""] {
            check(none, None);
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        check(&deep, None);
    }

    #[test]
    fn members_are_written_as_they_were_read_whatever_their_names() {
        let json = r#"{"model":"m","a \"quoted\" name":1,"back\\slash":[1, 2],"line\n":{"é":null},"":true}"#;
        let members: Members<'_> = serde_json::from_str(json).unwrap();
        let written = Members::write(members.0.iter().map(|(name, value)| (name.as_ref(), value.get())));
        assert_eq!(written, json);
    }

    #[test]
    fn what_makes_no_sense_is_nothing_and_the_rest_is_read() {
        for odd in ["null", "true", "-1", "1.5", "[1,[2]]", "{\"a\":{}}"] {
            let json = format!(r#"{{"text":{odd},"count":{odd},"inner":[{odd}],"list":"x","other":{odd}}}"#);
            let sample: Sample<'_> = serde_json::from_str(&json).unwrap();
            assert!(sample.text.0.is_none() && sample.count.0.is_none(), "{odd}");
            assert!(sample.inner.0.is_none() && sample.list.0.is_empty(), "{odd}");
        }
        let sample: Sample<'_> =
            serde_json::from_str(r#"{"text":"a\nb","count":7.0,"inner":{"text":"x"},"list":[1,"2",3]}"#).unwrap();
        assert_eq!(sample.text.filled(), Some("a\nb"));
        assert_eq!(sample.count.0, Some(7));
        assert_eq!(sample.inner.0.unwrap().text.filled(), Some("x"));
        assert_eq!(sample.list.0, [Count(Some(1)), Count(None), Count(Some(3))]);
    }
}
