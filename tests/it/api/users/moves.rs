//! Who is forgotten while data moves to other keys stays forgotten.

use std::sync::atomic::{AtomicUsize, Ordering};

use segment_estimator::domain::{Timestamp, UserId, Visit, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::{Batch, KeySet, Layout, Partitions, Phase, Resharding, Store};
use tempfile::TempDir;

use super::forget;
use crate::helpers::{Redis, TestApp, binary, run, segment, visit};

fn user(id: &str) -> UserId<'_> {
    UserId::parse(id).unwrap()
}

/// Ends the move to 8 partitions.
fn end_move(folder: &TempDir, redis: &Redis) {
    let output = run(binary(folder.path()).args(["repartition", "--to", "8", "--redis-url", &redis.url()]));
    assert!(output.status.success(), "{output:?}");
}

/// A move to 8 partitions that has begun to copy.
struct Begun {
    store: Store,
    estimator: Estimator,
    layout: Layout,
    old: KeySet,
    new: KeySet,
}

impl Begun {
    /// Begins it for a data set in which `users` are in `sports`, seen at `now`.
    async fn with(redis: &Redis, users: &[&str], now: Timestamp) -> Self {
        let store = redis.store();
        let estimator = Estimator::new(store.clone(), Window::parse("14d").unwrap());
        for user in users {
            estimator.record(visit(user, "sports", now), now).await.unwrap();
        }
        let before = store.settled_layout().await.unwrap();
        let (old, new) = (before.keys(), before.keys().sibling(Partitions::parse("8").unwrap()));
        let layout =
            store.change_layout(&before, old, Some(Resharding { to: new, phase: Phase::Backfill })).await.unwrap();
        Self { store, estimator, layout, old, new }
    }

    /// What the move is about to copy.
    async fn read_page(&self) -> Batch {
        let mut batch = Batch::default();
        for partition in self.old.all() {
            for (user_id, seen_at) in self.store.members(partition, &segment("sports"), None).await.unwrap().members {
                batch.add(&Visit { user_id, segment: segment("sports"), seen_at });
            }
        }
        batch
    }

    async fn copy(&self, page: &Batch) {
        self.store.copy(&self.layout, self.new, page).await.unwrap();
    }
}

/// How often a user is in any segment of any keys, and the notes.
fn traces_of(redis: &Redis, user: &str) -> (usize, Vec<String>) {
    let has_user = |key: &String| redis.call::<Option<String>>(&["ZSCORE", key, user]).is_some();
    let (notes, sets): (Vec<_>, Vec<_>) = redis.sets().into_iter().partition(|key| key.ends_with("forgotten"));
    (sets.iter().filter(|key| has_user(key)).count(), notes)
}

