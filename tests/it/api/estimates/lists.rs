//! Lists of the users of a segment that keeps a sample.

use std::collections::BTreeSet;

use reqwest::Response;
use rstest::rstest;
use segment_estimator::domain::{Depth, Level, Timestamp, Window};
use segment_estimator::estimator::{Estimator, MemberListError, MembersQuery};
use segment_estimator::store::MaxMembers;
use serde_json::{Value, json};

use super::{Bounded, USERS, id};
use crate::helpers::{Redis, TestApp, encoded, problem, segment, success};

async fn lines(response: Response) -> Vec<Value> {
    let text = success(response).await.text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the query of all members of `many`.
fn query() -> MembersQuery {
    let window = Window::parse("14d").unwrap();
    MembersQuery { segment: segment("many"), window, from: None, limit: None, accepts_sample: true }
}

#[tokio::test]
async fn list_of_a_sample_is_refused_unless_it_is_asked_for() {
    let bounded = Bounded::filled("1").await;
    let weight = 1_u64 << bounded.redis.call::<String>(&["HGET", "depths", "many"]).parse::<u32>().unwrap();
    for query in ["", "?limit=1", "?format=csv", "?sample=false"] {
        let refused = problem(bounded.app.get(&format!("/segments/many/users{query}")).await, 422, "sampled").await;
        assert_eq!(refused["title"], "The segment keeps a sample of its users");
        let detail = format!(
            "the segment \"many\" keeps one of {weight} users, so a list of them would look complete; repeat the request with \
             sample=true to get the sample, with the weight of each line"
        );
        assert_eq!(refused["detail"], detail);
    }
    let invalid = problem(bounded.app.get("/segments/many/users?sample=yes").await, 422, "invalid-request").await;
    assert_eq!(invalid["errors"][0]["field"], "sample");
    let head = bounded.app.request("HEAD", "/segments/many/users").send().await.unwrap();
    assert_eq!(head.status(), 422);
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn list_of_a_sample_has_weights_that_add_up_to_the_count(#[case] partitions: &str) {
    let bounded = Bounded::filled(partitions).await;
    let many = lines(bounded.app.get("/segments/many/users?sample=true").await).await;
    let weights: u64 = many.iter().map(|line| line["weight"].as_u64().unwrap()).sum();
    assert_eq!(bounded.json("/segments/many/count").await["count"], weights);
    let expected: BTreeSet<_> = (0..USERS).map(id).collect();
    let ids: BTreeSet<_> = many.iter().map(|line| line["user_id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.is_subset(&expected) && ids.len() == many.len(), "{} of {} lines", ids.len(), many.len());
    let is_kept = |line: &Value| {
        let level = Level::of(line["user_id"].as_str().unwrap()).number();
        1_u64 << level >= line["weight"].as_u64().unwrap()
    };
    assert!(many.iter().all(is_kept));
    let times: Vec<_> = many.iter().map(|line| line["last_seen"].as_str().unwrap()).collect();
    assert!(times.is_sorted());

    // Parts of it are the same lines.
    let (mut parts, mut from) = (Vec::new(), String::new());
    loop {
        let part = lines(bounded.app.get(&format!("/segments/many/users?sample=true&limit=99{from}")).await).await;
        let Some(last) = part.last() else { break };
        let position = format!("{},{}", last["last_seen"].as_str().unwrap(), last["user_id"].as_str().unwrap());
        from = format!("&from={}", encoded(&position));
        parts.extend(part);
    }
    assert_eq!(parts, many);
}

#[tokio::test]
async fn list_of_an_exact_segment_has_weights_of_1_if_they_are_asked_for() {
    let bounded = Bounded::filled("1").await;
    let plain = lines(bounded.app.get("/segments/few/users").await).await;
    assert_eq!(plain.len(), 300);
    assert!(plain.iter().all(|line| line.get("weight").is_none()));
    let mut weighted = lines(bounded.app.get("/segments/few/users?sample=true").await).await;
    for line in &mut weighted {
        assert_eq!(line.as_object_mut().unwrap().remove("weight"), Some(json!(1)));
    }
    assert_eq!(weighted, plain);
}

#[tokio::test]
async fn list_as_csv_has_the_weight_in_the_last_column() {
    let bounded = Bounded::filled("1").await;
    let text = async |path: &str| success(bounded.app.get(path).await).await.text().await.unwrap();
    let columns = |text: &str| text.lines().next().unwrap().to_owned();
    assert_eq!(columns(&text("/segments/few/users?format=csv").await), "user_id,last_seen,expires");
    let many = text("/segments/many/users?format=csv&sample=true").await;
    assert_eq!(columns(&many), "user_id,last_seen,expires,weight");
    let rows = bounded.csv("/segments/many/users?format=csv&sample=true").await;
    let lines = lines(bounded.app.get("/segments/many/users?sample=true").await).await;
    let of_rows: Vec<_> = rows.iter().map(|row| (row["user_id"].clone(), row["weight"].clone())).collect();
    let of_lines = lines.iter().map(|line| (line["user_id"].as_str().unwrap().to_owned(), line["weight"].to_string()));
    assert_eq!(of_rows, of_lines.collect::<Vec<_>>());
}

/// Members that a stale writer has left below the depth are in no list.
#[tokio::test]
async fn list_omits_members_below_the_depth() {
    let bounded = Bounded::filled("1").await;
    let before = lines(bounded.app.get("/segments/many/users?sample=true").await).await;
    let now = Timestamp::now().as_score().to_string();
    let junk = (0..100).map(id).find(|id| Level::of(id).number() == 0).unwrap();
    bounded.redis.call::<()>(&["ZADD", "segment@0:many", &now, &junk]);
    assert_eq!(lines(bounded.app.get("/segments/many/users?sample=true").await).await, before);
}

/// A raise deletes members that the list has not read, and the weights of the read ones no longer hold for the rest.
#[tokio::test]
async fn list_ends_with_an_error_when_the_depth_is_raised() {
    let bounded = Bounded::filled("1").await;
    let depth: u8 = bounded.redis.call::<String>(&["HGET", "depths", "many"]).parse().unwrap();
    let raise = |to: u8| bounded.redis.call::<()>(&["HSET", "depths", "many", &to.to_string()]);
    let estimator = Estimator::new(bounded.store.clone(), Window::parse("14d").unwrap());

    let mut list = estimator.members(query()).unwrap();
    let first = list.next(Timestamp::now()).await.unwrap().unwrap();
    let weight = Depth::from_number(depth).unwrap().weight();
    assert!(first.iter().all(|member| member.weight == weight));
    raise(depth + 1);
    let rest = loop {
        match list.next(Timestamp::now()).await {
            Ok(members) => assert!(members.is_some(), "the end of the list, not an error"),
            Err(error) => break error,
        }
    };
    assert!(matches!(rest, MemberListError::SampleChanged), "{rest}");

    // Another list begins with the new weights.
    let next = estimator.members(query()).unwrap().next(Timestamp::now()).await.unwrap().unwrap();
    assert!(next.iter().all(|member| member.weight == 2 * weight));
}

#[tokio::test]
async fn list_breaks_off_when_the_depth_is_raised() {
    const MEMBERS: u32 = 200_000;
    let redis = Redis::start();
    let store = redis.store().with_max_members(Some(MaxMembers::parse("524288").unwrap()));
    store.layout().await.unwrap();
    let app = TestApp::spawn(&redis).await;
    let (mut connection, begin) = (redis.connection(), Timestamp::now().as_millis() - 86_400_000);
    for users in (0..MEMBERS).collect::<Vec<_>>().chunks(10_000) {
        let mut pipeline = ::redis::pipe();
        for user in users {
            let (id, seen_at) = (id(*user), Timestamp::from_millis(begin + i64::from(*user)));
            pipeline.zadd(format!("segment@{}:many", Level::of(&id).number()), id, seen_at.as_score()).ignore();
        }
        pipeline.exec(&mut connection).unwrap();
    }
    let mut response = app.get("/segments/many/users").await;
    assert_eq!(response.status(), 200);
    let first = response.chunk().await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&first).contains("weight"));
    // The transfer waits for its reader.
    redis.call::<()>(&["HSET", "depths", "many", "1"]);
    let broken = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            outcome => break outcome,
        }
    };
    assert!(broken.is_err(), "a broken transfer, not an end");
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("estimator_member_lists_aborted_total{reason=\"sample\"} 1"), "{metrics}");
}

/// A fall adds members below the depth of the list, which leaves them out.
#[tokio::test]
async fn list_continues_when_the_depth_falls() {
    let bounded = Bounded::filled("1").await;
    let expected = lines(bounded.app.get("/segments/many/users?sample=true").await).await.len();
    let estimator = Estimator::new(bounded.store.clone(), Window::parse("14d").unwrap());
    let mut list = estimator.members(query()).unwrap();
    let mut all = list.next(Timestamp::now()).await.unwrap().unwrap();
    bounded.redis.call::<()>(&["HSET", "depths", "many", "1"]);
    while let Some(members) = list.next(Timestamp::now()).await.unwrap() {
        all.extend(members);
    }
    assert_eq!(all.len(), expected);
}
