//! Error responses of the API. Every HTTP status is chosen here. The JSON body has the same shape as the gateway's
//! errors, the shape of OpenAI's API.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use shared::token::TokenError;
use utoipa::ToSchema;

use crate::access::change::ChangeError;
use crate::access::keys::KeyError;
use crate::access::projects::ProjectError;
use crate::accounts::AccountError;
use crate::calendar::CalendarError;
use crate::cursor::InvalidCursor;
use crate::policy::disposition::DatabaseFault;
use crate::store;

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorFields,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorFields {
    /// In words.
    message: String,
    /// The kind: `invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field or parameter that is wrong, where it is one.
    param: Option<&'static str>,
    /// What went wrong, in one word for programs, where there is one.
    code: Option<&'static str>,
}

/// An error response: HTTP status, error object, and `Retry-After` in seconds.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    param: Option<&'static str>,
    message: String,
    retry_after: Option<u64>,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const SERVER_ERROR: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None }
    }

    /// 404: no route has this path.
    pub fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_url", "no such route")
    }

    /// 405: the route exists, but does not support the method.
    pub fn method_not_allowed() -> Self {
        let message = "this route does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "method_not_allowed", message)
    }

    /// 404: the object does not exist, or the caller may not read the object.
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID_REQUEST,
            "not_found",
            "there is no such object, or it belongs to another user",
        )
    }

    /// 400: the parameter or field `param` is invalid. The message names the field and the expected value.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_value", message) }
    }

    /// 401: the request contains no token.
    pub fn unauthenticated() -> Self {
        Self::token("no token: expected `Authorization: Bearer <token>`, or the session's cookie")
    }

    /// 401: the account is disabled, or the session was ended.
    pub fn session_over() -> Self {
        Self::token("the session has ended: log in again")
    }

    fn token(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    }

    /// 403: a page of another origin has sent a request with the user's cookies.
    pub fn cross_origin() -> Self {
        let message = "a request with cookies that changes something has to come from this origin";
        Self::new(StatusCode::FORBIDDEN, "permission_error", "cross_origin", message)
    }

    /// 429: the maximum number of live streams is open, of the user or of the process.
    pub fn too_many_streams() -> Self {
        let message = "too many live streams: close one, or try again shortly";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_streams", message);
        Self { retry_after: Some(5), ..error }
    }

    /// 429: the caller's requests of this kind that run already are as many as one caller may have.
    pub fn too_many_requests() -> Self {
        let message = "too many requests of this kind are running: wait for one to end";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_requests", message);
        Self { retry_after: Some(1), ..error }
    }

    /// 503: keys cannot be issued, changed or revoked, because `recorder serve` has no broker.
    pub fn keys_unavailable() -> Self {
        Self::unavailable("keys_unavailable", "API keys need the broker: NATS_URL of recorder serve is not set")
    }

    /// 503: limits cannot be read or changed, because `recorder serve` has no broker.
    pub fn limits_unavailable() -> Self {
        Self::unavailable("limits_unavailable", "limits need the broker: NATS_URL of recorder serve is not set")
    }

    /// 503: projects cannot be created or changed, because `recorder serve` has no broker.
    pub fn projects_unavailable() -> Self {
        Self::unavailable("projects_unavailable", "projects need the broker: NATS_URL of recorder serve is not set")
    }

    fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self { retry_after: Some(2), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, code, message) }
    }

    /// The answer after a failed change of keys, projects or limits, with the code of these.
    fn changing(error: ChangeError, code: &'static str) -> Self {
        let message = match error {
            ChangeError::Database(error) => return error.into(),
            ChangeError::Present(_) => "the present state could not be read from the broker: try again shortly",
            ChangeError::Broker(_) => "the broker did not acknowledge the change: try again shortly",
            ChangeError::Entry(_) => "the change is on the record, but has not reached the gateways yet",
        };
        tracing::warn!(%error, code, "a change was answered with 503");
        Self::unavailable(code, message)
    }

    fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            SERVER_ERROR,
            "internal",
            "internal error; the recorder's log has the details",
        )
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::KeysUnknown => Self::unavailable("keys_unknown", error.to_string()),
            TokenError::Expired | TokenError::Invalid => Self::token(error.to_string()),
        }
    }
}

