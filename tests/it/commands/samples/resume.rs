//! A move between bounded key sets that another run resumes, as after a kill.

use std::process::Stdio;

use rstest::rstest;
use segment_estimator::domain::Timestamp;
use segment_estimator::store::{Batch, KeySet, Layout, Phase, Resharding, Store};

use super::{
    assert_estimates, command, depth, estimate, fill, fill_until_sampled, from_level, members, record, refuses, says,
};
use crate::helpers::{Redis, visit};

/// The steps that the first run has taken when it is killed.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Taken {
    Backfill,
    HalfOfTheCopy,
    Copy,
    Cutover,
    Cleanup,
    HalfOfTheCleanup,
}

/// Takes the steps of a move of the segments `sports` and `news` to `to`, and returns.
async fn take_steps(store: &Store, redis: &Redis, to: KeySet, taken: Taken) {
    let before = store.propagate_layout().await.unwrap();
    let step = async |layout: &Layout, phase| {
        store.change_layout(layout, before.keys(), Some(Resharding { to, phase })).await.unwrap()
    };
    let backfill = step(&before, Phase::Backfill).await;
    if taken == Taken::Backfill {
        return;
    }
    for name in ["sports", "news"] {
        let all = members(redis, name);
        let copied = if taken == Taken::HalfOfTheCopy { all.len() / 2 } else { all.len() };
        for chunk in all.iter().take(copied).collect::<Vec<_>>().chunks(500) {
            let mut batch = Batch::default();
            for (user, (_, score)) in chunk {
                batch.add(&visit(user, name, Timestamp::from_millis((score * 1_000.0).round() as i64)));
            }
            store.copy(&backfill, to, &batch).await.unwrap();
        }
    }
    if taken <= Taken::Copy {
        return;
    }
    store.inherit_depths(&backfill, before.keys(), to).await.unwrap();
    let cutover = step(&backfill, Phase::Cutover).await;
    if taken == Taken::Cutover {
        return;
    }
    step(&cutover, Phase::Cleanup).await;
    if taken == Taken::HalfOfTheCleanup {
        let [key, ..] = &redis.call::<Vec<String>>(&["KEYS", "segment*@*:sports"])[..] else { return };
        redis.call::<()>(&["UNLINK", key]);
    }
}

#[rstest]
#[tokio::test]
async fn repartition_resumes_a_move_between_bounded_key_sets(
    #[values(
        Taken::Backfill,
        Taken::HalfOfTheCopy,
        Taken::Copy,
        Taken::Cutover,
        Taken::Cleanup,
        Taken::HalfOfTheCleanup
    )]
    taken: Taken,
    #[values("plain@2048", "plain")] from: &str,
) {
    let redis = Redis::start();
    record(&redis, from);
    if from == "plain" {
        fill(&redis.estimator("14d"), "sports", 0..6_000).await;
    } else {
        fill_until_sampled(&redis, "sports", 0..6_000, 2_048).await;
    }
    fill(&redis.estimator("14d"), "news", 0..100).await;
    let [sports, news] = ["sports", "news"].map(|name| members(&redis, name));
    let store = redis.store();
    take_steps(&store, &redis, KeySet::try_from("p2@1024".to_owned()).unwrap(), taken).await;
    let counted = estimate(&redis, "sports").await;
    assert!(counted.count().abs_diff(6_000) < 900, "{counted}");

    let error = refuses(&redis, &["repartition", "--to", "4"]);
    let expected = "a move to 2 partitions and up to 1024 members in a segment is in progress; finish it first with \
                    `segment-estimator repartition --to 2 --max-members 1024`\n";
    assert!(error.ends_with(expected), "{error}");
    assert!(refuses(&redis, &["repartition", "--yes", "--max-members", "2048"]).ends_with(expected));
    let table = says(&redis, &["check"]);
    let line = "\na move to 2 partitions and up to 1024 members in a segment is in progress: \
                `repartition --to 2 --max-members 1024` resumes it\n";
    assert!(table.contains(line), "{table}");

    says(&redis, &["repartition", "--to", "2", "--max-members", "1024"]);
    assert!(redis.call::<String>(&["GET", "layout"]).contains(r#""keys":"p2@1024""#));
    let depth = depth(&redis, "sports");
    assert_eq!(from_level(&members(&redis, "sports"), depth), from_level(&sports, depth));
    assert_eq!(members(&redis, "news"), news);
    assert_estimates(estimate(&redis, "sports").await, 6_000);
    let old: Vec<_> =
        redis.call::<Vec<String>>(&["KEYS", "*"]).into_iter().filter(|key| !key.starts_with('{')).collect();
    assert_eq!(old, ["layout"]);
}

#[rstest]
#[case::copying("copying")]
#[case::cleaning("cleaning")]
#[tokio::test]
async fn repartition_resumes_after_a_kill(#[case] phase: &str) {
    let redis = Redis::start();
    record(&redis, "plain");
    fill(&redis.estimator("14d"), "sports", 0..40_000).await;
    let sports = members(&redis, "sports");
    let arguments = ["repartition", "--yes", "--to", "4", "--max-members", "4096"];
    let (_folder, mut command) = command(&redis, &arguments);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let phase = format!(r#""phase":"{phase}""#);
    while !redis.call::<String>(&["GET", "layout"]).contains(&phase) {
        assert!(running.try_wait().unwrap().is_none(), "it has ended");
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(redis.call::<String>(&["GET", "layout"]).contains(&phase));
    let counted = estimate(&redis, "sports").await.count();
    assert!(counted.abs_diff(40_000) < 4_000, "{counted}");

    says(&redis, &arguments);
    let depth = depth(&redis, "sports");
    assert_eq!(from_level(&members(&redis, "sports"), depth), from_level(&sports, depth));
    assert_estimates(estimate(&redis, "sports").await, 40_000);
}
