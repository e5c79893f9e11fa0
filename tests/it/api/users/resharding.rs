//! Deletions of users during a resharding.

use std::sync::atomic::{AtomicUsize, Ordering};

use segment_estimator::domain::{Timestamp, UserId};
use segment_estimator::store::{Phase, Resharding};

use super::delete;
use crate::api::backfill::{Backfill, complete_resharding};
use crate::helpers::{Redis, TestApp, binary, run, segment, success, visit};

fn user(id: &str) -> UserId<'_> {
    UserId::parse(id).unwrap()
}

/// Returns the number of sorted sets that have the user, tombstones aside, and the keys of the tombstones.
fn traces_of(redis: &Redis, user: &str) -> (usize, Vec<String>) {
    let has_user = |key: &String| redis.call::<Option<String>>(&["ZSCORE", key, user]).is_some();
    let (tombstones, sets): (Vec<_>, Vec<_>) = redis.sets().into_iter().partition(|key| key.ends_with("forgotten"));
    (sets.iter().filter(|key| has_user(key)).count(), tombstones)
}

fn now() -> Timestamp {
    Timestamp::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_during_the_backfill_is_kept() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let backfill = Backfill::begin(&redis, &["u1", "u2", "u3"], now()).await;
    let page = backfill.read_page().await;
    assert_eq!(backfill.estimator.delete_user(&user("u1")).await.unwrap(), 1);
    backfill.copy(&page).await;
    let (traces, tombstones) = traces_of(&redis, "u1");
    assert_eq!((traces, tombstones.len()), (1, 1), "the page brought the user back, and a tombstone is left");
    let left: i64 = redis.call(&["TTL", &tombstones[0]]);
    assert!((1..=14 * 24 * 60 * 60).contains(&left), "{left}");

    complete_resharding(&folder, &redis);
    assert_eq!(traces_of(&redis, "u1"), (0, vec![]));
    assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 2);
}

/// As above, with a user who is removed from one segment.
#[tokio::test(flavor = "multi_thread")]
async fn remove_during_the_backfill_is_kept_and_keeps_a_later_visit() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let seen = now();
    let backfill = Backfill::begin(&redis, &["gone", "seen-again", "u3"], seen).await;
    let page = backfill.read_page().await;
    let later = Timestamp::from_millis(seen.as_millis() + 1);
    backfill.estimator.record(visit("seen-again", "sports", later), later).await.unwrap();
    for (id, expected) in [("gone", true), ("seen-again", false)] {
        let removed = backfill.estimator.remove_user(&user(id), &segment("sports"), Some(seen)).await.unwrap();
        assert_eq!(removed, expected, "{id}");
    }
    backfill.copy(&page).await;
    assert_eq!(traces_of(&redis, "gone").0, 1, "the page brought the user back");

    complete_resharding(&folder, &redis);
    assert_eq!(traces_of(&redis, "gone"), (0, vec![]));
    assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_after_a_delete_during_the_backfill_is_kept() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let seen = now();
    let backfill = Backfill::begin(&redis, &["same", "earlier", "later"], seen).await;
    let page = backfill.read_page().await;
    for (id, offset) in [("same", 0), ("earlier", -60_000), ("later", 1)] {
        assert_eq!(backfill.estimator.delete_user(&user(id)).await.unwrap(), 1);
        let again = Timestamp::from_millis(seen.as_millis() + offset);
        backfill.estimator.record(visit(id, "sports", again), now()).await.unwrap();
    }
    backfill.copy(&page).await;

    complete_resharding(&folder, &redis);
    for (id, offset) in [("same", 0), ("earlier", -60_000), ("later", 1)] {
        let memberships = backfill.estimator.segments_of(&user(id), now()).await.unwrap().memberships;
        let seen_at: Vec<_> = memberships.iter().map(|membership| membership.last_seen.as_millis()).collect();
        assert_eq!(seen_at, [seen.as_millis() + offset], "{id}");
    }
}