fn now() -> Timestamp {
    Timestamp::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_forgotten_while_he_is_being_copied_stays_forgotten() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let begun = Begun::with(&redis, &["u1", "u2", "u3"], now()).await;
    let page = begun.read_page().await;
    assert_eq!(begun.estimator.delete_user(&user("u1")).await.unwrap(), 1);
    begun.copy(&page).await;
    let (traces, notes) = traces_of(&redis, "u1");
    assert_eq!((traces, notes.len()), (1, 1), "the page has put him back, and a note knows of it");
    let left: i64 = redis.call(&["TTL", &notes[0]]);
    assert!((1..=14 * 24 * 60 * 60).contains(&left), "{left}");

    end_move(&folder, &redis);
    assert_eq!(traces_of(&redis, "u1"), (0, vec![]));
    assert_eq!(begun.estimator.estimate(&segment("sports"), now()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_after_the_deletion_stays_also_an_earlier_one_that_comes_late() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let seen = now();
    let begun = Begun::with(&redis, &["same", "earlier", "later"], seen).await;
    let page = begun.read_page().await;
    for (id, offset) in [("same", 0), ("earlier", -60_000), ("later", 1)] {
        assert_eq!(begun.estimator.delete_user(&user(id)).await.unwrap(), 1);
        let again = Timestamp::from_millis(seen.as_millis() + offset);
        begun.estimator.record(visit(id, "sports", again), now()).await.unwrap();
    }
    begun.copy(&page).await;

    end_move(&folder, &redis);
    for (id, offset) in [("same", 0), ("earlier", -60_000), ("later", 1)] {
        let memberships = begun.estimator.segments_of(&user(id), now()).await.unwrap();
        let seen_at: Vec<_> = memberships.iter().map(|membership| membership.last_seen.as_millis()).collect();
        assert_eq!(seen_at, [seen.as_millis() + offset], "{id}");
    }
}

/// What settles deletions copies, too. So it goes on until there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_settled_when_both_sets_of_keys_have_him_alike() {
    let redis = Redis::start();
    let begun = Begun::with(&redis, &["u1"], now()).await;
    let settle = async || begun.store.reconcile_user(&begun.layout, begun.old, begun.new, &user("u1")).await.unwrap();
    let places = || traces_of(&redis, "u1").0;
    assert_eq!((settle().await, places(), settle().await), (true, 2, false), "he is copied");
    redis.call::<()>(&["ZREM", "segment:sports", "u1"]);
    assert_eq!((settle().await, places(), settle().await), (true, 0, false), "he is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_forgotten_after_the_switch_is_gone_from_both_sets_of_keys() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let begun = Begun::with(&redis, &["u1", "u2"], now()).await;
    begun.copy(&begun.read_page().await).await;
    let cutover = Resharding { to: begun.new, phase: Phase::Cutover };
    begun.store.change_layout(&begun.layout, begun.old, Some(cutover)).await.unwrap();
    assert_eq!(traces_of(&redis, "u1").0, 2);
    // It counts once, and its layout is found to be another first.
    assert_eq!(begun.estimator.delete_user(&user("u1")).await.unwrap(), 1);
    assert_eq!(traces_of(&redis, "u1"), (0, vec![]));
    end_move(&folder, &redis);
    assert_eq!(begun.estimator.estimate(&segment("sports"), now()).await.unwrap(), 1);
}

/// A service that knows nothing of the move yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_by_a_layout_that_is_over_is_done_again_by_the_one_in_force() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let early = redis.estimator("14d");
    early.record(visit("u0", "sports", now()), now()).await.unwrap();
    let begun = Begun::with(&redis, &["u1", "u2"], now()).await;
    begun.copy(&begun.read_page().await).await;
    let page = begun.read_page().await;
    assert_eq!(early.delete_user(&user("u1")).await.unwrap(), 1);
    assert_eq!(traces_of(&redis, "u1").0, 0);
    begun.copy(&page).await;
    end_move(&folder, &redis);
    assert_eq!(traces_of(&redis, "u1"), (0, vec![]));
    assert_eq!(early.segments_of(&user("u2"), now()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_forgotten_and_come_back_while_data_moves() {
    const USERS: usize = 6_000;
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    let visits: Vec<_> = (0..USERS)
        .flat_map(|n| ["sports", "news"].map(|name| format!(r#"{{"user_id":"u{n}","segment":"{name}"}}"#)))
        .collect();
    app.post_lines(visits.join("\n")).await.error_for_status().unwrap();

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
    // Every tenth of those comes back to one segment.
    let forgetting = async {
        let mut forgotten = 0;
        while done.load(Ordering::Relaxed) == 0 && forgotten < USERS {
            let id = format!("u{}", forgotten * 7 % USERS);
            forget(&app, &id).await;
            if forgotten % 10 == 0 {
                app.record(&id, "sports").await;
            }
            forgotten += 1;
        }
        forgotten
    };
    let ((), forgotten) = tokio::join!(moving, forgetting);
    assert!(forgotten > 30, "{forgotten} were forgotten meanwhile");
    let back = forgotten.div_ceil(10);
    let counts = (app.count("sports").await, app.count("news").await);
    assert_eq!(counts, ((USERS - forgotten + back) as u64, (USERS - forgotten) as u64), "{forgotten}");
    assert_eq!(traces_of(&redis, "u0").1, [""; 0]);
}
