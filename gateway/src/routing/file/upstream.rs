//! Parses one upstream of a routes file.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use shared::event::{DialectName, Operation};
use toml::Spanned;

use super::key_source::{KeyLookup, UpstreamKeySource};
use super::mistake::{Mistake, duration, mistake};
use crate::routing::proxy::{EXPECTED_PROXY, Proxy, ProxySetting};
use crate::routing::{AskForUsage, KeyHeader, UpstreamSettings, appended_path};

/// Headers that a routes file cannot set: credentials have settings of their own, the others belong to the connection.
const RESERVED_HEADERS: [&str; 10] = [
    "api-key",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "x-api-key",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamEntry {
    base_url: Spanned<String>,
    key_from: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
    #[serde(default)]
    key_header: KeyHeaderEntry,
    #[serde(default)]
    dialects: Vec<DialectEntry>,
    operations: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    connect_timeout: Option<Spanned<String>>,
    head_timeout: Option<Spanned<String>>,
    idle_timeout: Option<Spanned<String>>,
    total_timeout: Option<Spanned<String>>,
    keep_alive: Option<Spanned<String>>,
    ask_for_usage: Option<Spanned<AskForUsageEntry>>,
    proxy: Option<Spanned<String>>,
    proxy_credentials_from: Option<Spanned<String>>,
    proxy_credentials_file: Option<Spanned<String>>,
    list_models: Option<bool>,
}

/// `true`, `false` or `"learn"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum AskForUsageEntry {
    Flag(bool),
    Word(String),
}

/// The name of a dialect that this gateway lists.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct DialectEntry(DialectName);

impl TryFrom<String> for DialectEntry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(DialectName::Other(_)) | Err(_) => {
                Err(format!("unknown variant `{text}`, expected one of `{}`", DialectName::WORDS.join("`, `")))
            }
            Ok(dialect) => Ok(Self(dialect)),
        }
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
enum KeyHeaderEntry {
    #[default]
    #[serde(rename = "by-dialect")]
    ByDialect,
    #[serde(rename = "authorization")]
    Authorization,
    #[serde(rename = "x-api-key")]
    XApiKey,
    #[serde(rename = "api-key")]
    ApiKey,
}

pub(super) fn read(
    name: &Spanned<String>,
    spanned: &Spanned<UpstreamEntry>,
    defaults: &UpstreamSettings,
    keys: &KeyLookup<'_>,
) -> Result<UpstreamSettings, Mistake> {
    let text = spanned.get_ref();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.get_ref().is_empty() || name.get_ref().len() > 64 || !name.get_ref().chars().all(is_plain) {
        let expected = "an upstream's name: expected 1 to 64 letters, digits, '-', '_' or '.'";
        return Err(mistake(name, expected.into()));
    }
    let source = match (&text.key_from, &text.key_file) {
        (Some(_), Some(file)) => return Err(mistake(file, "key_file: key_from is set too: expected one".into())),
        (Some(variable), None) => Some((variable, UpstreamKeySource::Variable(variable.get_ref()))),
        (None, Some(file)) => Some((file, UpstreamKeySource::File(file.get_ref()))),
        (None, None) => None,
    };
    let key = match source {
        Some((place, source)) => Some(keys(source).map_err(|wrong| mistake(place, wrong))?),
        None => None,
    };
    Ok(UpstreamSettings {
        name: name.get_ref().clone(),
        base_url: base_url(&text.base_url)?,
        key,
        key_header: match text.key_header {
            KeyHeaderEntry::ByDialect => KeyHeader::ByDialect,
            KeyHeaderEntry::Authorization => KeyHeader::Authorization,
            KeyHeaderEntry::XApiKey => KeyHeader::XApiKey,
            KeyHeaderEntry::ApiKey => KeyHeader::ApiKey,
        },
        dialects: text.dialects.iter().map(|entry| entry.0).collect(),
        operations: text.operations.as_ref().map(|names| operations(names)).transpose()?,
        headers: headers(&text.headers)?,
        connect_timeout: duration("connect_timeout", text.connect_timeout.as_ref(), defaults.connect_timeout)?,
        head_timeout: duration("head_timeout", text.head_timeout.as_ref(), defaults.head_timeout)?,
        idle_timeout: duration("idle_timeout", text.idle_timeout.as_ref(), defaults.idle_timeout)?,
        total_timeout: duration("total_timeout", text.total_timeout.as_ref(), defaults.total_timeout)?,
        keep_alive: duration("keep_alive", text.keep_alive.as_ref(), defaults.keep_alive)?,
        ask_for_usage: text.ask_for_usage.as_ref().map_or(Ok(AskForUsage::Always), ask_for_usage)?,
        proxy: proxy(text, keys)?,
        list_models: text.list_models.unwrap_or(false),
    })
}

