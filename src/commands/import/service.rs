//! A client of a running service: `POST /segments/batch`.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fmt, io};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};

use super::delivery::{DeliveryFailure, DeliveryResult};
use super::report::{PostOutcome, PostedVisits, ResponseBody};
use crate::ingest::Origins;
use crate::tls;

/// A client of a running service. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    client: Client,
    base: Url,
    batch: Url,
    /// The limit on the body of a request. It falls when the service or a proxy refuses a body as too large.
    max_bytes: Arc<AtomicUsize>,
}

impl Service {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// A service gives up on Redis long before this.
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

    /// Returns a client of the service at `url`, such as `http://localhost:8080`. It authenticates with `token`, and
    /// limits the body of a request to `max_bytes`.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub fn new(url: &str, token: Option<&str>, max_bytes: Option<usize>) -> Result<Self, String> {
        tls::use_aws_lc();
        let base = Url::parse(url).map_err(|error| format!("{url} is not a URL: {error}"))?;
        if !["http", "https"].contains(&base.scheme()) {
            return Err(format!("{url} is not the URL of a service, such as http://localhost:8080"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err("the URL must not contain a user or password; use --token-file".to_owned());
        }
        let mut batch = base.clone();
        batch.set_query(None);
        batch.set_path(&format!("{}/segments/batch", base.path().trim_end_matches('/')));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| "the token contains invalid characters".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // No redirects: the token must not reach another server.
        let client = Client::builder().default_headers(headers).redirect(Policy::none());
        let client = client.connect_timeout(Self::CONNECT_TIMEOUT).timeout(Self::RESPONSE_TIMEOUT).build();
        let max_bytes = Arc::new(AtomicUsize::new(max_bytes.unwrap_or(usize::MAX)));
        Ok(Self { client: client.map_err(|error| reason(&error))?, base, batch, max_bytes })
    }

    /// Checks that the service accepts visits, with an empty batch.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub(super) async fn check_reachable(&self) -> Result<(), String> {
        match self.post_once(Vec::new(), &Origins::default(), 0..0).await {
            Ok(PostOutcome::Delivered(_)) => Ok(()),
            Ok(PostOutcome::TooLarge(why))
            | Err(DeliveryFailure::Transient { why, .. } | DeliveryFailure::Permanent(why)) => Err(why),
        }
    }

    /// Posts the visits of `text`, each on a line, which have these `origins` in the file. Splits the request in halves
    /// while it is too large.
    pub(super) async fn post(&self, text: &[u8], origins: &Origins) -> Result<DeliveryResult, DeliveryFailure> {
        let mut posted = PostedVisits::default();
        // After a failure the caller posts all again, including the halves that were delivered.
        let mut parts = vec![(text, 0..origins.len())];
        while let Some((text, visits)) = parts.pop() {
            let is_one = visits.len() < 2;
            if is_one || text.len() <= self.max_bytes.load(Ordering::Relaxed) {
                match self.post_once(text.to_vec(), origins, visits.clone()).await? {
                    PostOutcome::Delivered(part) => {
                        posted.add(part);
                        continue;
                    }
                    PostOutcome::TooLarge(why) if is_one => return Err(DeliveryFailure::Permanent(why)),
                    PostOutcome::TooLarge(_) => {}
                }
            }
            let half = visits.len() / 2;
            let middle = visits.start + half;
            let end = memchr::memchr_iter(b'\n', text).nth(half - 1).map_or(text.len(), |end| end + 1);
            parts.push((&text[end..], middle..visits.end));
            parts.push((&text[..end], visits.start..middle));
        }
        Ok(posted.into_result())
    }

