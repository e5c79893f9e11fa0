//! What needs a token, and with which scope: the one place where the document says so.

use utoipa::Modify;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};

use super::problems;
use crate::auth::Scope;

/// The operations that may need a token, and the scope that the token must then have.
const SCOPES: [(HttpMethod, &str, Scope); 5] = [
    (HttpMethod::Post, "/segments", Scope::WriteSegments),
    (HttpMethod::Post, "/segments/batch", Scope::WriteSegments),
    (HttpMethod::Get, "/segments/{name}/count", Scope::ReadSegments),
    (HttpMethod::Get, "/segments/{name}/history", Scope::ReadSegments),
    (HttpMethod::Get, "/metrics", Scope::ReadSegments),
];

const SCHEME: &str = "bearer";

/// Puts the scheme into the document, and what it means to each operation.
pub struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let description = "A token, if the service is set to ask for one.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        document.components.get_or_insert_default().add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
        for (method, path, scope) in SCOPES {
            let path = document.paths.paths.get_mut(path).expect("the document has the path");
            let operation = match method {
                HttpMethod::Get => &mut path.get,
                _ => &mut path.post,
            };
            let operation = operation.as_mut().expect("the path has the method");
            operation.security =
                Some(vec![SecurityRequirement::default(), SecurityRequirement::new(SCHEME, [scope.as_str()])]);
            operation.responses.responses.extend(problems::shared(["Unauthorized", "InsufficientScope"]));
        }
    }
}
