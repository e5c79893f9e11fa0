//! Random visits, removals and deletions in random orders of arrival, compared with a model in memory.

use std::collections::HashMap;

use proptest::prelude::*;
use rstest::rstest;
use segment_estimator::domain::UserId;
use segment_estimator::estimator::Estimator;
use segment_estimator::store::DeletedSegment;

use super::model::runtime_and_estimator;
use crate::helpers::{Redis, noon_plus, segment, visit};

const SEGMENTS: [&str; 3] = ["sports", "news", "{x}:y"];
const USERS: u8 = 4;

/// An event at a sender, `millis` after the start. Events arrive in another order.
#[derive(Debug, Clone)]
enum Event {
    Visit { user: u8, segment: usize, millis: i64 },
    Remove { user: u8, segment: usize, millis: Option<i64> },
    DeleteUser { user: u8 },
    DeleteSegment { segment: usize },
}

fn event() -> impl Strategy<Value = Event> {
    // Few distinct times, so that a removal and a visit often have the same one.
    let millis = || 0..30_i64;
    let (user, segment) = (|| 0..USERS, || 0..SEGMENTS.len());
    prop_oneof![
        8 => (user(), segment(), millis()).prop_map(|(user, segment, millis)| Event::Visit { user, segment, millis }),
        6 => (user(), segment(), prop::option::weighted(0.9, millis()))
            .prop_map(|(user, segment, millis)| Event::Remove { user, segment, millis }),
        1 => user().prop_map(|user| Event::DeleteUser { user }),
        1 => segment().prop_map(|segment| Event::DeleteSegment { segment }),
    ]
}

/// The last visit of each user to each segment.
type Model = HashMap<(usize, u8), i64>;

fn user(user: u8) -> UserId<'static> {
    UserId::parse(format!("u{user}")).unwrap()
}

fn count(model: &Model, segment: usize) -> u64 {
    model.keys().filter(|(of, _)| *of == segment).count() as u64
}

async fn replay(estimator: &Estimator, events: &[Event]) {
    let (mut model, now) = (Model::new(), noon_plus(30));
    for event in events {
        match *event {
            Event::Visit { user: of, segment: at, millis } => {
                estimator.record(visit(user(of).as_str(), SEGMENTS[at], noon_plus(millis)), now).await.unwrap();
                let last = model.entry((at, of)).or_insert(millis);
                *last = millis.max(*last);
            }
            Event::Remove { user: of, segment: at, millis } => {
                let removed_at = millis.map(noon_plus);
                let removed = estimator.remove_user(&user(of), &segment(SEGMENTS[at]), removed_at).await.unwrap();
                let last = model.get(&(at, of)).copied();
                let is_removal = last.is_some_and(|last| millis.is_none_or(|millis| last <= millis));
                assert_eq!(removed, is_removal, "{event:?}");
                if is_removal {
                    model.remove(&(at, of));
                }
            }
            Event::DeleteUser { user: of } => {
                let segments = estimator.delete_user(&user(of)).await.unwrap();
                let before = model.len();
                model.retain(|(_, user), _| *user != of);
                assert_eq!(segments, (before - model.len()) as u64, "{event:?}");
            }
            Event::DeleteSegment { segment: at } => {
                let deleted = estimator.delete_segment(&segment(SEGMENTS[at]), false, now).await.unwrap();
                assert_eq!(deleted.count, count(&model, at), "{event:?}");
                assert!(deleted.is_known || deleted.count == 0, "{event:?}");
                model.retain(|(of, _), _| *of != at);
                let again = estimator.delete_segment(&segment(SEGMENTS[at]), false, now).await.unwrap();
                assert_eq!(again, DeletedSegment { is_known: false, count: 0.into() });
            }
        }
        for (at, name) in SEGMENTS.iter().enumerate() {
            assert_eq!(
                estimator.estimate(&segment(name), now).await.unwrap(),
                count(&model, at),
                "{name} after {event:?}"
            );
        }
    }
    for of in 0..USERS {
        let memberships = estimator.segments_of(&user(of), now).await.unwrap().memberships;
        let found: HashMap<_, _> =
            memberships.into_iter().map(|one| (one.segment.to_string(), one.last_seen)).collect();
        let expected = model.iter().filter(|((_, user), _)| *user == of);
        let expected = expected.map(|((at, _), millis)| (SEGMENTS[*at].to_owned(), noon_plus(*millis)));
        assert_eq!(found, expected.collect(), "u{of}");
    }
}

/// Replays the visits and removals of one user, each removal `removed_at` its own time, in an arbitrary order of
/// arrival: a visit later than all removals is in the segment in the end, whatever the order.
async fn replay_in_any_order(estimator: &Estimator, visits: &[i64], removals: &[i64], order: &[usize]) {
    let sports = segment("sports");
    for index in order {
        match visits.get(*index) {
            Some(millis) => {
                let visit = visit("u1", "sports", noon_plus(*millis));
                estimator.record(visit, noon_plus(30)).await.unwrap();
            }
            None => {
                let removed_at = noon_plus(removals[index - visits.len()]);
                estimator.remove_user(&user(1), &sports, Some(removed_at)).await.unwrap();
            }
        }
    }
    let (last_visit, last_removal) = (visits.iter().max(), removals.iter().max());
    if last_visit > last_removal {
        let memberships = estimator.segments_of(&user(1), noon_plus(30)).await.unwrap().memberships;
        let last_seen: Vec<_> = memberships.into_iter().map(|one| one.last_seen).collect();
        assert_eq!(last_seen, [noon_plus(*last_visit.unwrap())], "{visits:?} {removals:?} {order:?}");
    }
}

fn orders() -> impl Strategy<Value = (Vec<i64>, Vec<i64>, Vec<usize>)> {
    let times = || prop::collection::vec(0..10_i64, 1..5);
    (times(), times()).prop_flat_map(|(visits, removals)| {
        let order = Just((0..visits.len() + removals.len()).collect::<Vec<_>>()).prop_shuffle();
        (Just(visits), Just(removals), order)
    })
}

#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
fn deletions_agree_with_the_model_in_every_order(#[case] partitions: &str) {
    let redis = Redis::start();
    let (runtime, estimator) = runtime_and_estimator(&redis, partitions);
    let forget_all = || redis.call::<()>(&["FLUSHALL"]);
    proptest!(ProptestConfig::with_cases(60), |(events in prop::collection::vec(event(), 1..50))| {
        forget_all();
        runtime.block_on(replay(&estimator, &events));
    });
    proptest!(ProptestConfig::with_cases(60), |((visits, removals, order) in orders())| {
        forget_all();
        runtime.block_on(replay_in_any_order(&estimator, &visits, &removals, &order));
    });
}
