//! A service that takes visits over HTTP: `POST /segments/batch`.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::target::{Delivered, Failure};
use crate::crypto;
use crate::ingest::LineError;

/// A service that takes visits over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    client: Client,
    base: Url,
    batch: Url,
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

/// What a request was answered with, if not with a problem.
struct Report {
    delivered: Delivered,
    is_complete: bool,
}

impl Service {
    const CONNECT_LIMIT: Duration = Duration::from_secs(5);
    /// How long an answer may take. A service gives up on Redis long before.
    const ANSWER_LIMIT: Duration = Duration::from_secs(120);

    /// The service at `url`, such as `http://localhost:8080`, which is shown `token` if there is one.
    ///
    /// # Errors
    ///
    /// What is wrong with either, in one line.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, String> {
        crypto::use_aws_lc();
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
        Ok(Self { client: client.map_err(|error| reason(&error))?, base, batch })
    }

    /// Sees that the service takes visits from us, by sending none.
    ///
    /// # Errors
    ///
    /// Why not, in one line.
    pub(super) async fn greet(&self) -> Result<(), String> {
        match self.post_once(Vec::new(), &[]).await {
            Ok(_) => Ok(()),
            Err(Failure::Passing { why, .. } | Failure::Lasting(why)) => Err(why),
        }
    }

    /// Posts the visits of `text`, which stand on `lines` of the file.
    pub(super) async fn post(&self, text: &[u8], lines: &[u64]) -> Result<Delivered, Failure> {
        let mut delivered = Delivered::default();
        // An answer lists so many errors and no more, and may break off at too many. Halves that were taken in already may come again.
        let mut parts = vec![(text, lines)];
        while let Some((text, lines)) = parts.pop() {
            let report = self.post_once(text.to_vec(), lines).await?;
            if report.is_complete || lines.len() < 2 {
                delivered.add(report.delivered);
            } else {
                let half = lines.len() / 2;
                let end = memchr::memchr_iter(b'\n', text).nth(half - 1).map_or(text.len(), |end| end + 1);
                parts.push((&text[end..], &lines[half..]));
                parts.push((&text[..end], &lines[..half]));
            }
        }
        Ok(delivered)
    }

    async fn post_once(&self, text: Vec<u8>, lines: &[u64]) -> Result<Report, Failure> {
        let passing = |why, pause| Failure::Passing { why: format!("{}: {why}", self.base), pause };
        let unreached = |error: reqwest::Error| passing(reason(&error), None);
        let response = self.client.post(self.batch.clone()).body(text).send().await.map_err(unreached)?;
        let status = response.status();
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.map_err(unreached)?;
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        match answer {
            // When no visit is accepted, or too many are rejected, the report is in a problem.
            Some(answer) if status == StatusCode::OK || status == StatusCode::UNPROCESSABLE_ENTITY => {
                answer.report(lines).ok_or_else(|| Failure::Lasting(format!("{} answers no report", self.base)))
            }
            answer => {
                let words = answer.and_then(|answer| answer.detail.or(answer.title));
                let why = words.map_or_else(|| status.to_string(), |words| format!("{}: {words}", status.as_u16()));
                let is_passing = status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
                Err(if is_passing {
                    passing(why, pause.map(Duration::from_secs))
                } else {
                    Failure::Lasting(format!("{}: {why}", self.base))
                })
            }
        }
    }
}

impl Answer {
    /// The report, with the lines of the file; none if this is no answer of the service.
    fn report(self, lines: &[u64]) -> Option<Report> {
        let is_to_the_end = self.done_through_line.is_none_or(|done| done >= lines.len() as u64);
        let mut delivered =
            Delivered { accepted: self.accepted?, expired: self.expired, rejected: self.rejected, errors: Vec::new() };
        for AnswerError { line, field, detail } in self.errors {
            let place = usize::try_from(line?.checked_sub(1)?).ok()?;
            let line = *lines.get(place)?;
            delivered.errors.push(LineError { line, field: field.map(Into::into), detail });
        }
        Some(Report { delivered, is_complete: is_to_the_end && !self.errors_truncated })
    }
}

impl Delivered {
    fn add(&mut self, Self { accepted, expired, rejected, errors }: Self) {
        self.accepted += accepted;
        self.expired += expired;
        self.rejected += rejected;
        self.errors.extend(errors);
    }
}

/// Why there is no answer. The library's own words leave the cause to those that it is wrapped in.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() { format!("no answer in time: {innermost}") } else { innermost.to_string() }
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