fn ask_for_usage(entry: &Spanned<AskForUsageEntry>) -> Result<AskForUsage, Mistake> {
    match entry.get_ref() {
        AskForUsageEntry::Flag(true) => Ok(AskForUsage::Always),
        AskForUsageEntry::Flag(false) => Ok(AskForUsage::Never),
        AskForUsageEntry::Word(word) if word == "learn" => Ok(AskForUsage::Learn),
        AskForUsageEntry::Word(_) => Err(mistake(entry, "ask_for_usage: expected true, false or \"learn\"".into())),
    }
}

/// Reads the proxy of an upstream. Its credentials come from a variable or a file, and never from the routes file itself.
fn proxy(text: &UpstreamEntry, keys: &KeyLookup<'_>) -> Result<ProxySetting, Mistake> {
    let source = match (&text.proxy_credentials_from, &text.proxy_credentials_file) {
        (Some(_), Some(file)) => {
            let message = "proxy_credentials_file: proxy_credentials_from is set too: expected one";
            return Err(mistake(file, message.into()));
        }
        (Some(variable), None) => Some((variable, UpstreamKeySource::Variable(variable.get_ref()))),
        (None, Some(file)) => Some((file, UpstreamKeySource::File(file.get_ref()))),
        (None, None) => None,
    };
    let (proxy, source) = match (&text.proxy, source) {
        (None, None) => return Ok(ProxySetting::FromEnvironment),
        (None, Some((place, _))) => {
            return Err(mistake(place, "credentials of a proxy: expected proxy with them".into()));
        }
        (Some(none), None) if none.get_ref() == "none" => return Ok(ProxySetting::Direct),
        (Some(url), source) => match Proxy::parse(url.get_ref()) {
            Some(proxy) if proxy.authorization.is_none() => (proxy, source),
            Some(_) => {
                let message = "proxy: expected no credentials in the URL: use proxy_credentials_from";
                return Err(mistake(url, message.into()));
            }
            None => return Err(mistake(url, format!("proxy: expected {EXPECTED_PROXY}, or none"))),
        },
    };
    let Some((place, source)) = source else { return Ok(ProxySetting::Through(proxy)) };
    let credentials = keys(source).map_err(|wrong| mistake(place, wrong))?;
    if !credentials.expose_secret().contains(':') {
        return Err(mistake(place, "the credentials of the proxy: expected user:password".into()));
    }
    Ok(ProxySetting::Through(proxy.with_credentials(credentials.expose_secret())))
}

fn operations(names: &[Spanned<String>]) -> Result<Vec<Operation>, Mistake> {
    let read = |name: &Spanned<String>| match name.get_ref().parse::<Operation>() {
        Ok(operation) if !matches!(operation, Operation::Chat | Operation::PassThrough | Operation::Other(_)) => {
            Ok(operation)
        }
        _ => {
            let known = Operation::WORDS.iter().filter(|word| !matches!(**word, "chat" | "pass_through"));
            let known = known.copied().collect::<Vec<_>>().join(", ");
            Err(mistake(name, format!("operations: {:?} is unknown: expected one of {known}", name.get_ref())))
        }
    };
    names.iter().map(read).collect()
}

fn base_url(text: &Spanned<String>) -> Result<Uri, Mistake> {
    let expected = "base_url: expected an http or https URL without user, such as https://api.openai.com/v1";
    match text.get_ref().parse::<Uri>() {
        Ok(url) if let Some(path) = appended_path(&url) => {
            Err(mistake(text, format!("base_url: ends in {path}, which the gateway appends: leave it out")))
        }
        Ok(url)
            if matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some_and(|host| !host.is_empty())
                && !url.authority().is_some_and(|authority| authority.as_str().contains('@')) =>
        {
            Ok(url)
        }
        _ => Err(mistake(text, expected.into())),
    }
}

fn headers(texts: &BTreeMap<Spanned<String>, Spanned<String>>) -> Result<HeaderMap, Mistake> {
    let mut headers = HeaderMap::new();
    for (name, value) in texts {
        let parsed = HeaderName::try_from(name.get_ref().as_str());
        let parsed = parsed.map_err(|_| mistake(name, "headers: expected the name of a header".into()))?;
        if RESERVED_HEADERS.contains(&parsed.as_str()) {
            let message = format!("headers: {parsed} cannot be set here; for an API key use key_from and key_header");
            return Err(mistake(name, message));
        }
        let value = HeaderValue::try_from(value.get_ref().as_str())
            .map_err(|_| mistake(value, "headers: expected a value of visible ascii characters".into()))?;
        headers.insert(parsed, value);
    }
    Ok(headers)
}
