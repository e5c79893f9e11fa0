//! Taking in a request's body: its declared type, how it is packed, its size and the time it may take.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use futures_util::{Stream, StreamExt as _, TryStreamExt, stream};
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::io::AsyncReadExt as _;
use tokio_util::bytes::BytesMut;
use tokio_util::io::StreamReader;

use super::gunzip::Gunzip;
use crate::http::problem::{Problem, ProblemKind, Result};

/// What a body may be declared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// One JSON value.
    Json,
    /// A JSON value on each line.
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

/// Which of the `accepted` types the body is declared as.
pub fn media_type(headers: &HeaderMap, accepted: &[MediaType]) -> Result<MediaType> {
    let names = || accepted.iter().map(|accepted| accepted.name()).collect::<Vec<_>>().join(" or ");
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return Err(unsupported(format!("The request has no Content-Type; it must be {}.", names())));
    };
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let declared = accepted.iter().find(|accepted| essence.eq_ignore_ascii_case(accepted.name()));
    declared.copied().ok_or_else(|| unsupported(format!("The Content-Type must be {}.", names())))
}

/// Refuses a body that is not in plain bytes.
pub fn require_plain(headers: &HeaderMap) -> Result<()> {
    if is_plain(headers) {
        return Ok(());
    }
    Err(unsupported("A body with a Content-Encoding is not accepted here; send it uncompressed."))
}

/// `body` in plain bytes, unpacked as it arrives if it is compressed.
pub fn unpacked(headers: &HeaderMap, body: Body) -> Result<Body> {
    /// Of unpacked bytes at a time, whatever the packed ones grow to.
    const PIECE: usize = 64 * 1024;
    if is_plain(headers) {
        return Ok(body);
    }
    // RFC 9110, 8.4.1.3: the second is an old name of the first.
    if !encoding_is(headers, "gzip") && !encoding_is(headers, "x-gzip") {
        return Err(unsupported("A body may be compressed with gzip; another Content-Encoding is not accepted."));
    }
    let arrived = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&arrived);
    let packed = TryStreamExt::map_err(body.into_data_stream(), io::Error::other).inspect_ok(move |piece| {
        counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
    });
    let begun = Unpacking::Begun { decoder: Gunzip::new(StreamReader::new(packed)), unpacked: 0 };
    let pieces = stream::unfold(begun, move |unpacking| unpacking.next(arrived.load(Ordering::Relaxed), PIECE));
    Ok(Body::from_stream(pieces))
}

/// A compressed body that is read in pieces.
enum Unpacking<P> {
    /// So many bytes were unpacked.
    Begun { decoder: Gunzip<StreamReader<P, Bytes>>, unpacked: u64 },
    /// Unpacking has failed. The rest is discarded as it is.
    BrokenOff(Option<P>),
}

impl<P: Stream<Item = io::Result<Bytes>> + Unpin> Unpacking<P> {
    /// The next piece, of up to `size` bytes. `arrived` bytes of the compressed body have arrived before.
    async fn next(self, arrived: u64, size: usize) -> Option<(io::Result<Bytes>, Self)> {
        let (mut decoder, unpacked) = match self {
            Self::Begun { decoder, unpacked } => (decoder, unpacked),
            Self::BrokenOff(packed) => {
                let mut packed = packed?;
                let piece = packed.next().await?;
                return Some((piece.map(|_| Bytes::new()), Self::BrokenOff(Some(packed))));
            }
        };
        let mut piece = BytesMut::with_capacity(size);
        let read = decoder.read_buf(&mut piece).await;
        let unpacked = unpacked + piece.len() as u64;
        let error = match read {
            Ok(0) => return None,
            // What arrived with this piece counts for the next.
            Ok(_) if unpacked <= UNPACKED_ALLOWANCE + MAX_RATIO * arrived => {
                return Some((Ok(piece.freeze()), Self::Begun { decoder, unpacked }));
            }
            Ok(_) => io::Error::other(TooTightlyPacked),
            Err(error) => error,
        };
        Some((Err(error), Self::BrokenOff(decoder.into_packed().map(StreamReader::into_inner))))
    }
}

/// How many bytes each byte of a compressed body may unpack to. gzip reaches 1,000. Visits reach 4 to 30, of long names that differ
/// in a few digits 120, of lines that stand there ten times 135.
const MAX_RATIO: u64 = 200;
/// What any compressed body may unpack to: as much as may come in plain bytes at no cost worth speaking of.
const UNPACKED_ALLOWANCE: u64 = 1024 * 1024;

/// A compressed body unpacks to more than [`MAX_RATIO`] times its size.
#[derive(Debug, thiserror::Error)]
#[error("it unpacks to more than {MAX_RATIO} times its size")]
struct TooTightlyPacked;

fn is_plain(headers: &HeaderMap) -> bool {
    !headers.contains_key(CONTENT_ENCODING) || encoding_is(headers, "identity")
}

fn encoding_is(headers: &HeaderMap, name: &str) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(name.as_bytes()))
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::UnsupportedMediaType, detail)
}

/// Reads all of `body`, which must arrive within `time_limit` and be no longer than `max_bytes`. One that is declared to be longer
/// is not waited for.
pub async fn read(body: Body, max_bytes: usize, time_limit: Duration) -> Result<Bytes> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large(max_bytes));
    }
    match tokio::time::timeout(time_limit, axum::body::to_bytes(body, max_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_about_length(&error) => Err(too_large(max_bytes)),
        Ok(Err(error)) => Err(unreadable(&error)),
        Err(_) => Err(too_slow(time_limit)),
    }
}

/// Takes what still arrives of `body` for a while beside the answer. Many senders look for one only when they have sent
/// everything, and would find the connection reset instead.
pub fn discard(mut body: Body) {
    /// Long enough for what is on its way, and no reason to hold up a stop.
    const PATIENCE: Duration = Duration::from_secs(2);
    tokio::spawn(tokio::time::timeout(PATIENCE, async move {
        while let Some(Ok(_)) = body.frame().await {
            tokio::task::yield_now().await;
        }
    }));
}

/// The body broke off, or is not encoded as declared.
pub fn unreadable(error: &axum::Error) -> Problem {
    if is_too_tightly_packed(error) {
        return too_tightly_packed();
    }
    Problem::new(ProblemKind::Malformed, format!("The body could not be read to its end: {error}."))
}

/// The body is longer than `max_bytes`.
pub fn too_large(max_bytes: usize) -> Problem {
    let detail = format!("The body is longer than {max_bytes} bytes, the most that is accepted here.");
    Problem::new(ProblemKind::BodyTooLarge, detail)
}

/// The body unpacks to more than it may.
pub fn too_tightly_packed() -> Problem {
    let detail = format!(
        "The body unpacks to more than {MAX_RATIO} times its size, the most that is accepted. Lines that stand there many times \
         count once: leave the others out, or send the body uncompressed."
    );
    Problem::new(ProblemKind::BodyTooLarge, detail)
}

/// The body didn't arrive within `time_limit`.
pub fn too_slow(time_limit: Duration) -> Problem {
    let limit = humantime::format_duration(time_limit);
    Problem::new(ProblemKind::BodyTimeout, format!("The body was not complete after {limit}."))
}

fn is_too_tightly_packed(error: &axum::Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    // An I/O error doesn't give what it was made of as its source.
    let made_of = causes.find_map(|cause| cause.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
    made_of.is_some_and(|cause| cause.is::<TooTightlyPacked>())
}

fn is_about_length(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<LengthLimitError>())
}
