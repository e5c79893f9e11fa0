//! Paging through the members of a segment while they change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::test_runner::{Config, TestRunner};
use segment_estimator::store::{KeySet, MembersCursor, SegmentKey, Store};

use segment_estimator::domain::Timestamp;

use crate::helpers::{Redis, segment};

fn plain() -> SegmentKey {
    KeySet::plain().segment_keys().next().unwrap()
}

/// Returns the members of all pages. Calls `between` after each page.
async fn read_all(store: &Store, mut between: impl FnMut(usize)) -> Vec<String> {
    let (mut all, mut cursor): (_, Option<MembersCursor>) = (Vec::new(), None);
    for page_number in 0.. {
        let page = store.members(plain(), &segment("sports"), cursor.as_ref()).await.unwrap();
        all.extend(page.members.into_iter().map(|(user_id, _)| user_id.as_str().to_owned()));
        between(page_number);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    all
}

/// Returns the names of all members that were seen at 1 s or later. Calls `between` after each page.
async fn read_names(store: &Store, mut between: impl FnMut(usize)) -> Vec<String> {
    let (segment, cutoff, mut all) = (segment("sports"), Timestamp::from_millis(999), Vec::new());
    let mut cursor = store.members_after(plain(), &segment, cutoff).await.unwrap();
    for page_number in 0.. {
        let (names, next) = store.member_names(plain(), &segment, cutoff, &cursor).await.unwrap();
        all.extend(names.into_iter().map(|name| String::from_utf8(name).unwrap()));
        between(page_number);
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    all
}

#[tokio::test]
async fn members_of_an_unchanged_segment_are_returned_once() {
    let redis = Redis::start();
    for members in [0, 1, 999, 1_000, 1_001, 5_432] {
        redis.call::<()>(&["DEL", "segment:sports"]);
        // Many members share a score, so that no page ends between two scores.
        redis.fill((0..members).map(|n| (f64::from(n / 1_700), format!("u{n}"))));
        let read = read_all(&redis.store(), |_| {}).await;
        assert_eq!((read.len(), read.iter().collect::<BTreeSet<_>>().len()), (members as usize, members as usize));
    }
}

/// Between two pages, members before and after the cursor are removed, move to the end, or arrive late.
#[test]
fn members_that_stay_are_returned_whatever_changes() {
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = redis.store();
    let strategy = proptest::collection::vec((0_u8..4, 0_usize..4_000, 1_usize..1_500), 0..8);
    let mut runner = TestRunner::new(Config { cases: 32, failure_persistence: None, ..Config::default() });
    runner
        .run(&(strategy, proptest::bool::ANY), |(changes, only_names)| {
            redis.call::<()>(&["DEL", "segment:sports"]);
            redis.fill((0..4_000).map(|n| (f64::from(n / 300), format!("u{n:04}"))));
            let mut unchanged: BTreeSet<String> = (0..4_000).map(|n| format!("u{n:04}")).collect();
            let mut moved = BTreeSet::new();
            let mut connection = redis.connection();
            let change = |page: usize| {
                let Some((kind, from, count)) = changes.get(page) else { return };
                let names: Vec<_> = (*from..(from + count).min(4_000)).map(|n| format!("u{n:04}")).collect();
                let mut command = redis::cmd(if *kind == 0 { "ZREM" } else { "ZADD" });
                command.arg("segment:sports");
                for (n, name) in names.iter().enumerate() {
                    match kind {
                        0 => command.arg(name),
                        1 => {
                            moved.insert(name.clone());
                            command.arg(1_000 + page).arg(name)
                        }
                        // Late arrivals, before and after the cursor.
                        _ => command.arg(n % 13).arg(format!("late{page}-{n}")),
                    };
                    if *kind == 0 {
                        unchanged.remove(name);
                    }
                }
                command.exec(&mut connection).unwrap();
            };
            let read = runtime.block_on(async {
                if only_names { read_names(&store, change).await } else { read_all(&store, change).await }
            });
            let read: BTreeSet<_> = read.into_iter().collect();
            let has_expired = |name: &&String| only_names && name.as_str() < "u0300";
            let missing: Vec<_> = unchanged.difference(&read).filter(|name| !has_expired(name)).take(5).collect();
            assert!(missing.is_empty(), "{missing:?}");
            let expired: Vec<_> = read.difference(&moved).filter(|name| name.starts_with('u')).collect();
            let expired: Vec<_> = expired.into_iter().filter(has_expired).take(5).collect();
            assert!(expired.is_empty(), "{expired:?}");
            Ok(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_returned_completely_under_load() {
    let redis = Redis::start();
    redis.fill((0..30_000).map(|n| (f64::from(n), format!("u{n}"))));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (mut connection, stop) = (redis.connection(), Arc::clone(&stop));
        std::thread::spawn(move || {
            for n in (0_u64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let mut command = redis::cmd("ZADD");
                // Each member is visited 50 times in a row, so that fewer move to the end than are read in the
                // meantime.
                command.arg("segment:sports").arg("GT").arg(100_000 + n).arg(format!("u{}", n / 50 * 7_919 % 30_000));
                command.exec(&mut connection).unwrap();
            }
        })
    };
    let read: BTreeSet<_> = read_all(&redis.store(), |_| {}).await.into_iter().collect();
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(read.len(), 30_000);
}
