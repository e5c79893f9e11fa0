//! Extractors of path parameters.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
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
        let name: String = parameters(parts, state).await?;
        Ok(Self(SegmentName::parse(name)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let id: String = parameters(parts, state).await?;
        Ok(Self(UserId::parse(id)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MemberPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let (name, id): (String, String) = parameters(parts, state).await?;
        Ok(Self(SegmentName::parse(name)?, UserId::parse(id)?))
    }
}

/// Returns the parameters of the path: a text, or a tuple of texts.
async fn parameters<T: DeserializeOwned + Send, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T> {
    let parameters = Path::from_request_parts(parts, state).await;
    let Path(texts) = parameters.map_err(|why| Problem::invalid_field(field(why), "must be UTF-8, percent-encoded"))?;
    Ok(texts)
}

/// Returns the field of the parameter that could not be decoded.
fn field(why: PathRejection) -> String {
    match why {
        PathRejection::FailedToDeserializePathParams(why) => match why.into_kind() {
            // Errors name the field of a visit.
            ErrorKind::InvalidUtf8InPathParam { key } if key == "name" => "segment".to_owned(),
            ErrorKind::InvalidUtf8InPathParam { key } => key,
            _ => "path".to_owned(),
        },
        _ => "path".to_owned(),
    }
}
