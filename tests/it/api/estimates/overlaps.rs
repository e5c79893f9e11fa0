//! Overlaps and audiences of samples.

use rstest::rstest;
use serde_json::{Value, json};

use super::{Bounded, USERS, assert_close, assert_estimate, assert_exact};

fn sum(counted: &Value) -> u64 {
    counted.as_array().unwrap().iter().map(|one| one["count"].as_u64().unwrap()).sum()
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn overlap_of_samples_is_within_its_error(#[case] partitions: &str) {
    let bounded = Bounded::filled(partitions).await;
    let overlap = bounded.json("/overlap?segment=many&segment=others").await;
    assert_eq!(overlap["exact"], false, "{overlap}");
    assert_close(&overlap["any"], &overlap["any_error_95"], USERS / 2 * 3);
    assert_close(&overlap["all"], &overlap["all_error_95"], USERS / 2);
    assert_estimate(&overlap["segments"][0], USERS);
    assert_estimate(&overlap["segments"][1], USERS);
    assert_estimate(&overlap["pairs"][0], USERS / 2);
    let regions = overlap["regions"].as_array().unwrap();
    assert_eq!(regions.len(), 3);
    regions.iter().for_each(|region| assert_estimate(region, USERS / 2));
    assert_eq!(overlap["any"], sum(&overlap["regions"]), "the regions add up");
}

#[tokio::test]
async fn overlap_without_a_sample_is_exact() {
    let bounded = Bounded::filled("1").await;
    bounded.record("rest", 200..400).await;
    let overlap = bounded.json("/overlap?segment=few&segment=rest").await;
    let totals = ["exact", "any", "all"].map(|member| overlap[member].clone());
    assert_eq!(totals, [json!(true), json!(400), json!(100)]);
    assert_eq!((overlap.get("any_error_95"), overlap.get("all_error_95")), (None, None));
    assert_exact(&overlap["segments"][0], 300);
    assert_exact(&overlap["pairs"][0], 100);
    overlap["regions"].as_array().unwrap().iter().for_each(|region| assert_eq!(region["exact"], true));
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn audience_of_samples_is_within_its_error(#[case] partitions: &str) {
    let bounded = Bounded::filled(partitions).await;
    let audience = bounded.json("/audience/count?all=many&none=others").await;
    assert_estimate(&audience, USERS / 2);
    assert_estimate(&audience["segments"][0], USERS);
    let few = bounded.json("/audience/count?all=few").await;
    assert_exact(&few, 300);
    // A sample beside it makes this one an estimate, too.
    let both = bounded.json("/audience/count?any=few&any=many").await;
    assert_eq!(both["exact"], false, "{both}");
}
