//! Request bodies: media type, compression, size limit and time limit.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use futures_util::future::{poll_immediate, ready};
use futures_util::{FutureExt as _, Stream, StreamExt as _, TryFutureExt as _, TryStreamExt, stream};
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::io::AsyncReadExt as _;
use tokio_util::bytes::BytesMut;
use tokio_util::io::StreamReader;

use super::gunzip::Gunzip;
use crate::http::problem::{Problem, ProblemKind, Result};
use crate::http::state::AppState;
use crate::ingest::Ingest;

/// Body with a single visit as uncompressed JSON.
pub struct VisitBody(pub Bytes);

impl FromRequest<Arc<AppState>> for VisitBody {
    type Rejection = Problem;

    // An async fn would hold the head of the request while the body arrives.
    fn from_request(request: Request, state: &Arc<AppState>) -> impl Future<Output = Result<Self>> {
        match check_head_of_visit(request.headers()) {
            Ok(()) => {
                let max_bytes = Ingest::MAX_LINE_BYTES.min(state.limits.body_bytes);
                read(request.into_body(), max_bytes, state.limits.body).map_ok(Self).left_future()
            }
            Err(problem) => ready(Err(problem)).right_future(),
        }
    }
}

/// Checks that the body is uncompressed JSON.
fn check_head_of_visit(headers: &HeaderMap) -> Result<()> {
    media_type(headers, &[MediaType::Json])?;
    if !is_uncompressed(headers) {
        return Err(unsupported("A body with a Content-Encoding is not accepted here; send it uncompressed."));
    }
    Ok(())
}

/// Media type of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// One JSON value.
    Json,
    /// One JSON value per line.
    Lines,
}

impl MediaType {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// Returns the media type of the body.
///
/// # Errors
///
/// A [`Problem`] if it is missing or not one of `accepted`.
pub fn media_type(headers: &HeaderMap, accepted: &[MediaType]) -> Result<MediaType> {
    let names = || accepted.iter().map(|accepted| accepted.name()).collect::<Vec<_>>().join(" or ");
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return Err(unsupported(format!("The request has no Content-Type; it must be {}.", names())));
    };
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let declared = accepted.iter().find(|accepted| essence.eq_ignore_ascii_case(accepted.name()));
    declared.copied().ok_or_else(|| unsupported(format!("The Content-Type must be {}.", names())))
}

/// Decompresses `body` while it arrives.
///
/// # Errors
///
/// A [`Problem`] if the content encoding is not gzip.
pub fn decompressed(headers: &HeaderMap, body: Body) -> Result<Body> {
    /// Decompressed bytes per frame.
    const FRAME_BYTES: usize = 64 * 1024;
    if is_uncompressed(headers) {
        return Ok(body);
    }
    // x-gzip is an alias of gzip (RFC 9110, section 8.4.1.3).
    if !encoding_is(headers, "gzip") && !encoding_is(headers, "x-gzip") {
        return Err(unsupported("The only supported Content-Encoding is gzip."));
    }
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    let compressed = TryStreamExt::map_err(body.into_data_stream(), io::Error::other).inspect_ok(move |frame| {
        counter.fetch_add(frame.len() as u64, Ordering::Relaxed);
    });
    let state = Decompression::Running { decoder: Gunzip::new(StreamReader::new(compressed)), decompressed: 0 };
    let frames = stream::unfold(state, move |state| state.next(received.load(Ordering::Relaxed), FRAME_BYTES));
    Ok(Body::from_stream(frames))
}

