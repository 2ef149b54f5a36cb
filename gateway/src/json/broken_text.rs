//! JSON with text that is not valid Unicode: bytes that are not UTF-8, halves of surrogate pairs (`\ud83d` alone), and
//! escapes that do not exist (`\x41`). Clients send such text, for example after cutting a string in the middle of an emoji.
//!
//! Pure. The gateway forwards such a body as sent, and reads and records a mended copy, in which U+FFFD stands for each
//! broken place. A body that the gateway changes before forwarding is changed in a protected form: valid JSON in which each
//! broken place is a private-use character, so that [`restore`] gives back the broken text.

use std::borrow::Cow;

use memchr::memmem;

/// The first of the characters that stand for half a surrogate pair, from U+D800 to U+DFFF.
const SURROGATES: u32 = 0x0010_F000;

/// The first of the characters that stand for a byte.
const BYTES: u32 = 0x0010_F800;

/// The body has broken text, and also has private-use characters from U+10F000 to U+10F8FF, which stand for broken text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected valid Unicode: the body has broken text together with characters from U+10F000 to U+10F8FF")]
pub struct Collision;

/// Returns the JSON as text if all text is valid Unicode. Escapes that do not exist are not looked for.
pub fn intact(json: &[u8]) -> Option<&str> {
    std::str::from_utf8(json).ok().filter(|text| !has_half_pair(text.as_bytes()))
}

/// Returns the JSON with U+FFFD in each broken place. Borrowed if there is none.
pub fn mend(json: &[u8]) -> Cow<'_, [u8]> {
    let mut mended = String::new();
    let mut is_broken = false;
    for_each_piece(json, |piece| {
        is_broken |= !matches!(piece, Piece::Text(_));
        mended.push_str(if let Piece::Text(text) = piece { text } else { "\u{fffd}" });
    });
    if is_broken { Cow::Owned(mended.into_bytes()) } else { Cow::Borrowed(json) }
}

/// Returns the JSON with a private-use character in each broken place.
pub fn protect(json: &[u8]) -> Result<String, Collision> {
    let mut protected = String::with_capacity(json.len());
    let mut collides = false;
    for_each_piece(json, |piece| match piece {
        Piece::Text(text) => {
            collides |= has_placeholder(text.as_bytes());
            protected.push_str(text);
        }
        Piece::HalfPair(unit) => protected.extend(char::from_u32(SURROGATES + u32::from(unit) - 0xD800)),
        Piece::Bytes(bytes) => {
            protected.extend(bytes.iter().filter_map(|byte| char::from_u32(BYTES + u32::from(*byte))));
        }
    });
    if collides { Err(Collision) } else { Ok(protected) }
}

/// Returns the JSON that was protected. An escape of half a surrogate pair is written with lower-case digits.
pub fn restore(protected: &str) -> Vec<u8> {
    let mut restored = Vec::with_capacity(protected.len());
    let mut rest = protected;
    while let Some(start) = first_placeholder(rest.as_bytes()) {
        restored.extend_from_slice(&rest.as_bytes()[..start]);
        let Some(character) = rest[start..].chars().next() else { break };
        let code = u32::from(character);
        if let Some(byte) = code.checked_sub(BYTES).and_then(|byte| u8::try_from(byte).ok()) {
            restored.push(byte);
        } else {
            restored.extend_from_slice(format!("\\u{:04x}", code - SURROGATES + 0xD800).as_bytes());
        }
        rest = &rest[start + character.len_utf8()..];
    }
    restored.extend_from_slice(rest.as_bytes());
    restored
}