/// Reconciling also copies, so callers repeat it until it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_changes_something_until_both_key_sets_agree() {
    let redis = Redis::start();
    let backfill = Backfill::begin(&redis, &["u1"], now()).await;
    let pairs = || vec![(user("u1"), segment("sports"))];
    let reconcile =
        async || backfill.store.reconcile(&backfill.layout, backfill.old, backfill.new, pairs()).await.unwrap();
    let copies = || traces_of(&redis, "u1").0;
    assert_eq!((reconcile().await, copies(), reconcile().await), (pairs(), 2, vec![]), "the user is copied");
    redis.call::<()>(&["ZREM", "segment:sports", "u1"]);
    assert_eq!((reconcile().await, copies(), reconcile().await), (pairs(), 0, vec![]), "the user is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_after_the_cutover_removes_the_user_from_both_key_sets() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let backfill = Backfill::begin(&redis, &["u1", "u2"], now()).await;
    backfill.copy(&backfill.read_page().await).await;
    let cutover = Resharding { to: backfill.new, phase: Phase::Cutover };
    backfill.store.change_layout(&backfill.layout, backfill.old, Some(cutover)).await.unwrap();
    assert_eq!(traces_of(&redis, "u1").0, 2);
    // The estimator finds out that the layout has changed. The user counts once.
    assert_eq!(backfill.estimator.delete_user(&user("u1")).await.unwrap(), 1);
    assert_eq!(traces_of(&redis, "u1"), (0, vec![]));
    complete_resharding(&folder, &redis);
    assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 1);
}

/// A service whose layout is from before the resharding.
#[tokio::test(flavor = "multi_thread")]
async fn delete_by_an_outdated_layout_is_repeated_by_the_current_one() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let early = redis.estimator("14d");
    early.record(visit("u0", "sports", now()), now()).await.unwrap();
    let backfill = Backfill::begin(&redis, &["u1", "u2"], now()).await;
    backfill.copy(&backfill.read_page().await).await;
    let page = backfill.read_page().await;
    assert_eq!(early.delete_user(&user("u1")).await.unwrap(), 1);
    assert_eq!(traces_of(&redis, "u1").0, 0);
    backfill.copy(&page).await;
    complete_resharding(&folder, &redis);
    assert_eq!(traces_of(&redis, "u1"), (0, vec![]));
    assert_eq!(early.segments_of(&user("u2"), now()).await.unwrap().memberships.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_and_record_during_reshardings_are_kept() {
    const USERS: usize = 6_000;
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    let visits: Vec<_> = (0..USERS)
        .flat_map(|n| ["sports", "news"].map(|name| format!(r#"{{"user_id":"u{n}","segment":"{name}"}}"#)))
        .collect();
    success(app.post_lines(visits.join("\n")).await).await;

    let (done, move_to) = (AtomicUsize::new(0), |to: &str| {
        let mut command = binary(folder.path());
        command.args(["repartition", "--to", to, "--redis-url", &redis.url()]);
        tokio::task::spawn_blocking(move || run(&mut command))
    });
    let moving = async {
        for to in ["8", "2", "16"] {
            let output = move_to(to).await.unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        done.store(1, Ordering::Relaxed);
    };
    // Every tenth deleted user comes back to one segment.
    let deleting = async {
        let mut deleted = 0;
        while done.load(Ordering::Relaxed) == 0 && deleted < USERS {
            let id = format!("u{}", deleted * 7 % USERS);
            delete(&app, &id).await;
            if deleted % 10 == 0 {
                app.record(&id, "sports").await;
            }
            deleted += 1;
        }
        deleted
    };
    let ((), deleted) = tokio::join!(moving, deleting);
    assert!(deleted > 30, "{deleted} users were deleted during the reshardings");
    let back = deleted.div_ceil(10);
    let counts = (app.count("sports").await, app.count("news").await);
    assert_eq!(counts, ((USERS - deleted + back) as u64, (USERS - deleted) as u64), "{deleted}");
    // A deletion whose request arrives after the end of a resharding leaves its tombstone, which expires.
    for tombstones in traces_of(&redis, "u0").1 {
        let seconds_left: i64 = redis.call(&["TTL", &tombstones]);
        assert!(seconds_left > 0, "{tombstones} stays for ever");
    }
}
