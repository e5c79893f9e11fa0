//! What needs a token, and with which scope: the one place where the document says so.

use utoipa::Modify;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};

use super::problems;
use crate::auth::Scope;

/// The operations that may need a token, and the scope that the token must then have.
const SCOPES: [(HttpMethod, &str, Scope); 14] = [
    (HttpMethod::Get, "/", Scope::ReadSegments),
    (HttpMethod::Get, "/pages/segment", Scope::ReadSegments),
    (HttpMethod::Get, "/pages/overlap", Scope::ReadSegments),
    (HttpMethod::Post, "/segments", Scope::WriteSegments),
    (HttpMethod::Post, "/segments/batch", Scope::WriteSegments),
    (HttpMethod::Get, "/segments", Scope::ReadSegments),
    (HttpMethod::Get, "/counts", Scope::ReadSegments),
    (HttpMethod::Get, "/segments/{name}/count", Scope::ReadSegments),
    (HttpMethod::Get, "/segments/{name}/histogram", Scope::ReadSegments),
    (HttpMethod::Get, "/segments/{name}/history", Scope::ReadSegments),
    (HttpMethod::Get, "/overlap", Scope::ReadSegments),
    (HttpMethod::Get, "/users/{user_id}/segments", Scope::ReadUsers),
    (HttpMethod::Delete, "/users/{user_id}", Scope::DeleteUsers),
    (HttpMethod::Get, "/metrics", Scope::ReadSegments),
];

const SCHEME: &str = "bearer";
const PASSWORD_SCHEME: &str = "password";
/// The tag of the pages.
const PAGES: &str = "pages";

/// Puts the scheme into the document, and what it means to each operation.
pub struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let description = "A token, if the service is set to ask for one.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
        let description = "The same token as a password, under any name: on the pages alone.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some(description)).build();
        components.add_security_scheme(PASSWORD_SCHEME, SecurityScheme::Http(scheme));
        for (method, path, scope) in SCOPES {
            let path = document.paths.paths.get_mut(path).expect("the document has the path");
            let operation = match method {
                HttpMethod::Get => &mut path.get,
                HttpMethod::Delete => &mut path.delete,
                _ => &mut path.post,
            };
            let operation = operation.as_mut().expect("the path has the method");
            let token = |scheme| SecurityRequirement::new(scheme, [scope.as_str()]);
            let mut security = vec![SecurityRequirement::default(), token(SCHEME)];
            if operation.tags.iter().flatten().any(|tag| tag == PAGES) {
                security.push(token(PASSWORD_SCHEME));
                operation.responses.responses.extend(problems::of_a_closed_page());
            } else {
                for (status, response) in problems::shared(["Unauthorized", "InsufficientScope"]) {
                    // Unless the operation says more of it.
                    operation.responses.responses.entry(status).or_insert(response);
                }
            }
            operation.security = Some(security);
        }
    }
}