impl From<InvalidCursor> for ApiError {
    fn from(error: InvalidCursor) -> Self {
        Self::invalid("cursor", format!("cursor: {error}"))
    }
}

impl From<CalendarError> for ApiError {
    fn from(error: CalendarError) -> Self {
        Self::invalid(error.param(), error.to_string())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(error: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_query", error.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(_: PathRejection) -> Self {
        // Text that is no id cannot belong to any object.
        Self::not_found()
    }
}

impl From<JsonRejection> for ApiError {
    fn from(error: JsonRejection) -> Self {
        let code = match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            _ => "invalid_body",
        };
        let status = match error.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self::new(status, INVALID_REQUEST, code, error.body_text())
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        match (store::classify(&error), &error) {
            (DatabaseFault::Unreachable, _) => {
                tracing::warn!(
                    error = store::describe(&error),
                    "the database cannot be reached: a request was answered with 503"
                );
                Self::unavailable(
                    "database_unavailable",
                    "the record cannot be read at the moment; chats are not affected",
                )
            }
            // Classes of SQLSTATE: the connection failed (08), the server lacks resources such as connections (53), the
            // query was cancelled or the server is shutting down (57), or the query waited too long for a lock (55).
            (DatabaseFault::Sqlstate(code), _) if matches!(code.get(..2), Some("08" | "53" | "57" | "55")) => {
                tracing::warn!(
                    error = store::describe(&error),
                    "the database refused or cancelled a query: a request was answered with 503"
                );
                Self::unavailable("database_unavailable", "the record cannot be read at the moment; try again shortly")
            }
            (DatabaseFault::Sqlstate(code), _) if code == "22021" => {
                Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_value", "expected text without U+0000")
            }
            _ => {
                tracing::error!(
                    error = store::describe(&error),
                    "a database query failed: a request was answered with 500"
                );
                Self::internal()
            }
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        Self::changing(error, "limits_unavailable")
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let message = error.to_string();
        match error {
            KeyError::Invalid { field, .. } => Self::invalid(field, message),
            KeyError::TooMany => Self::new(StatusCode::CONFLICT, INVALID_REQUEST, "too_many_keys", message),
            KeyError::Revoked => Self::new(StatusCode::CONFLICT, INVALID_REQUEST, "key_revoked", message),
            KeyError::Change(error) => Self::changing(error, "keys_unavailable"),
        }
    }
}

impl From<ProjectError> for ApiError {
    fn from(error: ProjectError) -> Self {
        let message = error.to_string();
        match error {
            ProjectError::Invalid { field, .. } => Self::invalid(field, message),
            ProjectError::TooMany => Self::new(StatusCode::CONFLICT, INVALID_REQUEST, "too_many_projects", message),
            ProjectError::Change(error) => Self::changing(error, "projects_unavailable"),
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let message = error.to_string();
        match error {
            AccountError::WrongCredentials => {
                Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "wrong_credentials", message)
            }
            AccountError::SessionEnded => {
                Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "session_ended", message)
            }
            AccountError::InviteInvalid => {
                Self::new(StatusCode::FORBIDDEN, "permission_error", "invite_invalid", message)
            }
            AccountError::NameTaken => Self::new(StatusCode::CONFLICT, INVALID_REQUEST, "name_taken", message),
            AccountError::NoAccount => Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "not_found", message),
            AccountError::Throttled(throttled) => Self {
                retry_after: Some(throttled.retry_after),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "throttled", message)
            },
            AccountError::Busy(_) => Self::unavailable("overloaded", message),
            AccountError::Signing(error) => {
                tracing::error!(%error, "the access token could not be signed: a request was answered with 500");
                Self::internal()
            }
            AccountError::Database(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorFields { message: self.message, kind: self.kind, param: self.param, code: Some(self.code) };
        let mut response = (self.status, Json(ErrorBody { error })).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
