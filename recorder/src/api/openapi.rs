//! The OpenAPI document, generated from the code of the routes.

use axum::Json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, PathItem, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::error::{ErrorBody, ErrorFields};
use super::{
    admin, api_keys, audit, auth, chats, conversations, docs, events, gateway_routes, limits, messages, own_limits,
    projects, usage, users,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stenograph",
        description = "Accounts, and reading the record. The chat endpoints are those that OpenAI's clients know, and not described here.",
        license(name = "MIT", identifier = "MIT")
    ),
    paths(
        auth::register, auth::login, auth::refresh, auth::logout, auth::password, users::me,
        users::profile, usage::of_user,
        conversations::list, gateway_routes::create, conversations::one, gateway_routes::change, gateway_routes::delete, messages::list,
        chats::list, chats::list_all, chats::one, gateway_routes::stop_chat, gateway_routes::stream_answer,
        events::stream,
        api_keys::list, api_keys::issue, api_keys::one, api_keys::change, api_keys::revoke, api_keys::list_all,
        usage::of_all, admin::failures, admin::users, admin::change_user, admin::invites, admin::create_invite,
        admin::revoke_invite, audit::list,
        own_limits::list,
        limits::list, limits::one, limits::set, limits::clear,
        projects::list, projects::one, projects::keys, projects::usage,
        projects::list_all, projects::create, projects::change,
        document, docs::keys
    ),
    components(schemas(ErrorBody, ErrorFields)),
    modifiers(&CommonResponses)
)]
struct ApiDocument;

/// Adds the security schemes and error responses that all routes have in common.
struct CommonResponses;

/// The error responses of every route, by HTTP status.
const ERRORS: [(&str, &str); 8] = [
    ("400", "Something in the request is wrong: `param` says what, where it is one thing"),
    ("401", "No token, or one that is not good"),
    ("403", "Not allowed"),
    ("404", "It is not there, or it is someone else's"),
    ("409", "It is taken"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    ("429", "Too many: `Retry-After` says when to come again"),
];

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "about", security(()), responses((status = 200, body = Object)))]
pub(super) async fn document() -> Json<Document> {
    Json(openapi_document())
}

/// Returns the OpenAPI document, as served at `/api/openapi.json`.
pub fn openapi_document() -> Document {
    ApiDocument::openapi()
}

impl Modify for CommonResponses {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let cookie = ApiKey::Cookie(ApiKeyValue::new("__Host-stenograph_session"));
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(cookie));
        let security = |name: &str| utoipa::openapi::security::SecurityRequirement::new(name, Vec::<String>::new());
        document.security = Some(vec![security("token"), security("cookie")]);
        for item in document.paths.paths.values_mut() {
            errors_of(item);
        }
    }
}

fn errors_of(item: &mut PathItem) {
    let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete, &mut item.put];
    for operation in operations.into_iter().flatten() {
        let responses = &mut operation.responses.responses;
        for (status, description) in ERRORS.iter().chain([&("503", "The record cannot be read at the moment")]) {
            responses.entry((*status).to_owned()).or_insert_with(|| error(description));
        }
    }
}

fn error(description: &str) -> RefOr<Response> {
    let content = Content::new(Some(Ref::from_schema_name("ErrorBody")));
    ResponseBuilder::new().description(description).content("application/json", content).build().into()
}
