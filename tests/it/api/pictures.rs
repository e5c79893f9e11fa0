//! `GET /segments/{name}/history.svg` and `histogram.svg`: the charts as pictures.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::Response;

use crate::helpers::{Redis, TestApp, binary, problem, run, settings};

const HOUR: i64 = 3_600_000;

/// Returns a service with hourly samples of `sports`, and the time of the first, ten hours ago.
async fn app_with_history(redis: &Redis) -> (TestApp, DateTime<Utc>) {
    let app = TestApp::spawn(redis).await;
    app.record("u1", "sports").await;
    let begin = Utc::now().timestamp_millis() / HOUR * HOUR - 10 * HOUR;
    for (hour, count) in [(0, 1_000), (1, 2_000), (2, 1_500), (3, 1_600)] {
        add_sample(redis, begin + hour * HOUR, count);
    }
    (app, DateTime::from_timestamp_millis(begin).unwrap())
}

fn add_sample(redis: &Redis, at: i64, count: u64) {
    redis.call::<String>(&["XADD", "history:sports", &format!("{at}-0"), "n", &count.to_string()]);
}

/// Asserts that `response` is a picture that any page may embed and that loads nothing. Returns it.
async fn picture(response: Response) -> String {
    assert_eq!(response.headers()["cross-origin-resource-policy"], "cross-origin");
    picture_with_any_policy(response).await
}

async fn picture_with_any_policy(response: Response) -> String {
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "image/svg+xml");
    assert_eq!((header("cache-control"), header("x-content-type-options")), ("no-store".into(), "nosniff".into()));
    assert!(!response.headers().contains_key("x-frame-options"));
    let policy = header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.matches(';').count() == 1,
        "{policy}"
    );
    let svg = response.text().await.unwrap();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>"), "{svg}");
    for active in ["<script", "href", " style=", "url(", "@import", "%\""] {
        assert!(!svg.contains(active), "{active}: {svg}");
    }
    svg
}

#[tokio::test]
async fn history_picture_of_a_past_time_stays_the_same() {
    let redis = Redis::start();
    let (app, begin) = app_with_history(&redis).await;
    let end = begin + TimeDelta::milliseconds(2 * HOUR);
    let path = |step: &str| {
        let [from, to] = [begin, end].map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
        format!("/segments/sports/history.svg?from={from}&to={to}&step={step}")
    };
    // The last step of a day contains later samples.
    let steps = ["1h", "2h", "1d"];
    let mut before = Vec::new();
    for step in steps {
        before.push(picture(app.get(&path(step)).await).await);
    }
    add_sample(&redis, Utc::now().timestamp_millis() / HOUR * HOUR, 9_000_000);
    app.record("u2", "sports").await;
    for (step, before) in steps.iter().zip(&before) {
        assert_eq!(picture(app.get(&path(step)).await).await, *before, "{step}");
    }
    let svg = &before[0];
    let [from, to] = [begin, end].map(|time| time.format("%-d %b %Y, %H:%M").to_string());
    let times = format!(">{from} to {to} UTC</text>");
    for text in [
        ">sports</text>",
        ">Users seen in the last 14 days, every hour</text>",
        &times,
        ">2k</text>",
        ">↑ Users</text>",
    ] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    assert!(!svg.contains("class=\"live\""), "{svg}");
    assert!(svg.contains("from 1,000 to 1,500 users, up 500 (+50.0%), between 1,000 and 2,000."), "{svg}");
}

#[tokio::test]
async fn history_picture_of_thinned_samples_stays_the_same() {
    const MINUTE: i64 = 60_000;
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("history_interval", "1m")])).await;
    // Over eight days, at most one sample of two minutes is read.
    let end = Utc::now().timestamp_millis() / (2 * MINUTE) * 2 * MINUTE - 10 * MINUTE;
    let begin = end - 8 * 24 * HOUR;
    for (at, count) in [(begin, 1_000), (end - 4 * MINUTE, 2_000), (end, 1_500)] {
        add_sample(&redis, at, count);
    }
    let [from, to] =
        [begin, end].map(|at| DateTime::from_timestamp_millis(at).unwrap().to_rfc3339_opts(SecondsFormat::Secs, true));
    // Two minutes are no divisor of 45.
    let paths = ["", "&step=45m"].map(|step| format!("/segments/sports/history.svg?from={from}&to={to}{step}"));
    let mut before = Vec::new();
    for path in &paths {
        before.push(picture(app.get(path).await).await);
    }
    add_sample(&redis, end + MINUTE, 9_000_000);
    for (path, before) in paths.iter().zip(&before) {
        assert!(before.contains("from 1,000 to 1,500 users, up 500 (+50.0%)"), "{path}: {before}");
        assert_eq!(picture(app.get(path).await).await, *before, "{path}");
    }
}

