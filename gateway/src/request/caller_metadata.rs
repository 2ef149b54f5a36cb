//! The caller's labels for a chat: `user` and `metadata` from the body, and tags from a header. Readers of the record
//! filter and group chats by these labels.
//!
//! Pure. `user` and `metadata` also reach the upstream as sent; tags do not.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::CallerMetadata;

use crate::request::invalid_request::InvalidRequest;

/// The header with the tags of a chat, separated by commas. May be repeated.
pub const TAGS_HEADER: &str = "x-stenograph-tags";

const MAX_TAGS: usize = 16;
const MAX_TAG_BYTES: usize = 64;
const MAX_USER_BYTES: usize = 256;
const MAX_METADATA_BYTES: usize = 8 << 10;

/// Reads the labels of a request. A `user` or `metadata` beyond the bounds, or of another type, is left out and stays
/// among the parameters: only the upstream can tell if such a value is an error. Tags are defined by the gateway, so
/// invalid tags are an error.
pub fn parse(parameters: &RawValue, headers: &HeaderMap) -> Result<Option<CallerMetadata>, InvalidRequest> {
    let mut found = CallerMetadata { tags: parse_tags(headers)?, ..CallerMetadata::default() };
    let text = parameters.get();
    if [r#""user""#, r#""metadata""#]
        .iter()
        .any(|name| memchr::memmem::find(text.as_bytes(), name.as_bytes()).is_some())
    {
        let members: MetadataMembers<'_> = serde_json::from_str(text).unwrap_or_default();
        found.user = members
            .user
            .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
            .filter(|user| (1..=MAX_USER_BYTES).contains(&user.len()));
        found.metadata = members
            .metadata
            .filter(|raw| raw.get().starts_with('{') && raw.get() != "{}" && raw.get().len() <= MAX_METADATA_BYTES)
            .map(RawValue::to_owned);
    }
    let is_empty = found.user.is_none() && found.metadata.is_none() && found.tags.is_empty();
    Ok((!is_empty).then_some(found))
}

#[derive(Default, Deserialize)]
struct MetadataMembers<'a> {
    #[serde(default, borrow)]
    user: Option<&'a RawValue>,
    #[serde(default, borrow)]
    metadata: Option<&'a RawValue>,
}

fn parse_tags(headers: &HeaderMap) -> Result<Vec<String>, InvalidRequest> {
    let mut tags: Vec<String> = Vec::new();
    for value in headers.get_all(TAGS_HEADER) {
        let text = value.to_str().map_err(|_| invalid_tags())?;
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            if tag.len() > MAX_TAG_BYTES || (tags.len() == MAX_TAGS && !tags.iter().any(|known| known == tag)) {
                return Err(invalid_tags());
            }
            if !tags.iter().any(|known| known == tag) {
                tags.push(tag.to_owned());
            }
        }
    }
    Ok(tags)
}

fn invalid_tags() -> InvalidRequest {
    let message = format!(
        "{TAGS_HEADER}: expected at most {MAX_TAGS} tags of 1 to {MAX_TAG_BYTES} visible ascii characters, separated by commas"
    );
    InvalidRequest { message, param: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &str, tags: &[&str]) -> Result<Option<serde_json::Value>, String> {
        let parameters = RawValue::from_string(parameters.to_owned()).unwrap();
        let mut headers = HeaderMap::new();
        for tag in tags {
            headers.append(TAGS_HEADER, tag.parse().unwrap());
        }
        let found = super::parse(&parameters, &headers).map_err(|error| error.message)?;
        Ok(found.map(|found| serde_json::to_value(found).unwrap()))
    }

    #[test]
    fn user_metadata_and_tags_are_read_within_bounds() {
        let json = |text: &str| Ok(Some(serde_json::from_str(text).unwrap()));
        assert_eq!(parse(r#"{"model":"m"}"#, &[]), Ok(None));
        assert_eq!(
            parse(r#"{"user":"u-1","metadata":{"a":[1.0]}}"#, &[]),
            json(r#"{"user":"u-1","metadata":{"a":[1.0]}}"#)
        );
        assert_eq!(parse("{}", &["a, b", "b,c ,"]), json(r#"{"tags":["a","b","c"]}"#));
        assert_eq!(
            parse(r#"{"user":7,"metadata":"x"}"#, &[]),
            Ok(None),
            "values of other types are left for the upstream to judge"
        );
        let long = format!(r#"{{"user":"u","metadata":{{"a":"{}"}}}}"#, "x".repeat(9000));
        assert_eq!(parse(&long, &[]), json(r#"{"user":"u"}"#));
        assert!(parse("{}", &[&"x".repeat(65)]).unwrap_err().starts_with("x-stenograph-tags: expected at most 16"));
        let many: Vec<String> = (0..17).map(|number| number.to_string()).collect();
        assert!(parse("{}", &[&many.join(",")]).is_err());
    }
}
