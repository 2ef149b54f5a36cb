//! Parsing and validation of requests: bodies, queries, paths and parameters.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::{Json, RequestExt as _};
use http::request::Parts;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use shared::event::{InvalidLimitScope, LimitScope};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::error::ApiError;

/// A JSON body. Malformed bodies fail with an [`ApiError`].
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

/// The parameters of the query. Malformed queries fail with an [`ApiError`].
#[derive(Debug)]
pub(super) struct QueryParams<T>(pub(super) T);

/// A UUID in the path. Any other text fails with 404.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathId(pub(super) Uuid);

/// A user's id in the path. Text that cannot be an id fails with 404.
#[derive(Clone, Debug)]
pub(super) struct PathUserId(pub(super) String);

/// A scope of limits in the path. Any other text fails with 400.
#[derive(Clone, Debug)]
pub(super) struct PathScope(pub(super) LimitScope);

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let Json(Object(body)) = request.extract::<Json<Object<T>>, _>().await?;
        Ok(Self(body))
    }
}

/// A JSON object. A list of the members' values, which serde takes for an object, is refused.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::<T>::from_request_parts(parts, state).await?;
        Ok(Self(params))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<Uuid>::from_request_parts(parts, state).await?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathUserId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await?;
        // Text that cannot be an id is not looked up: PostgreSQL would not even accept all such text.
        id.parse::<shared::id::UserId>().map_err(|_| ApiError::not_found())?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(scope) = Path::<String>::from_request_parts(parts, state).await?;
        let scope =
            scope.parse().map_err(|error: InvalidLimitScope| ApiError::invalid("scope", format!("scope: {error}")));
        scope.map(Self)
    }
}

/// Returns the number of rows on a page: 1 to 100, or 50 by default.
pub(super) fn limit(asked: Option<u32>) -> Result<i64, ApiError> {
    match asked.unwrap_or(50) {
        limit @ 1..=100 => Ok(limit.into()),
        _ => Err(ApiError::invalid("limit", "limit: expected a number from 1 to 100")),
    }
}

/// Checks the length of a text parameter, and refuses control characters. PostgreSQL cannot store U+0000.
pub(super) fn text<'a>(param: &'static str, text: &'a str, max_characters: usize) -> Result<&'a str, ApiError> {
    let length = text.chars().count();
    if length == 0 || length > max_characters || text.chars().any(char::is_control) {
        let message = format!("{param}: expected 1 to {max_characters} characters, none of them control characters");
        return Err(ApiError::invalid(param, message));
    }
    Ok(text)
}

/// Parses an optional time in RFC 3339 format.
pub(super) fn time(param: &'static str, text: Option<&str>) -> Result<Option<OffsetDateTime>, ApiError> {
    let parse = |text: &str| {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok();
        let time = time.filter(|time| (1..9999).contains(&time.to_utc().year()));
        time.ok_or_else(|| ApiError::invalid(param, format!("{param}: expected a time such as 2026-11-24T16:05:00Z")))
    };
    text.map(parse).transpose()
}

/// A list's parameters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// How many: 1 to 100, 50 unless given.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<u32>,
    /// The `nextCursor` of the page before.
    pub(super) cursor: Option<String>,
}

/// The wish of an admin to read deleted conversations too.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeletedToo {
    /// True to read deleted conversations and their chats too: for admins, and logged.
    #[serde(default)]
    pub(super) deleted: bool,
}
