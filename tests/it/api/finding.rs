//! Finding segments in lists: substrings, totals, and previous pages.

use rstest::rstest;
use serde_json::{Value, json};

use super::segments::{SIZES, pairs, record_sizes};
use crate::helpers::{Redis, TestApp};

async fn page(app: &TestApp, query: &str) -> Value {
    let response = app.get(&format!("/segments?{query}")).await;
    assert_eq!(response.status(), 200, "{query}");
    response.json().await.unwrap()
}

/// Returns the numbers of the segments that the page for people shows: `101–200 of 10021`.
async fn caption(app: &TestApp, query: &str) -> String {
    let page = app.get(&format!("/?{query}")).await.text().await.unwrap();
    let caption = page.split_once("<caption>").unwrap_or_else(|| panic!("no list in {page}")).1;
    caption.split(", ").next().unwrap().replace(" segments", "").replace(',', "")
}

fn names(page: &Value) -> Vec<String> {
    pairs(&page["segments"]).into_iter().map(|(name, _)| name).collect()
}

#[rstest]
#[case::lower_case("contains=news", &["news", "news/politics"])]
#[case::upper_case("contains=ZO", &["Zoo"])]
#[case::beyond_ascii("contains=R%C3%96SS", &[])]
#[case::beyond_ascii_in_upper_case("contains=R%C3%96%C3%9FE", &["größe"])]
#[case::inside("contains=port", &["sports"])]
#[case::with_prefix("contains=O&prefix=news", &["news/politics"])]
#[case::empty("contains=&prefix=s", &["sports"])]
#[case::none("contains=xyz", &[])]
#[tokio::test]
async fn list_contains_a_text_in_any_case(
    #[case] query: &str,
    #[case] expected: &[&str],
    #[values("name", "count")] sort: &str,
) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &SIZES).await;
    let found = page(&app, &format!("{query}&sort={sort}")).await;
    let mut found_names = names(&found);
    found_names.sort();
    assert_eq!(found_names, expected);
    assert_eq!((&found["total"], &found["next_cursor"]), (&json!(expected.len()), &json!(null)));
}

#[tokio::test]
async fn list_finds_a_text_among_many_segments_in_pages() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let all: Vec<_> = (0..2_500).map(|n| format!("s{n:04}{}", if n % 500 == 7 { "-X" } else { "" })).collect();
    record_sizes(&app, &all.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>()[..1_000]).await;
    record_sizes(&app, &all.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>()[1_000..2_000]).await;
    record_sizes(&app, &all.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>()[2_000..]).await;
    let first = page(&app, "contains=-x&limit=3").await;
    assert_eq!(names(&first), ["s0007-X", "s0507-X", "s1007-X"]);
    let next = first["next_cursor"].as_str().unwrap();
    let second = page(&app, &format!("contains=-x&limit=3&cursor={next}")).await;
    assert_eq!(names(&second), ["s1507-X", "s2007-X"]);
    assert_eq!(page(&app, "sort=count&limit=1").await["total"], 2_500);
}

