//! Requests that are built in advance, and the files from which wrk reads them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use segment_estimator::domain::Timestamp;

use crate::Result;
use crate::random::Random;

/// Users of single visits.
const USERS: u64 = 2_000_000;
/// Segments of all visits.
pub const SEGMENTS: u64 = 200;

/// The name of a segment.
pub fn segment(number: u64) -> String {
    format!("segment-{number:03}")
}

/// The id of a user.
pub fn user(number: u64) -> String {
    format!("u{number:07}")
}

/// Formats a time as the score of a member, always with milliseconds, so that all have the same length.
pub fn score(millis: i64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// Requests in a file, all of the same length.
pub struct RequestFile {
    pub path: PathBuf,
    pub bytes: usize,
    pub count: usize,
    /// The first request.
    pub first: Vec<u8>,
}

impl RequestFile {
    fn write(path: PathBuf, mut requests: impl Iterator<Item = String>) -> Result<Self> {
        let mut file = BufWriter::new(File::create(&path)?);
        let first = requests.next().ok_or("a load needs a request")?.into_bytes();
        file.write_all(&first)?;
        let mut count = 1;
        for request in requests {
            if request.len() != first.len() {
                return Err(format!("the requests of {} differ in length", path.display()).into());
            }
            file.write_all(request.as_bytes())?;
            count += 1;
        }
        file.flush()?;
        Ok(Self { path, bytes: first.len(), count, first })
    }

    /// `POST /segments` by random users, seen at the time of the request.
    pub fn posts(folder: &Path, count: usize) -> Result<Self> {
        Self::write(folder.join("posts"), posts(visits(count), "", ""))
    }

    /// `POST /segments` as `posts`, seen a month ago: the visits have expired.
    pub fn expired_posts(folder: &Path, count: usize) -> Result<Self> {
        const A_MONTH: i64 = 30 * 24 * 60 * 60;
        let long_ago = Timestamp::now().as_millis() / 1_000 - A_MONTH;
        Self::write(folder.join("expired-posts"), posts(visits(count), &format!(r#","seen_at":{long_ago}"#), ""))
    }

    /// `POST /segments` as `posts`, with a token.
    pub fn posts_by(folder: &Path, name: &str, count: usize, token: &str) -> Result<Self> {
        Self::write(folder.join(name), posts(visits(count), "", &format!("Authorization: Bearer {token}\r\n")))
    }

    /// The commands that `posts` causes, for webdis. Their scores begin now, and rise as under load.
    pub fn webdis_zadds(folder: &Path, count: usize) -> Result<Self> {
        const A_MILLISECOND: i64 = 50;
        let now = Timestamp::now().as_millis();
        let requests = visits(count).zip(0..).map(|((user, segment), number)| {
            let score = score(now + number / A_MILLISECOND);
            get(&format!("/ZADD/segment:{segment}/GT/{score}/{user}"))
        });
        Self::write(folder.join("webdis-zadds"), requests)
    }

    /// `POST /segments` of the same `members` users in each segment.
    pub fn posts_to_small_segments(folder: &Path, count: usize, members: u64) -> Result<Self> {
        let visits = visits_by(count, move |random| {
            let segment_number = random.below(SEGMENTS);
            (user(segment_number * members + random.below(members)), segment(segment_number))
        });
        Self::write(folder.join("posts-to-small-segments"), posts(visits, "", ""))
    }

    /// `GET`s of one of `paths` each, which are equally long.
    pub fn gets(folder: &Path, name: &str, paths: Vec<String>) -> Result<Self> {
        let mut random = Random::new(1);
        let requests = (0..1_000).map(move |_| get(&paths[random.below(paths.len() as u64) as usize]));
        Self::write(folder.join(name), requests)
    }
}

/// `POST /segments` with another `field` and another `header`.
fn posts(visits: impl Iterator<Item = (String, String)>, field: &str, header: &str) -> impl Iterator<Item = String> {
    visits.map(move |(user, segment)| {
        let body = format!(r#"{{"user_id":"{user}","segment":"{segment}"{field}}}"#);
        let length = body.len();
        format!(
            "POST /segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\
             Content-Length: {length}\r\n\r\n{body}"
        )
    })
}

/// Returns random visits, the same in every run.
fn visits(count: usize) -> impl Iterator<Item = (String, String)> {
    visits_by(count, |random| (user(random.below(USERS)), segment(random.below(SEGMENTS))))
}

fn visits_by(
    count: usize,
    mut visit: impl FnMut(&mut Random) -> (String, String),
) -> impl Iterator<Item = (String, String)> {
    let mut random = Random::new(1);
    (0..count).map(move |_| visit(&mut random))
}

/// A `GET` of `path`.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}
