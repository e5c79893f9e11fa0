//! The kinds of problems, with their statuses, types and titles.

use axum::http::StatusCode;

/// Kind of a problem, which determines its status, type and title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The body is not JSON, or the request violates HTTP.
    Malformed,
    /// The request has no token, or the token is not accepted.
    Unauthorized,
    /// The token lacks the required scope.
    InsufficientScope,
    /// No route has the path.
    NotFound,
    /// The route does not have the method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body exceeds its size limit.
    BodyTooLarge,
    /// The media type or the content encoding is not supported.
    UnsupportedMediaType,
    /// The `Host` header names a host that is not allowed.
    Misdirected,
    /// The request is well-formed, but its content is invalid.
    Invalid,
    /// The visit would create a segment beyond the segment limit.
    TooManySegments,
    /// The segment keeps a sample of its users, so that a list of them can't be complete.
    Sampled,
    /// Some visits of a strict batch were rejected.
    SomeRejected,
    /// A batch was aborted because too many of its lines were rejected.
    TooManyRejected,
    /// All permits for overlaps are taken.
    TooManyOverlaps,
    /// All permits for lists and requests for users are taken.
    TooManyLists,
    /// All permits for lists of members are taken.
    TooManyMemberLists,
    /// A handler panicked, or the framework failed.
    Internal,
    /// Redis did not answer, or answered with an error.
    Unavailable,
    /// Too many requests are in flight or wait for Redis.
    Overloaded,
    /// The request exceeded its time limit.
    RequestTimeout,
    /// The service is shutting down.
    Stopping,
}

/// What all problems of a kind have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindDescription {
    pub status: StatusCode,
    /// The type without its prefix.
    pub slug: &'static str,
    pub title: &'static str,
}

impl ProblemKind {
    /// Returns what all problems of this kind have in common.
    #[must_use]
    pub const fn describe(self) -> KindDescription {
        let (status, slug, title) = match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed-request", "The request can't be read"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "Missing or invalid token"),
            Self::InsufficientScope => (StatusCode::FORBIDDEN, "insufficient-scope", "The token doesn't allow this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body didn't arrive in time"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported content type")
            }
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected-request", "The host is not allowed"),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "The request is not valid"),
            Self::TooManySegments => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too-many-segments", "The segment limit is reached")
            }
            Self::Sampled => (StatusCode::UNPROCESSABLE_ENTITY, "sampled", "The segment keeps a sample of its users"),
            Self::SomeRejected => (StatusCode::UNPROCESSABLE_ENTITY, "some-rejected", "Some visits were rejected"),
            Self::TooManyRejected => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too-many-rejected", "Too many lines were rejected")
            }
            Self::TooManyOverlaps => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-overlaps", "Too many overlaps are in progress")
            }
            Self::TooManyLists => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-lists",
                "Too many lists or requests for users are in progress",
            ),
            Self::TooManyMemberLists => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-member-lists", "Too many lists of members are in progress")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal-error", "The service failed"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "Redis can't answer now"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests are in progress"),
            Self::RequestTimeout => (StatusCode::SERVICE_UNAVAILABLE, "request-timeout", "The request took too long"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping"),
        };
        KindDescription { status, slug, title }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.describe().status
    }

    pub(super) const fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::InsufficientScope,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::BodyTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::MISDIRECTED_REQUEST => Self::Misdirected,
            StatusCode::UNPROCESSABLE_ENTITY => Self::Invalid,
            status if status.as_u16() < 500 => Self::Malformed,
            _ => Self::Internal,
        }
    }
}