#[rstest]
#[case::by_name("name")]
#[case::by_count("count")]
#[case::by_change("change")]
#[tokio::test]
async fn list_leads_back_to_the_previous_page(#[case] sort: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &SIZES).await;
    // An expired segment is in the index, and neither listed nor part of the total.
    redis.call::<()>(&["ZADD", "segment:old", "1", "u1"]);
    redis.call::<()>(&["ZADD", "segments", "0", "old"]);
    let total = if sort == "name" { json!(null) } else { json!(6) };
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let one = page(&app, &format!("sort={sort}&limit=2{cursor}")).await;
        assert_eq!(one["previous_cursor"].is_null(), pages.is_empty());
        assert_eq!(one["total"], total);
        let (from, has_total) = (2 * pages.len() + 1, sort != "name");
        let expected = match (from, has_total) {
            (_, true) => format!("{from}–{} of 6", from + 1),
            (1, false) => "Segments 1–2".to_owned(),
            (_, false) => "2 of several pages".to_owned(),
        };
        assert_eq!(caption(&app, &format!("sort={sort}&limit=2{cursor}")).await, expected);
        let next = one["next_cursor"].as_str().map(|next| format!("&cursor={next}"));
        pages.push(one);
        let Some(next) = next else { break };
        cursor = next;
    }
    assert_eq!(pages.len(), 3);
    // Back from each page, and forward again.
    for at in [2, 1] {
        let previous = pages[at]["previous_cursor"].as_str().unwrap();
        let back = page(&app, &format!("sort={sort}&limit=2&cursor={previous}")).await;
        assert_eq!(names(&back), names(&pages[at - 1]), "{at}");
        assert_eq!(
            (&back["next_cursor"], &back["previous_cursor"]),
            (&pages[at - 1]["next_cursor"], &pages[at - 1]["previous_cursor"])
        );
        assert_eq!(back["total"], total);
        let shown = caption(&app, &format!("sort={sort}&limit=2&cursor={previous}")).await;
        // A page back in the order of names has read all segments before it.
        let of = if sort == "name" { "" } else { " of 6" };
        let begin = if sort == "name" { "Segments " } else { "" };
        assert_eq!(shown, format!("{begin}{}–{}{of}", 2 * at - 1, 2 * at));
    }
    // All pages but the last, in one.
    let previous = pages[2]["previous_cursor"].as_str().unwrap();
    let back = page(&app, &format!("sort={sort}&limit=100&cursor={previous}")).await;
    assert_eq!(names(&back), [names(&pages[0]), names(&pages[1])].concat());
    assert!(back["previous_cursor"].is_null());
}

#[tokio::test]
async fn list_by_count_leads_back_within_and_beyond_a_shared_ranking() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    redis.record_data_set();
    let mut pipeline = redis::pipe();
    let now = segment_estimator::domain::Timestamp::now().as_score();
    for n in 0..1_300 {
        pipeline.cmd("ZADD").arg(format!("segment:s{n:04}")).arg(now).arg("u1");
        pipeline.cmd("ZADD").arg("segments").arg(0).arg(format!("s{n:04}"));
    }
    pipeline.exec(&mut redis.connection()).unwrap();
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    for at in 0..5 {
        let shown = caption(&app, &format!("sort=count&limit=250{cursor}")).await;
        assert!(shown.starts_with(&format!("{}–", 250 * at + 1)), "{at}: {shown}");
        pages.push(page(&app, &format!("sort=count&limit=250{cursor}")).await);
        cursor = format!("&cursor={}", pages[pages.len() - 1]["next_cursor"].as_str().unwrap());
    }
    for at in (1..5).rev() {
        let previous = pages[at]["previous_cursor"].as_str().unwrap();
        let back = page(&app, &format!("sort=count&limit=250&cursor={previous}")).await;
        assert_eq!(names(&back), names(&pages[at - 1]), "{at}");
        assert_eq!(back["total"], 1_300);
        let shown = caption(&app, &format!("sort=count&limit=250&cursor={previous}")).await;
        assert!(shown.starts_with(&format!("{}–{}", 250 * (at - 1) + 1, 250 * at)), "{at}: {shown}");
    }
}

#[rstest]
#[case::by_name("name")]
#[case::by_count("count")]
#[tokio::test]
async fn list_leads_on_from_a_page_that_has_emptied(#[case] sort: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("a", 4), ("b", 3), ("c", 2), ("d", 1)]).await;
    let get =
        async |cursor: &Value| page(&app, &format!("sort={sort}&limit=2&cursor={}", cursor.as_str().unwrap())).await;
    let first = page(&app, &format!("sort={sort}&limit=2")).await;
    let second = get(&first["next_cursor"]).await;
    redis.call::<()>(&["DEL", "segment:c", "segment:d"]);
    let emptied = get(&first["next_cursor"]).await;
    assert_eq!((names(&emptied).len(), &emptied["next_cursor"]), (0, &json!(null)));
    assert_eq!(names(&get(&emptied["previous_cursor"]).await), ["a"]);
    record_sizes(&app, &[("c", 2), ("d", 1)]).await;
    redis.call::<()>(&["DEL", "segment:a", "segment:b"]);
    let back = get(&second["previous_cursor"]).await;
    assert_eq!((names(&back), &back["previous_cursor"]), (vec!["c".to_owned(), "d".to_owned()], &json!(null)));
}
