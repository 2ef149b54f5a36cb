//! Reading the members of a request body.

use serde::Deserialize;

use crate::json::lenient::Members;
use crate::request::invalid_request::{InvalidRequest, invalid_member};

/// The value of a member, or `None` if the member is absent or null.
pub(super) fn member<'a, T: Deserialize<'a>>(
    members: &Members<'a>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, InvalidRequest> {
    members
        .get(name)
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map(Option::flatten)
        .map_err(|_| invalid_member(name, &format!("expected {expected}")))
}

/// The name of the model, 1 to 256 bytes. `None` if the member is absent or null.
pub(super) fn model_name(members: &Members<'_>) -> Result<Option<String>, InvalidRequest> {
    member(members, "model", "a model name")?.map(checked_name).transpose()
}

/// The model that a path names, 1 to 256 bytes.
pub(super) fn named_by_path(model: &str) -> Result<Option<String>, InvalidRequest> {
    checked_name(model.to_owned()).map(Some)
}

fn checked_name(model: String) -> Result<String, InvalidRequest> {
    if model.is_empty() || model.len() > 256 {
        return Err(invalid_member("model", "expected a model name of 1 to 256 bytes"));
    }
    Ok(model)
}
