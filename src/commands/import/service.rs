//! A service that takes visits over HTTP: `POST /segments/batch`.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fmt, io};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::delivery::{ChunkResult, Failure};
use crate::ingest::LineError;
use crate::tls;

/// A service that takes visits over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    client: Client,
    base: Url,
    batch: Url,
    /// The greatest body of a request that is tried. It falls when something on the way takes less.
    max_bytes: Arc<AtomicUsize>,
}

/// The members of an answer, and of a problem, that matter here. All of one or the other are there.
#[derive(Deserialize)]
struct Answer {
    accepted: Option<u64>,
    #[serde(default)]
    expired: u64,
    #[serde(default)]
    rejected: u64,
    #[serde(default)]
    errors: Vec<AnswerError>,
    #[serde(default)]
    errors_truncated: bool,
    /// Where it broke off, if it is a problem.
    done_through_line: Option<u64>,
    title: Option<String>,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct AnswerError {
    line: Option<u64>,
    field: Option<String>,
    detail: String,
}

/// What became of a request.
enum Outcome {
    /// The service took it in.
    Sent(ChunkResult),
    /// It must be divided, for this reason: the answer doesn't tell all, or something on the way takes no body of this size.
    TooLarge(String),
}

impl Service {
    const CONNECT_LIMIT: Duration = Duration::from_secs(5);
    /// How long an answer may take. A service gives up on Redis long before.
    const ANSWER_LIMIT: Duration = Duration::from_secs(120);