enum Piece<'a> {
    Text(&'a str),
    HalfPair(u16),
    /// Bytes that are not UTF-8, or the backslash of an escape that does not exist.
    Bytes(&'a [u8]),
}

/// Splits JSON into valid text and broken places.
fn for_each_piece<'a>(json: &'a [u8], mut f: impl FnMut(Piece<'a>)) {
    for chunk in json.utf8_chunks() {
        let text = chunk.valid();
        let (mut start, mut at) = (0, 0);
        while let Some(offset) = memchr::memchr(b'\\', &text.as_bytes()[at..]) {
            let escape = at + offset;
            let bytes = &text.as_bytes()[escape..];
            let (broken, length) = match (bytes.get(1), code_unit(bytes)) {
                (_, Some(0xD800..=0xDBFF)) if is_low_half(&bytes[6..]) => (None, 12),
                (_, Some(unit @ 0xD800..=0xDFFF)) => (Some(Piece::HalfPair(unit)), 6),
                (_, Some(_)) => (None, 6),
                (Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'), None) => (None, 2),
                (_, None) => (Some(Piece::Bytes(&bytes[..1])), 1),
            };
            at = escape + length;
            if let Some(broken) = broken {
                f(Piece::Text(&text[start..escape]));
                f(broken);
                start = at;
            }
        }
        f(Piece::Text(&text[start..]));
        if !chunk.invalid().is_empty() {
            f(Piece::Bytes(chunk.invalid()));
        }
    }
}

/// True if the JSON has an escape of half a surrogate pair without the other half.
fn has_half_pair(json: &[u8]) -> bool {
    let mut checked = 0;
    memmem::find_iter(json, b"\\u").any(|at| {
        // A hit behind the checked bytes is the second half of a pair.
        if at < checked || backslashes_before(json, at) % 2 == 1 {
            return false;
        }
        match code_unit(&json[at..]) {
            Some(0xD800..=0xDBFF) if is_low_half(&json[at + 6..]) => {
                checked = at + 12;
                false
            }
            Some(0xD800..=0xDFFF) => true,
            _ => false,
        }
    })
}

fn backslashes_before(json: &[u8], at: usize) -> usize {
    json[..at].iter().rev().take_while(|byte| **byte == b'\\').count()
}

fn is_low_half(json: &[u8]) -> bool {
    matches!(code_unit(json), Some(0xDC00..=0xDFFF))
}

/// The code unit of the escape at the start of the JSON, such as `\ud83d`.
fn code_unit(json: &[u8]) -> Option<u16> {
    let digits = json.strip_prefix(b"\\u")?.get(..4)?;
    // `from_str_radix` would accept a sign.
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// True if the text has a character that stands for broken text, as is or as escapes.
fn has_placeholder(text: &[u8]) -> bool {
    // U+10F000 to U+10F8FF have the first halves U+DBFC to U+DBFE.
    let is_first_half = |at: usize| matches!(code_unit(&text[at..]), Some(0xDBFC..=0xDBFE));
    first_placeholder(text).is_some() || memmem::find_iter(text, b"\\u").any(is_first_half)
}

/// The position of the first character from U+10F000 to U+10F8FF.
fn first_placeholder(text: &[u8]) -> Option<usize> {
    // The UTF-8 of these characters begins with F4 8F 80 to F4 8F A3.
    let is_third = |byte: &u8| (0x80..=0xA3).contains(byte);
    memmem::find_iter(text, b"\xf4\x8f").find(|at| text.get(at + 2).is_some_and(is_third))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mended(json: &[u8]) -> String {
        String::from_utf8(mend(json).into_owned()).unwrap()
    }

    #[test]
    fn broken_places_are_found_mended_and_restored() {
        let cases: [(&[u8], &str); 9] = [
            (br#"{"a":"cut \ud83d"}"#, "{\"a\":\"cut \u{fffd}\"}"),
            (br#"["\ude00\ud83d\ude00\ud83d\ud83d\ude00"]"#, "[\"\u{fffd}\\ud83d\\ude00\u{fffd}\\ud83d\\ude00\"]"),
            (b"{\"a\":\"\xff\xfe\"}", "{\"a\":\"\u{fffd}\u{fffd}\"}"),
            (b"[\"\xf0\x9f\x98\"]", "[\"\u{fffd}\"]"),
            (br#"["\x41 \u12G4 \u+123 \U0041"]"#, "[\"\u{fffd}x41 \u{fffd}u12G4 \u{fffd}u+123 \u{fffd}U0041\"]"),
            (b"[\"\\\xff\"]", "[\"\u{fffd}\u{fffd}\"]"),
            (br#"["\\ud83d \\\\ \n \ud83d\ude00 \u00e9 \/"]"#, r#"["\\ud83d \\\\ \n \ud83d\ude00 \u00e9 \/"]"#),
            (br#"["\\\ud83d"]"#, "[\"\\\\\u{fffd}\"]"),
            ("é\\".as_bytes(), "é\u{fffd}"),
        ];
        for (json, expected) in cases {
            let name = String::from_utf8_lossy(json);
            assert_eq!(mended(json), expected, "{name}");
            assert_eq!(restore(&protect(json).unwrap()), json, "{name}");
        }
        assert!(intact(br#"["\\ud83d \ud83d\ude00 \u00e9"]"#).is_some());
        for broken in [&br#"["\\\ud83d"]"#[..], br#"["\ud83d\ud83d\ude00"]"#, br#"["\ude00"]"#, b"[\"\xff\"]"] {
            assert!(intact(broken).is_none(), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn characters_that_stand_for_broken_text_are_refused() {
        for text in ["[\"\u{10f000}\"]", "[\"\u{10f822}\"]", "[\"\u{10f8ff}\"]", r#"["\udbfe\udc22"]"#] {
            assert_eq!(protect(text.as_bytes()), Err(Collision), "{text}");
        }
        for text in ["[\"\u{10efff}\"]", "[\"\u{10f900}\"]", "[\"\u{10ffff}\"]"] {
            assert!(protect(text.as_bytes()).is_ok(), "{text}");
        }
    }

    /// Escapes that exist.
    const WHOLE: [&[u8]; 6] = [br"\n", br"\\", br#"\""#, br"\u00e9", br"\ud83d\ude00", br"\/"];

    /// Broken text, or the start of an escape that the next piece may complete.
    const BROKEN: [&[u8]; 9] =
        [br"\ud83d", br"\ude00", br"\x", br"\u12", br"\u", b"\xff", b"\xf0\x9f", b"\xc3", b"\x80"];

    /// Pieces of a JSON string: text, escapes, and broken text.
    fn string_pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![
            "[a-z é😀]{0,5}".prop_map(String::into_bytes),
            proptest::sample::select(&WHOLE[..]).prop_map(<[u8]>::to_vec),
            proptest::sample::select(&BROKEN[..]).prop_map(<[u8]>::to_vec),
        ];
        proptest::collection::vec(piece, 0..12)
    }

    proptest! {
        #[test]
        fn any_broken_string_is_mended_to_json_and_restored_as_sent(pieces in string_pieces()) {
            let json = [&b"{\"a\":\""[..], &pieces.concat(), b"\"}"].concat();
            let protected = protect(&json).unwrap();
            prop_assert_eq!(restore(&protected), &json[..]);
            let mended = mend(&json);
            let read: serde_json::Value = serde_json::from_slice(&mended).unwrap();
            prop_assert!(read["a"].is_string());
            prop_assert!(serde_json::from_str::<serde_json::Value>(&protected).is_ok());
            let strict: Result<serde_json::Value, _> = serde_json::from_slice(&json);
            prop_assert_eq!(strict.is_ok(), matches!(mended, Cow::Borrowed(_)), "mended if and only if it was broken");
            prop_assert!(strict.is_err() || intact(&json).is_some());
        }
    }
}
