//! Changes of estimates.

use std::time::Duration;

use segment_estimator::domain::{Depth, Estimate, Timestamp, Window};
use segment_estimator::store::{NamedSample, Sample};
use serde_json::json;

use super::Bounded;
use crate::helpers::segment;

/// `flat` is a large segment whose sample differs by chance, `small` an exact one that grows, and `falling` loses a
/// tenth.
#[tokio::test]
async fn changes_have_an_error_and_rank_by_what_exceeds_it() {
    let bounded = Bounded::start("1").await;
    let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
    let counts = [
        ("falling", estimate(10_000), estimate(9_000)),
        ("flat", estimate(40_000), estimate(40_100)),
        ("small", Estimate::exact(100), Estimate::exact(110)),
    ];
    let now = Timestamp::now();
    let mut samples = Vec::new();
    for (name, before, after) in counts {
        bounded.record(name, 0..1).await;
        for (days, count) in [(7, before), (1, before), (0, after)] {
            let sample = Sample { at: now - Duration::from_secs(days * 86_400), count };
            samples.push(NamedSample { segment: segment(name).into_owned(), sample });
        }
    }
    bounded.store.add_samples(&samples).await.unwrap();
    let names: Vec<_> = counts.iter().map(|(name, ..)| segment(name)).collect();
    let sampled: Vec<_> = names.iter().map(|name| (name, now)).collect();
    bounded.store.update_changes(&sampled, Window::parse("14d").unwrap()).await.unwrap();

    for (sort, expected) in [("change", ["small", "flat", "falling"]), ("-change", ["falling", "flat", "small"])] {
        let list = bounded.json(&format!("/segments?sort={sort}")).await;
        let names: Vec<_> = list["segments"].as_array().unwrap().iter().map(|counted| &counted["segment"]).collect();
        assert_eq!(names, expected, "{sort}");
    }
    let counts = bounded.json("/counts?segment=falling&segment=flat&segment=small").await;
    for change in ["change_1d", "change_7d"] {
        let of = |index: usize| &counts["counts"][index][change];
        assert_eq!([0, 1, 2].map(|index| of(index)["absolute"].as_i64().unwrap()), [-128_000, 12_800, 10]);
        // 1.96 standard deviations of the sum of both estimates: 128 * sqrt((10,000 + 9,000) * 127 / 128).
        assert_eq!([0, 1].map(|index| of(index)["absolute_error_95"].clone()), [json!(34_446), json!(70_726)]);
        assert!(of(2).get("absolute_error_95").is_none(), "{}", of(2));
    }
    let rows = bounded.csv("/counts?segment=flat&segment=small").await;
    assert_eq!([0, 1].map(|row| rows[row]["change_7d_absolute_error_95"].as_str()), ["70726", ""]);
    let summary = bounded.json("/segments/flat").await;
    assert_eq!(summary["change_7d"]["absolute_error_95"], 70_726);
}