#[tokio::test]
async fn history_picture_until_now_ends_with_the_live_count() {
    let redis = Redis::start();
    let (app, _) = app_with_history(&redis).await;
    let svg = picture(app.get("/segments/sports/history.svg?from=-1d").await).await;
    assert!(svg.contains("from 1,000 to 1 user, down 999 (-99.9%)"), "{svg}");
    assert_eq!(svg.matches("<circle class=\"live\"").count(), 1, "{svg}");
}

#[tokio::test]
async fn histogram_picture_says_what_it_counts_and_when() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for user in 0..3 {
        app.record(&format!("u{user}"), "sports").await;
    }
    let svg = picture(app.get("/segments/sports/histogram.svg?buckets=7&window=7d").await).await;
    assert_eq!(svg.matches("class=\"fill\"").count(), 7, "{svg}");
    let counted = format!(">3 users in the last 7 days, as of {}", Utc::now().format("%-d %b %Y, "));
    assert!(svg.contains(&counted) && svg.contains(">Last seen, days ago</text>"), "{svg}");
}

#[tokio::test]
async fn picture_has_the_chosen_looks() {
    let redis = Redis::start();
    let (app, _) = app_with_history(&redis).await;
    for chart in ["history", "histogram"] {
        let path = format!("/segments/sports/{chart}.svg");
        let usual = picture(app.get(&path).await).await;
        assert!(usual.contains("width=\"800\" height=\"400\"") && usual.contains("fill:#ffffff"), "{usual}");
        let chosen = picture(app.get(&format!("{path}?theme=dark&width=2000&height=240")).await).await;
        assert!(chosen.contains("width=\"2000\" height=\"240\"") && chosen.contains("fill:#13161a"), "{chosen}");
        for wrong in ["theme=blue", "theme=", "width=479", "width=2001", "height=239", "height=1201", "width=800px"] {
            let name = wrong.split('=').next().unwrap();
            let refused = problem(app.get(&format!("{path}?{wrong}")).await, 422, "invalid-request").await;
            assert_eq!(refused["errors"][0]["field"], name, "{refused}");
        }
    }
    for wrong in ["from=-1h&to=-2h", "step=0s", "buckets=7"] {
        problem(app.get(&format!("/segments/sports/history.svg?{wrong}")).await, 422, "invalid-request").await;
    }
    for wrong in ["buckets=101", "window=15d", "from=-7d"] {
        problem(app.get(&format!("/segments/sports/histogram.svg?{wrong}")).await, 422, "invalid-request").await;
    }
}

#[tokio::test]
async fn picture_of_a_segment_without_data_says_so() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    redis.call::<()>(&["ZADD", "segments", "0", "empty"]);
    for chart in ["history.svg", "history.svg?from=-1d", "histogram.svg"] {
        let [unknown, empty] = ["nobody", "empty"].map(|name| format!("/segments/{name}/{chart}"));
        let says_unknown = [picture(app.get(&unknown).await).await, picture(app.get(&empty).await).await]
            .map(|svg| svg.contains(">No such segment</text>"));
        assert_eq!(says_unknown, [true, false], "{chart}");
    }
    let svg = picture(app.get("/segments/nobody/history.svg").await).await;
    assert!(svg.contains(">No data</text>") && svg.contains(">nobody</text>"), "{svg}");
    let svg = picture(app.get("/segments/nobody/histogram.svg").await).await;
    assert!(svg.contains(">0 users in the last 14 days, as of "), "{svg}");
    redis.call::<u64>(&["SADD", "history:other", "x"]);
    problem(app.get("/segments/other/history.svg").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn picture_takes_a_password_as_the_rest_of_the_api() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let keys = folder.path().join("keys.toml");
    let arguments = ["token", "--name", "analyst", "--scope", "segments:read", "--api-keys-file"];
    let output = run(binary(folder.path()).args(arguments).arg(&keys));
    let key = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    let app = TestApp::spawn_with(&redis, settings([("api_keys_file", &keys.display().to_string())])).await;
    for path in ["/segments/sports/history.svg", "/segments/sports/histogram.svg"] {
        let shown = app.request("GET", path).basic_auth("any", Some(&key)).send().await.unwrap();
        // A page of another site would get it with the password of the browser's user.
        assert_eq!(shown.headers()["cross-origin-resource-policy"], "same-site");
        picture_with_any_policy(shown).await;
        problem(app.get(path).await, 401, "unauthorized").await;
    }
}
