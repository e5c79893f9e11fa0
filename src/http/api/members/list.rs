//! `GET /segments/{name}/users`: lists the users of a segment.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Method, Version};
use axum::response::Response;
use serde::Serialize;
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::domain::{Score, UserId, Window};
use crate::estimator::{MemberList, MemberListError, MembersQuery, SegmentMember};
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, ReadUsers};
use crate::http::extract::path::SegmentPath;
use crate::http::extract::query::{Parameters, QueryParams};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::middleware::request_id;
use crate::http::problem::{Problem, ProblemKind, Result};
use crate::http::state::AppState;
use crate::http::streamed_body::{BodyError, BodyWriter, streamed_body};
use crate::http::table::{Cell, CsvWriter, Format, Row};
use crate::store::{self, Member};

/// A user of a segment.
#[derive(Serialize, ToSchema)]
struct ListedUser {
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// The time of the user's last visit to the segment.
    #[schema(format = DateTime)]
    last_seen: String,
    /// The time from which on the user no longer counts over this window, unless seen again.
    #[schema(format = DateTime)]
    expires: String,
    /// The number of users that this one stands for, with `sample=true`: 1 unless the segment keeps a sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    weight: Option<u64>,
}

impl Row for ListedUser {
    const FILE_NAME: &'static str = "users";

    fn write(&self, csv: &mut CsvWriter) {
        let texts = [self.user_id.as_str(), &self.last_seen, &self.expires].map(Cell::from);
        csv.row(texts.into_iter().chain(self.weight.map(Cell::from)));
    }
}

impl ListedUser {
    fn new(member: SegmentMember, shows_weight: bool) -> Self {
        let SegmentMember { user_id, last_seen, expires, weight } = member;
        Self {
            user_id: user_id.as_str().to_owned(),
            last_seen: last_seen.to_string(),
            expires: expires.to_string(),
            weight: shows_weight.then_some(weight),
        }
    }

    /// Returns the names of the columns.
    fn columns(shows_weight: bool) -> &'static [&'static str] {
        const ALL: &[&str] = &["user_id", "last_seen", "expires", "weight"];
        if shows_weight { ALL } else { &ALL[..3] }
    }
}

const MAX_LIMIT: usize = 1_000_000_000;

schemas::schema_type!(
    MaxUsers = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_LIMIT))
);
/// The lines of the answer.
struct UserLines;

impl PartialSchema for UserLines {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some("One user per line, as JSON."));
        text.content_media_type("application/x-ndjson").content_schema(Some(Ref::from_schema_name("ListedUser"))).into()
    }
}

impl ToSchema for UserLines {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("ListedUser".to_owned(), ListedUser::schema()));
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsersQuery {
    /// The maximum number of users; all by default.
    #[param(inline, value_type = Option<MaxUsers>, example = 2)]
    limit: Option<usize>,
    /// Continue after this line of an earlier answer: its `last_seen` and `user_id`, with a comma between them.
    #[param(inline, value_type = Option<schemas::UserLine>, example = "2026-11-22T09:30:00.000Z,u104010")]
    from: Option<Member>,
    /// List over this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
    /// List the sample of a segment that keeps one. Without it, such a list is refused, because it would look complete.
    /// Each line then has the `weight` of its user.
    #[param(inline, value_type = Option<schemas::Flag>, example = false)]
    sample: bool,
}

impl QueryParams for UsersQuery {
    const NAMES: &'static [&'static str] = &["limit", "from", "window", "sample"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        Ok(Self {
            limit: query.number("limit", MAX_LIMIT)?,
            from: query.one("from", last_line)?,
            window: query.window(state)?,
            sample: query.flag("sample")?,
        })
    }
}

fn last_line(text: &str) -> std::result::Result<Member, String> {
    let parsed = text.split_once(',').and_then(|(last_seen, user_id)| {
        let score = Score::from_rfc3339(last_seen)?;
        Some(Member { score, name: UserId::parse(user_id).ok()?.as_str().as_bytes().to_vec() })
    });
    parsed.ok_or_else(|| {
        "must be the last_seen and the user_id of a line with a comma between them, such as \
         2026-11-22T09:30:00.000Z,u104010 (write + as %2B)"
            .to_owned()
    })
}

