//! Redaction of a provider's secrets: the gateway's own keys, whole or in part as providers print them, and the ids of the
//! operator's account, in error texts.
//!
//! Pure. Only errors are redacted; the text of good answers is never searched.

use std::fmt;

use bytes::Bytes;
use memchr::memmem;
use secrecy::{ExposeSecret as _, SecretString};

/// The text that takes the place of a secret.
const REPLACEMENT: &[u8] = b"[redacted]";

/// The minimum length of a secret whose parts are recognized, in bytes. A shorter secret is recognized as a whole.
const MIN_SECRET_BYTES: usize = 12;

/// The minimum length of a part of a secret without a mask, in bytes. Shorter parts, such as `sk-`, are in many texts.
const MIN_PART_BYTES: usize = 8;

/// The minimum length of the parts around a mask together, in bytes.
const MIN_MASKED_BYTES: usize = 4;

/// The distance from a word such as `organization` within which a UUID is an id of the account, in bytes.
const MAX_ID_DISTANCE: usize = 48;

/// The beginnings of account ids, as OpenAI, Anthropic and Stripe make them.
const ID_PREFIXES: [&[u8]; 6] = [b"org-", b"org_", b"proj_", b"wrkspc_", b"acct_", b"workspace_"];

/// The words before a UUID that make it an id of the account, in lower case.
const ACCOUNT_WORDS: [&[u8]; 5] = [b"organization", b"organisation", b"workspace", b"account", b"project"];

/// The secrets of one upstream.
pub struct Redactor(Vec<SecretString>);

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.len())
    }
}

impl Redactor {
    /// Makes a redactor for these secrets. Secrets of fewer than 4 bytes are ignored, because every text has them.
    pub fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        Self(secrets.into_iter().filter(|secret| secret.expose_secret().len() >= 4).collect())
    }

    /// Returns the text without secrets. `None` if the text has none.
    pub fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut redacted = self.without_whole_secrets(text);
        let searched = redacted.as_deref().unwrap_or(text);
        if let Some(without) = self.without_tokens(searched) {
            redacted = Some(without);
        }
        redacted
    }

    /// Returns the text without secrets.
    pub fn redact_text(&self, text: &str) -> String {
        match self.redact(text.as_bytes()) {
            Some(redacted) => String::from_utf8_lossy(&redacted).into_owned(),
            None => text.to_owned(),
        }
    }

    /// Redacts a text that has been cut into chunks. Chunks without secrets stay as they are.
    pub fn redact_chunks(&self, chunks: &mut Vec<Bytes>) {
        if let Some(redacted) = self.redact(&chunks.concat()) {
            *chunks = vec![redacted.into()];
        }
    }

    fn without_whole_secrets(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut redacted: Option<Vec<u8>> = None;
        for secret in &self.0 {
            let (secret, searched) = (secret.expose_secret().as_bytes(), redacted.as_deref().unwrap_or(text));
            let found: Vec<usize> = memmem::find_iter(searched, secret).collect();
            if found.is_empty() {
                continue;
            }
            let (mut without, mut from) = (Vec::with_capacity(searched.len()), 0);
            for at in found {
                without.extend_from_slice(&searched[from..at]);
                without.extend_from_slice(REPLACEMENT);
                from = at + secret.len();
            }
            without.extend_from_slice(&searched[from..]);
            redacted = Some(without);
        }
        redacted
    }

    /// Replaces each token that is part of a secret, or an id of the account.
    fn without_tokens(&self, text: &[u8]) -> Option<Vec<u8>> {
        let (mut without, mut copied, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            let length = token_length(&text[at..]);
            if length == 0 {
                at += 1;
                continue;
            }
            let token = without_final_dot(&text[at..at + length]);
            let is_secret = self.0.iter().any(|secret| is_part_of(token, secret.expose_secret().as_bytes()));
            if is_secret || is_account_id(token, &text[..at]) {
                without.extend_from_slice(&text[copied..at]);
                without.extend_from_slice(REPLACEMENT);
                copied = at + token.len();
            }
            at += length;
        }
        if copied == 0 {
            return None;
        }
        without.extend_from_slice(&text[copied..]);
        Some(without)
    }
}

/// Returns the length of the token at the start of the text: letters, digits, and the characters of keys and masks.
fn token_length(text: &[u8]) -> usize {
    let is_of_token =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*') || *byte >= 0x80;
    text.iter().position(|byte| !is_of_token(byte)).unwrap_or(text.len())
}