/// State of a compressed body that is read frame by frame.
enum Decompression<S> {
    Running {
        decoder: Gunzip<StreamReader<S, Bytes>>,
        decompressed: u64,
    },
    /// Decompression has failed. The remaining input is discarded.
    Failed(Option<S>),
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Decompression<S> {
    /// Returns the next frame of up to `max_bytes`. `received` is the number of compressed bytes received so far.
    async fn next(self, received: u64, max_bytes: usize) -> Option<(io::Result<Bytes>, Self)> {
        let (mut decoder, decompressed) = match self {
            Self::Running { decoder, decompressed } => (decoder, decompressed),
            Self::Failed(compressed) => {
                let mut compressed = compressed?;
                let frame = compressed.next().await?;
                return Some((frame.map(|_| Bytes::new()), Self::Failed(Some(compressed))));
            }
        };
        let mut frame = BytesMut::with_capacity(max_bytes);
        let read = decoder.read_buf(&mut frame).await;
        let decompressed = decompressed + frame.len() as u64;
        let error = match read {
            Ok(0) => return None,
            // Input that was received for this frame counts towards the limit of the next one.
            Ok(_) if decompressed <= RATIO_EXEMPT_BYTES + MAX_RATIO * received => {
                return Some((Ok(frame.freeze()), Self::Running { decoder, decompressed }));
            }
            Ok(_) => io::Error::other(RatioExceeded),
            Err(error) => error,
        };
        Some((Err(error), Self::Failed(decoder.into_compressed().map(StreamReader::into_inner))))
    }
}

/// Maximum ratio of decompressed to compressed bytes. gzip reaches 1,000. Visits reach 4 to 30, long names that differ
/// in a few digits 120, lines that are repeated ten times 135.
const MAX_RATIO: u64 = 200;
/// Decompressed bytes that are exempt from the ratio. A body of this size is cheap.
const RATIO_EXEMPT_BYTES: u64 = 1024 * 1024;

/// A compressed body exceeds [`MAX_RATIO`].
#[derive(Debug, thiserror::Error)]
#[error("the compression ratio exceeds {MAX_RATIO}")]
struct RatioExceeded;

fn is_uncompressed(headers: &HeaderMap) -> bool {
    !headers.contains_key(CONTENT_ENCODING) || encoding_is(headers, "identity")
}

fn encoding_is(headers: &HeaderMap, name: &str) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(name.as_bytes()))
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::UnsupportedMediaType, detail)
}

/// Reads `body` to its end. Does not wait for a body whose declared length exceeds the limit.
///
/// # Errors
///
/// A [`Problem`] if the body exceeds `max_bytes` or `timeout`, or can't be read.
pub async fn read(body: Body, max_bytes: usize, timeout: Duration) -> Result<Bytes> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large(max_bytes));
    }
    let mut reading = pin!(axum::body::to_bytes(body, max_bytes));
    let read = match poll_immediate(reading.as_mut()).await {
        Some(read) => read,
        // Boxed because most bodies arrive with the head: their requests are spared the room for a timer.
        None => Box::pin(tokio::time::timeout(timeout, reading)).await.map_err(|_| too_slow(timeout))?,
    };
    read.map_err(|error| if is_too_large(&error) { too_large(max_bytes) } else { unreadable(&error) })
}

/// Discards the rest of `body` in the background for a short time. Many senders read the response only after they have
/// sent everything; without this, they would find the connection reset.
pub fn discard(mut body: Body) {
    /// Long enough for data in flight, short enough not to delay a shutdown.
    const TIMEOUT: Duration = Duration::from_secs(2);
    tokio::spawn(tokio::time::timeout(TIMEOUT, async move {
        while let Some(Ok(_)) = body.frame().await {
            tokio::task::yield_now().await;
        }
    }));
}

/// Returns the problem of a body that ended early or is not encoded as declared.
pub fn unreadable(error: &axum::Error) -> Problem {
    if exceeds_ratio(error) {
        let detail = format!(
            "The body decompresses to more than {MAX_RATIO} times its size, which is not accepted. Repeated lines count once: omit \
             them, or send the body uncompressed."
        );
        return Problem::new(ProblemKind::BodyTooLarge, detail);
    }
    Problem::new(ProblemKind::Malformed, format!("The body could not be read to its end: {error}."))
}

/// Returns the problem of a body that exceeds `max_bytes`.
pub fn too_large(max_bytes: usize) -> Problem {
    Problem::new(ProblemKind::BodyTooLarge, format!("The body is longer than {max_bytes} bytes, the limit here."))
}

/// Returns the problem of a body that did not arrive within `timeout`.
pub fn too_slow(timeout: Duration) -> Problem {
    let timeout = humantime::format_duration(timeout);
    Problem::new(ProblemKind::BodyTimeout, format!("The body was not complete after {timeout}."))
}

fn exceeds_ratio(error: &axum::Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    // The source of an I/O error is not the error that it wraps.
    let wrapped = causes.find_map(|cause| cause.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
    wrapped.is_some_and(|cause| cause.is::<RatioExceeded>())
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<LengthLimitError>())
}
