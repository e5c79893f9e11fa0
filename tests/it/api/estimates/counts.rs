//! Counts, lists, histograms and histories.

use rstest::rstest;
use segment_estimator::domain::{Depth, Estimate, Timestamp};
use segment_estimator::store::{NamedSample, Sample};
use serde_json::{Value, json};

use super::{Bounded, USERS, assert_estimate, assert_exact};
use crate::helpers::segment;

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn count_is_exact_or_an_estimate_with_its_error(#[case] partitions: &str) {
    let bounded = Bounded::filled(partitions).await;
    assert_exact(&bounded.json("/segments/few/count").await, 300);
    assert_exact(&bounded.json("/segments/unknown/count").await, 0);
    assert_estimate(&bounded.json("/segments/many/count").await, USERS);
    // The users of the last five days.
    assert_exact(&bounded.json("/segments/few/count?window=5d").await, 150);
    assert_estimate(&bounded.json("/segments/many/count?window=5d").await, USERS / 2);
}

#[tokio::test]
async fn count_of_an_empty_window_is_0_without_an_error() {
    let bounded = Bounded::filled("1").await;
    let nobody = bounded.json("/segments/many/count?window=1m").await;
    assert_eq!((&nobody["count"], &nobody["exact"], nobody.get("error_95")), (&json!(0), &json!(false), None));
}

#[tokio::test]
async fn lists_and_summaries_have_the_accuracy_of_the_count() {
    let bounded = Bounded::filled("1").await;
    let count = bounded.json("/segments/many/count").await;
    let accuracy = |answer: &Value| ["count", "exact", "error_95"].map(|member| answer[member].clone());
    for path in ["/segments?sort=name", "/segments?sort=count", "/counts?segment=few&segment=many"] {
        let answer = bounded.json(path).await;
        let all = answer["segments"].as_array().or(answer["counts"].as_array()).unwrap();
        let one = |name: &str| all.iter().find(|one| one["segment"] == name).unwrap();
        assert_exact(one("few"), 300);
        assert_eq!(accuracy(one("many")), accuracy(&count), "{path}");
    }
    assert_eq!(accuracy(&bounded.json("/segments/many").await), accuracy(&count));
    assert_exact(&bounded.json("/segments/few").await, 300);

    let deleted = bounded.app.request("DELETE", "/segments/many").send().await.unwrap();
    assert_eq!(accuracy(&deleted.json().await.unwrap()), accuracy(&count));
    assert_exact(&bounded.json("/segments/many/count").await, 0);
}

/// A key of another program has neither a count nor an accuracy.
#[tokio::test]
async fn null_count_has_no_accuracy() {
    let bounded = Bounded::start("1").await;
    bounded.record("theirs", 0..1).await;
    bounded.redis.call::<()>(&["SET", "segment@3:theirs", "x"]);
    let counts = bounded.json("/counts?segment=theirs").await;
    let theirs = &counts["counts"][0];
    assert_eq!((&theirs["count"], theirs.get("exact"), theirs.get("error_95")), (&Value::Null, None, None), "{theirs}");
    let row = &bounded.csv("/counts?segment=theirs").await[0];
    assert_eq!(["count", "exact", "error_95"].map(|column| row[column].as_str()), [""; 3]);
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn histogram_buckets_are_estimates_that_add_up(#[case] partitions: &str) {
    let bounded = Bounded::filled(partitions).await;
    let many = bounded.json("/segments/many/histogram?buckets=2&window=10d").await;
    assert_estimate(&many, USERS);
    let buckets = many["buckets"].as_array().unwrap();
    buckets.iter().for_each(|bucket| assert_estimate(bucket, USERS / 2));
    let sum: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
    assert_eq!(many["count"], sum);
    let few = bounded.json("/segments/few/histogram?buckets=2&window=10d").await;
    few["buckets"].as_array().unwrap().iter().for_each(|bucket| assert_exact(bucket, 150));
}

#[tokio::test]
async fn history_keeps_the_accuracy_of_each_sample() {
    let bounded = Bounded::start("1").await;
    let now = Timestamp::now().as_millis() / 3_600_000;
    let hour = |hours: i64| Timestamp::from_millis((now - hours) * 3_600_000);
    let estimate = Estimate::sampled(37_343, Depth::from_number(7).unwrap());
    for (hours, count) in [(3, Estimate::exact(900)), (2, estimate)] {
        let sample = Sample { at: hour(hours), count };
        bounded.store.add_samples(&[NamedSample { segment: segment("many"), sample }]).await.unwrap();
    }
    let range = format!("from={}&to={}&step=1h", hour(3), hour(1));
    for (path, pointer) in [("/segments/many/history?", "/points"), ("/history?segment=many&", "/histories/0/points")] {
        let path = format!("{path}{range}");
        let answer = bounded.json(&path).await;
        let points = answer.pointer(pointer).unwrap();
        assert_exact(&points[0], 900);
        let accuracy = ["count", "exact", "error_95"].map(|member| points[1][member].clone());
        assert_eq!(accuracy, [json!(4_779_904), json!(false), json!(0.0101)]);
        assert_eq!((&points[2]["count"], points[2].get("exact")), (&Value::Null, None));
        let rows = bounded.csv(&path).await;
        let cells = |row: usize| ["count", "exact", "error_95"].map(|column| rows[row][column].as_str());
        assert_eq!([cells(0), cells(1), cells(2)], [["900", "true", ""], ["4779904", "false", "0.0101"], ["", "", ""]]);
    }
}

/// The columns `exact` and `error_95` are right behind `count`, and have the members of the JSON.
#[rstest]
#[case::list("/segments?sort=name", "/segments")]
#[case::counts("/counts?segment=many&segment=few", "/counts")]
#[case::histogram("/segments/many/histogram?buckets=3", "/buckets")]
#[case::overlap("/overlap?segment=many&segment=others", "/regions")]
#[case::audience("/audience/count?all=many&none=others", "")]
#[tokio::test]
async fn csv_has_the_accuracy_of_the_json(#[case] path: &str, #[case] pointer: &str) {
    let bounded = Bounded::filled("1").await;
    let answer = bounded.json(path).await;
    let target = answer.pointer(pointer).unwrap();
    let counted = target.as_array().cloned().unwrap_or_else(|| vec![target.clone()]);
    let rows = bounded.csv(path).await;
    let cell = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
    assert_eq!(rows.len(), counted.len());
    for (row, counted) in rows.iter().zip(&counted) {
        for member in ["count", "exact", "error_95"] {
            assert_eq!(row[member], cell(&counted[member]), "{member} of {counted}");
        }
    }
    let text =
        bounded.app.request("GET", path).header("accept", "text/csv").send().await.unwrap().text().await.unwrap();
    assert!(text.lines().next().unwrap().contains(",count,exact,error_95,"), "{text}");
    assert!(counted.iter().any(|counted| counted["exact"] == false), "{answer}");
}