    /// The service at `url`, such as `http://localhost:8080`, which is shown `token` if there is one, and is sent bodies of at most
    /// `max_bytes`.
    ///
    /// # Errors
    ///
    /// What is wrong with either, in one line.
    pub fn new(url: &str, token: Option<&str>, max_bytes: Option<usize>) -> Result<Self, String> {
        tls::use_aws_lc();
        let base = Url::parse(url).map_err(|error| format!("{url} is no URL: {error}"))?;
        if !["http", "https"].contains(&base.scheme()) {
            return Err(format!("{url} is no URL of a service, such as http://localhost:8080"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err("a URL must not hold a password; a token comes from a file".to_owned());
        }
        let mut batch = base.clone();
        batch.set_query(None);
        batch.set_path(&format!("{}/segments/batch", base.path().trim_end_matches('/')));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| "the token has characters that no token has".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // A token must not follow a redirection to somewhere else.
        let client = Client::builder().default_headers(headers).redirect(Policy::none());
        let client = client.connect_timeout(Self::CONNECT_LIMIT).timeout(Self::ANSWER_LIMIT).build();
        let max_bytes = Arc::new(AtomicUsize::new(max_bytes.unwrap_or(usize::MAX)));
        Ok(Self { client: client.map_err(|error| reason(&error))?, base, batch, max_bytes })
    }

    /// Sees that the service takes visits from us, by sending none.
    ///
    /// # Errors
    ///
    /// Why not, in one line.
    pub(super) async fn greet(&self) -> Result<(), String> {
        match self.post_once(Vec::new(), &[]).await {
            Ok(Outcome::Sent(_)) => Ok(()),
            Ok(Outcome::TooLarge(why)) | Err(Failure::Transient { why, .. } | Failure::Permanent(why)) => Err(why),
        }
    }

    /// Posts the visits of `text`, which stand on `lines` of the file.
    pub(super) async fn post(&self, text: &[u8], lines: &[u64]) -> Result<ChunkResult, Failure> {
        let mut delivered = ChunkResult::default();
        // Halves that were taken in already may come again.
        let mut parts = vec![(text, lines)];
        while let Some((text, lines)) = parts.pop() {
            let is_one = lines.len() < 2;
            if is_one || text.len() <= self.max_bytes.load(Ordering::Relaxed) {
                match self.post_once(text.to_vec(), lines).await? {
                    Outcome::Sent(part) => {
                        delivered.add(part);
                        continue;
                    }
                    Outcome::TooLarge(why) if is_one => return Err(Failure::Permanent(why)),
                    Outcome::TooLarge(_) => {}
                }
            }
            let half = lines.len() / 2;
            let end = memchr::memchr_iter(b'\n', text).nth(half - 1).map_or(text.len(), |end| end + 1);
            parts.push((&text[end..], &lines[half..]));
            parts.push((&text[..end], &lines[..half]));
        }
        Ok(delivered)
    }

    async fn post_once(&self, text: Vec<u8>, lines: &[u64]) -> Result<Outcome, Failure> {
        let bytes = text.len();
        let passing = |why, pause| Failure::Transient { why: format!("{}: {why}", self.base), pause };
        // What has answered before speaks HTTP, and hangs up when it ends.
        let hint = |error: &reqwest::Error| if lines.is_empty() && is_hung_up(error) { HUNG_UP } else { "" };
        let unreached = |error: reqwest::Error| passing(format!("{}{}", reason(&error), hint(&error)), None);
        let response = self.client.post(self.batch.clone()).body(text).send().await.map_err(unreached)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(unreached)?;
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        let lasting = |why| Failure::Permanent(format!("{}: {why}", self.base));
        match answer {
            // When no visit is accepted, or too many are rejected, the report is in a problem.
            Some(answer)
                if answer.accepted.is_some()
                    && [StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY].contains(&status) =>
            {
                answer.outcome(lines).ok_or_else(|| lasting(not_the_service(status, &headers)))
            }
            _ if status == StatusCode::PAYLOAD_TOO_LARGE => {
                // The halves of the next request, which are about as long as this one's, need not be tried in vain.
                self.max_bytes.fetch_min(bytes / 4 * 3, Ordering::Relaxed);
                Ok(Outcome::TooLarge(format!("{}: {status}, for a request of {bytes} bytes", self.base)))
            }
            _ if status.is_redirection() => Err(lasting(self.redirected(status, &headers))),
            answer => {
                let words = answer.and_then(|answer| answer.detail.or(answer.title));
                let is_passing = status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
                let why = match words {
                    Some(words) if status == StatusCode::NOT_FOUND => {
                        format!("404: {words} Check the address in --url, which is that of the service's root.")
                    }
                    Some(words) => format!("{}: {words}", status.as_u16()),
                    None if is_passing => status.to_string(),
                    None => not_the_service(status, &headers),
                };
                if !is_passing {
                    return Err(lasting(why));
                }
                let pause = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Err(passing(why, pause.map(Duration::from_secs)))
            }
        }
    }

    /// Why a redirection ends the import, with the address that may be meant.
    fn redirected(&self, status: StatusCode, headers: &HeaderMap) -> String {
        let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let Some(mut target) = location.and_then(|location| self.batch.join(location).ok()) else {
            return not_the_service(status, headers);
        };
        // What else stands in it may be a secret.
        target.set_query(None);
        target.set_fragment(None);
        let _ = (target.set_username(""), target.set_password(None));
        if let Some(base) = target.path().strip_suffix("/segments/batch").map(|base| format!("{base}/")) {
            target.set_path(&base);
        }
        format!("{status} to {target}, which is not followed; if the service is there, give that address to --url")
    }
}

/// Something else answers at the address.
fn not_the_service(status: StatusCode, headers: &HeaderMap) -> String {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or("of no type");
    format!(
        "the answer, {status} ({media_type}), is not that of a segment estimator; check the address in --url, and whether \
         something in front of the service answers instead, such as a login page"
    )
}

impl Answer {
    /// What became of the visits on `lines` of the file; none if this is no answer of the service to them.
    fn outcome(self, lines: &[u64]) -> Option<Outcome> {
        // It lists so many errors and no more, and may break off at too many.
        let is_to_the_end = self.done_through_line.is_none_or(|done| done >= lines.len() as u64);
        if (self.errors_truncated || !is_to_the_end) && lines.len() > 1 {
            return Some(Outcome::TooLarge("the answer doesn't tell of all lines".to_owned()));
        }
        let mut delivered = ChunkResult {
            accepted: self.accepted?,
            expired: self.expired,
            rejected: self.rejected,
            errors: Vec::new(),
        };
        let visits = delivered.accepted.checked_add(delivered.expired)?.checked_add(delivered.rejected)?;
        if visits != lines.len() as u64 {
            return None;
        }
        for AnswerError { line, field, detail } in self.errors {
            let place = usize::try_from(line?.checked_sub(1)?).ok()?;
            let line = *lines.get(place)?;
            delivered.errors.push(LineError { line, field: field.map(Into::into), detail });
        }
        Some(Outcome::Sent(delivered))
    }
}

impl ChunkResult {
    fn add(&mut self, Self { accepted, expired, rejected, errors }: Self) {
        self.accepted += accepted;
        self.expired += expired;
        self.rejected += rejected;
        self.errors.extend(errors);
    }
}

/// Why there is no answer. The library's own words leave the cause to those that it is wrapped in.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &(dyn Error + 'static) = error;
    let mut hint = "";
    while let Some(cause) = cause_of(innermost) {
        innermost = cause;
        if innermost.downcast_ref().is_some_and(hyper::Error::is_parse) {
            hint = "; it speaks no HTTP: check the port in --url, and whether it begins with https://";
        } else if matches!(innermost.downcast_ref(), Some(rustls::Error::InvalidMessage(_))) {
            hint = "; it speaks no TLS: check the port in --url, and whether it begins with http://";
        }
    }
    let timed_out = if error.is_timeout() { "no answer in time: " } else { "" };
    format!("{timed_out}{innermost}{hint}")
}

/// What may be wrong when the other side hangs up without an answer.
const HUNG_UP: &str =
    "; it hung up without an answer, as what speaks no HTTP does, such as Redis: check the port in --url";

/// Whether the other side has ended the connection.
fn is_hung_up(error: &reqwest::Error) -> bool {
    const KINDS: [io::ErrorKind; 3] =
        [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| cause_of(*error)).any(|error| {
        error.downcast_ref().is_some_and(hyper::Error::is_incomplete_message)
            || error.downcast_ref().is_some_and(|error: &io::Error| KINDS.contains(&error.kind()))
    })
}

/// What `error` wraps. That of an I/O error is the source of what it wraps, and not that itself.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|wrapped| wrapped as &(dyn Error + 'static)),
        None => error.source(),
    }
}

/// Where it is: its token is nobody's business.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str())
    }
}