    /// Posts the `visits` of a chunk, which are the lines of `text`.
    async fn post_once(
        &self,
        text: Vec<u8>,
        origins: &Origins,
        visits: Range<usize>,
    ) -> Result<PostOutcome, DeliveryFailure> {
        let bytes = text.len();
        let transient =
            |why, retry_after| DeliveryFailure::Transient { why: format!("{}: {why}", self.base), retry_after };
        // Only for the first request: a server that has answered before speaks HTTP.
        let hint = |error: &reqwest::Error| if visits.is_empty() && is_closed_early(error) { CLOSED_EARLY } else { "" };
        let unreachable = |error: reqwest::Error| transient(format!("{}{}", reason(&error), hint(&error)), None);
        let response = self.client.post(self.batch.clone()).body(text).send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(unreachable)?;
        let body: Option<ResponseBody> = serde_json::from_slice(&body).ok();
        let permanent = |why| DeliveryFailure::Permanent(format!("{}: {why}", self.base));
        match body {
            // If no visit is accepted, or too many are rejected, a problem holds the report.
            Some(body)
                if body.accepted.is_some() && [StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY].contains(&status) =>
            {
                body.outcome(origins, visits).ok_or_else(|| permanent(not_the_service(status, &headers)))
            }
            _ if status == StatusCode::PAYLOAD_TOO_LARGE => {
                // Three quarters, so that the next request of about this length is split without an attempt.
                self.max_bytes.fetch_min(bytes / 4 * 3, Ordering::Relaxed);
                Ok(PostOutcome::TooLarge(format!("{}: {status}, for a request of {bytes} bytes", self.base)))
            }
            _ if status.is_redirection() => Err(permanent(self.redirect_error(status, &headers))),
            body => {
                let detail = body.and_then(|body| body.detail.or(body.title));
                let is_transient = status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
                let why = match detail {
                    Some(detail) if status == StatusCode::NOT_FOUND => {
                        format!("404: {detail} Check --url: it must be the address of the service's root.")
                    }
                    Some(detail) => format!("{}: {detail}", status.as_u16()),
                    None if is_transient => status.to_string(),
                    None => not_the_service(status, &headers),
                };
                if !is_transient {
                    return Err(permanent(why));
                }
                let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Err(transient(why, retry_after.map(Duration::from_secs)))
            }
        }
    }

    /// Returns the error of a redirect, with the address that may be the right one.
    fn redirect_error(&self, status: StatusCode, headers: &HeaderMap) -> String {
        let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let Some(mut target) = location.and_then(|location| self.batch.join(location).ok()) else {
            return not_the_service(status, headers);
        };
        // The other parts may hold secrets.
        target.set_query(None);
        target.set_fragment(None);
        let _ = (target.set_username(""), target.set_password(None));
        if let Some(base) = target.path().strip_suffix("/segments/batch").map(|base| format!("{base}/")) {
            target.set_path(&base);
        }
        format!("{status} to {target} is not followed; if the service is there, set --url to that address")
    }
}

/// Returns the error of an answer from another server.
fn not_the_service(status: StatusCode, headers: &HeaderMap) -> String {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or("no content type");
    format!(
        "the answer {status} ({media_type}) is not from a segment-estimator; check the address in --url, and whether a proxy \
         answers instead, such as a login page"
    )
}

/// Returns the innermost cause of `error`, which the message of reqwest leaves out.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &(dyn Error + 'static) = error;
    let mut hint = "";
    while let Some(cause) = cause_of(innermost) {
        innermost = cause;
        if innermost.downcast_ref().is_some_and(hyper::Error::is_parse) {
            hint = "; the server does not speak HTTP: check the port in --url, and whether it must begin with https://";
        } else if matches!(innermost.downcast_ref(), Some(rustls::Error::InvalidMessage(_))) {
            hint = "; the server does not speak TLS: check the port in --url, and whether it must begin with http://";
        }
    }
    let timed_out = if error.is_timeout() { "timed out: " } else { "" };
    format!("{timed_out}{innermost}{hint}")
}

/// The hint if the server closes the first connection without an answer.
const CLOSED_EARLY: &str = "; the server closed the connection without an answer, as one of another protocol does, such as Redis: check the port in --url";

/// Returns whether the server closed the connection.
fn is_closed_early(error: &reqwest::Error) -> bool {
    const KINDS: [io::ErrorKind; 3] =
        [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| cause_of(*error)).any(|error| {
        error.downcast_ref().is_some_and(hyper::Error::is_incomplete_message)
            || error.downcast_ref().is_some_and(|error: &io::Error| KINDS.contains(&error.kind()))
    })
}

/// Returns the error that `error` wraps. For an I/O error, `source` would skip the wrapped error itself.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|wrapped| wrapped as &(dyn Error + 'static)),
        None => error.source(),
    }
}

/// Leaves out the token.
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