/// Returns the token without the dot that ends a sentence. A mask of several dots stays.
fn without_final_dot(token: &[u8]) -> &[u8] {
    match token {
        [rest @ .., b'.'] if !rest.ends_with(b".") => rest,
        whole => whole,
    }
}

/// Returns true if the token is a part of the secret: a piece of it, or its start and its end around a mask.
fn is_part_of(token: &[u8], secret: &[u8]) -> bool {
    if secret.len() < MIN_SECRET_BYTES {
        return false;
    }
    match around_mask(token) {
        Some((start, end)) => {
            start.len() + end.len() >= MIN_MASKED_BYTES && secret.starts_with(start) && secret.ends_with(end)
        }
        // A part that ends in a hyphen is the beginning that all keys of a provider share.
        None => token.len() >= MIN_PART_BYTES && !token.ends_with(b"-") && memmem::find(secret, token).is_some(),
    }
}

/// Returns the parts before and after a mask: a run of two or more `*` or dots, an ellipsis, bullets, or four or more `x`.
fn around_mask(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_mask = |byte: u8| byte == b'*' || byte == b'.' || byte >= 0x80;
    let masked = |is_mask: &dyn Fn(u8) -> bool, least: usize| {
        let first =
            (0..token.len()).find(|at| token[*at..].iter().take_while(|byte| is_mask(**byte)).count() >= least)?;
        let last = token.iter().rposition(|byte| is_mask(*byte))?;
        Some((&token[..first], &token[last + 1..]))
    };
    masked(&is_mask, 2).or_else(|| masked(&|byte| matches!(byte, b'x' | b'X'), 4))
}

/// Returns true if the token is an id of the operator's account at the provider, by its beginning or by the words before.
fn is_account_id(token: &[u8], before: &[u8]) -> bool {
    let rest = ID_PREFIXES.iter().find_map(|prefix| token.strip_prefix(*prefix));
    if let Some(rest) = rest {
        return rest.len() >= 8 && (rest.len() >= 20 || rest.iter().any(u8::is_ascii_digit));
    }
    let is_uuid = token.len() == 36
        && token.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let near = before[before.len().saturating_sub(MAX_ID_DISTANCE)..].to_ascii_lowercase();
    is_uuid && ACCOUNT_WORDS.iter().any(|word| memmem::find(&near, word).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-proj-Zk81hQ0vTn44xYpLr7Wd93mB";

    fn redacted(text: &str) -> String {
        Redactor::new([SecretString::from(KEY)]).redact_text(text)
    }

    #[test]
    fn keys_are_redacted_whole_and_in_part() {
        for part in [
            KEY,
            "sk-proj-Zk81hQ0v",
            "r7Wd93mB",
            "sk-proj-********93mB",
            "sk-p...93mB",
            "sk-proj-Zk\u{2026}mB",
            "sk-\u{2022}\u{2022}\u{2022}\u{2022}93mB",
            "****93mB",
            "sk-pxxxxxxxx93mB",
            "sk-proj-Zk81***",
        ] {
            let text = format!("Incorrect API key provided: {part}. You can find your key at https://a.example/keys.");
            let expected = text.replace(part, "[redacted]");
            assert_eq!(redacted(&text), expected, "{part}");
            let json = format!(r#"{{"error":{{"message":"key={part}"}}}}"#);
            assert_eq!(redacted(&json), json.replace(part, "[redacted]"), "{part}");
        }
    }

    #[test]
    fn ids_of_the_account_are_redacted() {
        for (text, id) in [
            ("Rate limit reached for m in organization org-4nT8sKq2Lw on tokens per min", "org-4nT8sKq2Lw"),
            ("Project `proj_9fKQ02mmZxp` has no access to model m", "proj_9fKQ02mmZxp"),
            (
                "limit of your organization (b0c1d2e3-1111-4222-8333-944455556666) reached",
                "b0c1d2e3-1111-4222-8333-944455556666",
            ),
        ] {
            assert_eq!(redacted(text), text.replace(id, "[redacted]"));
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in [
            "",
            "you exceeded your quota... try again",
            "the model sk-proj- does not exist",
            "request 6b1f7b53-1111-4222-8333-944455556666 failed",
            "expected a key such as sk-***",
            "maximum context length is 8192 tokens **bold** xxxx",
            "org-chart and proj_x",
        ] {
            assert_eq!(Redactor::new([SecretString::from(KEY)]).redact(text.as_bytes()), None, "{text}");
        }
    }
}
