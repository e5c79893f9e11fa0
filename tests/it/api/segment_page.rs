//! The page of a segment: the count at a moment.

use chrono::{DateTime, TimeDelta, Utc};

use crate::helpers::{Redis, TestApp};

const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn segment_page_shows_the_count_at_a_moment() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let begin = Utc::now().timestamp_millis() / HOUR * HOUR - 200 * HOUR;
    for (hour, count) in [(0, 1_000), (1, 1_100), (168, 1_500), (170, 1_600)] {
        let id = format!("{}-0", begin + hour * HOUR);
        redis.call::<String>(&["XADD", "history:sports", &id, "n", &count.to_string()]);
    }
    let time = |hour: i64, minutes: i64| {
        DateTime::from_timestamp_millis(begin + hour * HOUR).unwrap() + TimeDelta::minutes(minutes)
    };
    let page = async |at: &str| {
        let response = app.get(&format!("/pages/segment?name=sports&days=90&at={at}")).await;
        assert_eq!(response.status(), 200, "{at}");
        response.text().await.unwrap()
    };
    let reading = |page: &str| {
        let reading = page.split("<p class=\"reading\" id=\"moment\">").nth(1)?.split('<').next()?;
        Some(reading.to_owned())
    };
    // The field of the form has neither seconds nor an offset.
    let field = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M").to_string();
    let shown = |time: DateTime<Utc>, text: &str| Some(format!("{} UTC: {text}", time.format("%-d %b %H:%M")));
    let compared = "1,500 users, up 500 (+50.0%) on a week before";
    for at in [field(time(168, 0)), field(time(168, 59)), time(168, 30).format("%Y-%m-%dT%H:%M:%SZ").to_string()] {
        assert_eq!(reading(&page(&at).await), shown(time(168, 0), compared), "{at}");
    }
    assert_eq!(reading(&page(&field(time(170, 0))).await), shown(time(170, 0), "1,600 users"));
    assert_eq!(reading(&page(&field(time(169, 0))).await), shown(time(169, 0), "no data"));
    assert_eq!(reading(&page(&field(time(1_000, 0))).await), shown(time(1_000, 0), "no data"));

    let form = page(&field(time(168, 30))).await;
    for part in [
        "<input type=\"hidden\" name=\"name\" value=\"sports\">",
        "<input type=\"hidden\" name=\"days\" value=\"90\">",
        &format!("name=\"at\" value=\"{}\"", field(time(168, 30))),
    ] {
        assert!(form.contains(part), "{part}: {form}");
    }
    assert_eq!(reading(&page("").await), None);
    let long = format!("at={}", "0".repeat(41));
    for wrong in ["at=noon", "at=2026-11-31T10:00", "at=2026-11-21T10:00&at=2026-11-21T11:00", &long] {
        assert_eq!(app.status_of(&format!("/pages/segment?name=sports&{wrong}")).await, 422, "{wrong}");
    }
    redis.call::<u64>(&["DEL", "history:sports"]);
    redis.call::<u64>(&["SADD", "history:sports", "x"]);
    assert_eq!(reading(&page(&field(time(168, 0))).await), None);
}

#[tokio::test]
async fn segment_page_shows_the_count_at_a_moment_before_the_range() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let at = Utc::now().timestamp_millis() / HOUR * HOUR - 200 * HOUR;
    redis.call::<String>(&["XADD", "history:sports", &format!("{at}-0"), "n", "1000"]);
    let at = DateTime::from_timestamp_millis(at).unwrap();
    let path = format!("/pages/segment?name=sports&days=1&at={}", at.format("%Y-%m-%dT%H:%M"));
    let page = app.get(&path).await.text().await.unwrap();
    let reading = format!("id=\"moment\">{} UTC: 1,000 users</p>", at.format("%-d %b %H:%M"));
    for part in ["id=\"no-history\"", &reading, "<form class=\"moment\""] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // A segment without any history has nothing to ask for.
    app.record("u1", "news").await;
    let page = app.get("/pages/segment?name=news").await.text().await.unwrap();
    assert!(page.contains("No history yet.") && !page.contains("<form class=\"moment\""), "{page}");
}