/// List the users of a segment.
///
/// One user per line, as JSON or CSV, in the order of their last visits, the oldest first, and then by the bytes of
/// their ids. The answer may have millions of lines. It is sent while it is read.
///
/// Every user who counts during the whole read is listed. A user who visits the segment during the read may be listed
/// again, with the later time. A user who arrives, expires or is deleted during the read may or may not be listed.
///
/// A segment that keeps a sample of its users has no complete list: 422 `sampled`, unless `sample=true` asks for the
/// sample. The weights of its lines add up to the count. The answer breaks off if the segment keeps fewer users since
/// it began.
///
/// If the answer breaks off, or has as many lines as `limit`, make `from` of its last complete line and repeat the
/// request. The first line of CSV has the names of the columns. The number of concurrent lists is limited.
/// A request in HTTP/1.0 is refused, because its answer would have no mark at the end.
#[utoipa::path(
    get,
    path = "/segments/{name}/users",
    operation_id = "list_segment_users",
    tag = "users",
    params(SegmentPath, UsersQuery, FormatParam),
    responses(
        (status = 200, description = "The users.", content(
            (UserLines = "application/x-ndjson", example = json!(concat!(
                "{\"user_id\":\"u104010\",\"last_seen\":\"2026-11-22T09:30:00.000Z\",\"expires\":\"2026-11-29T09:30:00.000Z\"}\n",
                "{\"user_id\":\"u104011\",\"last_seen\":\"2026-11-22T09:45:00.000Z\",\"expires\":\"2026-11-29T09:45:00.000Z\"}\n",
            ))),
            (String = "text/csv", example = json!(concat!(
                "user_id,last_seen,expires\r\n",
                "u104010,2026-11-22T09:30:00.000Z,2026-11-29T09:30:00.000Z\r\n",
            ))),
        )),
        responses::MemberListProblems,
    )
)]
pub async fn list(
    caller: Authorized<ReadUsers>,
    State(state): State<Arc<AppState>>,
    SegmentPath(segment): SegmentPath,
    TableQuery(UsersQuery { limit, from, window, sample }, responder): TableQuery<UsersQuery>,
    (method, version): (Method, Version),
    headers: HeaderMap,
) -> Result<Response> {
    if version < Version::HTTP_11 {
        let detail = "An answer in HTTP/1.0 has no mark at its end, so a part of the list would look like all of it. Send the \
                      request in HTTP/1.1; a proxy may need a setting for that, such as proxy_http_version 1.1 in nginx.";
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    let now = state.synced_now().await?;
    let name = segment.to_string();
    let mut members = state.estimator.members(MembersQuery { segment, window, from, limit, accepts_sample: sample })?;
    // An error before the first line is a problem.
    let first = members.next(now).await?;
    let (body, answer) = streamed_body();
    let response = responder.respond_with_rows::<ListedUser>(&name, &now.to_string(), answer);
    // HEAD needs the status and the headers alone. A list would break off, because nobody reads it.
    if method == Method::HEAD {
        return Ok(response);
    }
    let request_id = request_id::added(&headers).to_owned();
    let writer = UserWriter { caller, headers, members, body, format: responder.format, shows_weight: sample };
    tokio::spawn(async move {
        let written = tokio::select! {
            written = writer.write(&state, first) => written,
            () = state.end_streams.cancelled() => Err(BrokenOff::Stopping),
        };
        if let Err(error) = written {
            state.metrics.http.member_list_aborted(error.reason());
            match error {
                BrokenOff::Body(BodyError::Disconnected) => {
                    tracing::debug!(request_id, segment = name, "broke off a list of users: {error}");
                }
                error => tracing::warn!(request_id, segment = name, "broke off a list of users: {error}"),
            }
        }
    });
    Ok(response)
}

/// Why a list is incomplete. The transfer breaks off.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    List(#[from] MemberListError),
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The token has expired or was revoked.
    #[error("{}", .0.detail())]
    Token(Problem),
    #[error("the service is stopping")]
    Stopping,
}

impl BrokenOff {
    /// Returns the label of the metric.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Store(_) | Self::List(MemberListError::Store(_)) => "redis",
            Self::List(MemberListError::Sampled { .. } | MemberListError::SampleChanged) => "sample",
            Self::Body(BodyError::Disconnected) => "client",
            Self::Body(BodyError::Timeout(_)) => "slow-client",
            Self::Token(_) => "token",
            Self::Stopping => "stopping",
        }
    }
}

/// Writes a list of users. It holds the permit of the list.
struct UserWriter {
    caller: Authorized<ReadUsers>,
    headers: HeaderMap,
    members: MemberList,
    body: BodyWriter,
    format: Format,
    shows_weight: bool,
}

impl UserWriter {
    /// Lines of a chunk. Other requests have their turn after each.
    const CHUNK: usize = 500;

    async fn write(
        mut self,
        state: &AppState,
        first: Option<Vec<SegmentMember>>,
    ) -> std::result::Result<(), BrokenOff> {
        let timeout = state.limits.body;
        self.body.write(self.format.head(ListedUser::columns(self.shows_weight)), timeout).await?;
        let mut next = first;
        while let Some(members) = next {
            let mut rows = members.into_iter().map(|member| ListedUser::new(member, self.shows_weight)).peekable();
            while rows.peek().is_some() {
                let chunk: Vec<_> = rows.by_ref().take(Self::CHUNK).collect();
                self.body.write(self.format.rows(&chunk), timeout).await?;
            }
            self.caller.renew(state, &self.headers).map_err(BrokenOff::Token)?;
            next = self.members.next(state.synced_now().await?).await?;
        }
        Ok(self.body.finish(timeout).await?)
    }
}
