//! Extractors of path parameters.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use utoipa::IntoParams;

use crate::domain::{SegmentName, UserId};
use crate::http::docs::openapi::schemas;
use crate::http::problem::{Problem, Result};

/// Segment in the path.
#[derive(IntoParams)]
#[into_params(names("name"), parameter_in = Path)]
pub struct SegmentPath(
    /// The segment's name, percent-encoded: `a%2Fb` is the segment `a/b`. Most clients resolve `.` and `..` before they
    /// send the path.
    #[param(inline, value_type = schemas::SegmentName, example = "sports")]
    pub SegmentName<'static>,
);

/// User in the path.
#[derive(IntoParams)]
#[into_params(names("user_id"), parameter_in = Path)]
pub struct UserPath(
    /// The user's id, percent-encoded.
    #[param(inline, value_type = schemas::UserId, example = "u104010")]
    pub UserId<'static>,
);

/// Segment and user in the path.
#[derive(IntoParams)]
#[into_params(names("name", "user_id"), parameter_in = Path)]
pub struct MemberPath(
    /// The segment's name, percent-encoded.
    #[param(inline, value_type = schemas::SegmentName, example = "sports")]
    pub SegmentName<'static>,
    /// The user's id, percent-encoded.
    #[param(inline, value_type = schemas::UserId, example = "u104010")]
    pub UserId<'static>,
);

impl<S: Send + Sync> FromRequestParts<S> for SegmentPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let name = SegmentName::parse(parameter("segment", parts, state).await?)?;
        Ok(Self(name))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let id = UserId::parse(parameter("user_id", parts, state).await?)?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MemberPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((name, id))) => Ok(Self(SegmentName::parse(name)?, UserId::parse(id)?)),
            Err(error) => Err(Problem::invalid_field(field_of(&error), NOT_UTF8)),
        }
    }
}

/// Returns the name in errors of the parameter that can't be decoded.
fn field_of(error: &PathRejection) -> &'static str {
    match error {
        PathRejection::FailedToDeserializePathParams(error) => match error.kind() {
            ErrorKind::InvalidUtf8InPathParam { key } if key == "user_id" => "user_id",
            _ => "segment",
        },
        _ => "segment",
    }
}

const NOT_UTF8: &str = "must be UTF-8, percent-encoded";

/// Returns the only parameter of the path. `field` is its name in errors.
async fn parameter<S: Send + Sync>(field: &'static str, parts: &mut Parts, state: &S) -> Result<String> {
    match Path::from_request_parts(parts, state).await {
        Ok(Path(text)) => Ok(text),
        Err(_) => Err(Problem::invalid_field(field, NOT_UTF8)),
    }
}
