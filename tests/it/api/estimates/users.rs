//! Users whom a sample contains, and users whom it leaves out.

use rstest::rstest;
use segment_estimator::domain::{Level, Timestamp};
use serde_json::{Value, json};

use super::{Bounded, USERS, id};
use crate::helpers::visit;

/// Returns the depth of `many` in the only partition.
fn depth(bounded: &Bounded) -> u8 {
    bounded.redis.call::<String>(&["HGET", "depths", "many"]).parse().unwrap()
}

/// Returns a user of `users` whose level is kept, or not, at `depth`.
fn user(users: std::ops::Range<u32>, depth: u8, is_kept: bool) -> String {
    users.map(id).find(|id| (Level::of(id).number() >= depth) == is_kept).unwrap()
}

#[tokio::test]
async fn member_is_known_unless_the_sample_leaves_out_the_user() {
    let bounded = Bounded::filled("1").await;
    let depth = depth(&bounded);
    let member = async |segment: &str, user: &str| -> Value {
        let answer = bounded.json(&format!("/segments/{segment}/users/{user}")).await;
        assert_eq!(answer["last_seen"].is_string(), answer["in_segment"] == true, "{answer}");
        json!([answer["in_segment"], answer["exact"], answer["known"], answer.get("reason")])
    };
    let reason = format!("the segment keeps one of {} users, and this user isn't one of them", 1_u32 << depth);
    let (kept, left_out) = (user(0..300, depth, true), user(0..300, depth, false));
    assert_eq!(member("many", &kept).await, json!([true, true, true, null]));
    assert_eq!(member("many", &left_out).await, json!([null, false, true, reason]));
    // Nobody knows whether they were ever there.
    let (absent, unknown) = (user(USERS * 2..USERS * 3, depth, true), user(USERS * 2..USERS * 3, depth, false));
    assert_eq!(member("many", &absent).await, json!([false, true, true, null]));
    assert_eq!(member("many", &unknown).await, json!([null, false, true, reason]));
    for user in [&kept, &left_out] {
        assert_eq!(member("few", user).await, json!([true, true, true, null]));
    }
    assert_eq!(member("nothing", &left_out).await, json!([false, true, false, null]));
}

/// A writer that knew a lower depth has written the user.
#[tokio::test]
async fn member_below_the_depth_is_not_known_although_it_was_written() {
    let bounded = Bounded::filled("1").await;
    let left_out = user(0..300, depth(&bounded), false);
    let (key, score) = (format!("segment@{}:many", Level::of(&left_out).number()), Timestamp::now().as_score());
    bounded.redis.call::<()>(&["ZADD", &key, &score.to_string(), &left_out]);
    assert_eq!(bounded.json(&format!("/segments/many/users/{left_out}")).await["in_segment"], Value::Null);
    let answer = bounded.json(&format!("/users/{left_out}/segments")).await;
    assert!(answer["not_known"].as_array().unwrap().contains(&json!("many")), "{answer}");
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn segments_of_a_user_name_those_that_are_not_known(#[case] partitions: &str) {
    let bounded = Bounded::filled(partitions).await;
    let (mut with, mut without) = (0, 0);
    for user in 0..100 {
        let answer = bounded.json(&format!("/users/{}/segments", id(user))).await;
        let segments = answer["segments"].as_array().unwrap().iter().map(|segment| segment["segment"].clone());
        let segments: Vec<_> = segments.collect();
        // The users are in `few` and `many`.
        match answer.get("not_known") {
            None => {
                assert_eq!((json!(segments), &answer["exact"]), (json!(["few", "many"]), &json!(true)), "{answer}");
                with += 1;
            }
            Some(not_known) => {
                assert_eq!(answer["exact"], false, "{answer}");
                let names = not_known.as_array().unwrap();
                assert_eq!(names.contains(&json!("many")), !segments.contains(&json!("many")), "{answer}");
                assert!(segments.contains(&json!("few")) && !names.contains(&json!("few")), "{answer}");
                without += 1;
            }
        }
    }
    assert!(with > 0 && without > 80, "{with} and {without}");
}

/// An emptied segment is no longer in the index, and its users are known a window later.
#[tokio::test]
async fn segments_of_a_user_name_a_sampled_segment_that_is_not_in_the_index() {
    let bounded = Bounded::start("1").await;
    bounded.redis.call::<()>(&["HSET", "depths", "emptied", "7"]);
    let left_out = user(0..100, 7, false);
    assert_eq!(bounded.json(&format!("/users/{left_out}/segments")).await["not_known"], json!(["emptied"]));
    let kept = user(0..10_000, 7, true);
    assert_eq!(bounded.json(&format!("/users/{kept}/segments")).await["exact"], true);
}

/// A depth that has fallen is complete for visits since then.
#[tokio::test]
async fn member_is_known_in_a_window_since_the_depth_fell() {
    let bounded = Bounded::start("1").await;
    let since = Timestamp::now().as_millis() / 1_000 - 3_600;
    bounded.redis.call::<()>(&["HSET", "depths", "many", &format!("7>0@{since}")]);
    let left_out = user(0..100, 7, false);
    let member = async |query: &str| {
        bounded.json(&format!("/segments/many/users/{left_out}{query}")).await["in_segment"].clone()
    };
    assert_eq!((member("?window=30m").await, member("?window=2h").await), (json!(false), Value::Null));
}

#[tokio::test]
async fn are_kept_misses_no_visit_that_a_sample_leaves_out() {
    let bounded = Bounded::filled("1").await;
    let depth = depth(&bounded);
    let now = Timestamp::now();
    let long_ago = Timestamp::from_millis(now.as_millis() - 13 * 86_400_000);
    let (kept, left_out) = (user(0..300, depth, true), user(0..300, depth, false));
    let absent = user(USERS * 2..USERS * 3, depth, true);
    let visits = [
        visit(&kept, "many", long_ago),
        visit(&left_out, "many", long_ago),
        visit(&absent, "many", long_ago),
        visit(&kept, "many", now),
        visit(&left_out, "few", long_ago),
        visit(&left_out, "nothing", long_ago),
    ];
    let kept = bounded.store.are_kept(&visits).await.unwrap();
    assert_eq!(kept, [true, true, false, false, true, false].map(Some));
}

#[tokio::test]
async fn member_fails_if_the_depths_belong_to_another_program() {
    let bounded = Bounded::start("1").await;
    bounded.record("many", 0..1).await;
    bounded.redis.call::<()>(&["SET", "depths", "x"]);
    for path in ["/segments/many/users/u0", "/users/u0/segments"] {
        crate::helpers::problem(bounded.app.get(path).await, 503, "store-unavailable").await;
    }
}
