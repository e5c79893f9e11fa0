use std::time::Duration;

use futures_util::future::poll_immediate;
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::redis::{Client, Limits, RedisUrl};

/// A store for batches that don't use it.
fn store(answer: Duration, max_pending: usize) -> Store {
    let url = RedisUrl::parse("redis://127.0.0.1:1").unwrap();
    let limits = Limits { connect: answer, answer, max_pending };
    Store::new(Client::new(url, limits, Arc::default()).unwrap())
}

fn group_commit<Req: Send + 'static, Resp: Send + 'static, F>(
    store: Store,
    send_batch: impl Fn(Store, Vec<Req>) -> F + Send + Sync + 'static,
) -> GroupCommit<Req, Resp>
where
    F: Future<Output = Vec<Response<Resp>>> + Send + 'static,
{
    let metrics = store.metrics().visit_batches.clone();
    GroupCommit::new(store, metrics, 2, send_batch)
}

#[tokio::test]
async fn submit_returns_the_response_to_each_request() {
    let doubling = group_commit(store(Duration::from_secs(30), 100), |_, requests: Vec<u32>| async {
        requests.into_iter().map(|request| Ok(request * 2)).collect()
    });
    let submitted: Vec<_> = (0..50)
        .map(|request| {
            let doubling = doubling.clone();
            tokio::spawn(async move { doubling.submit(Shard::ONLY, request).await })
        })
        .collect();
    for (request, response) in (0..).zip(submitted) {
        assert_eq!(response.await.unwrap(), Ok(request * 2));
    }
}

#[tokio::test]
async fn submit_fails_if_its_batch_panics_and_the_next_batch_is_sent() {
    let panicking = group_commit(store(Duration::from_secs(30), 10), |_, requests: Vec<bool>| {
        assert!(!requests.contains(&true), "for the test");
        async move { vec![Ok(()); requests.len()] }
    });
    assert!(matches!(panicking.submit(Shard::ONLY, true).await, Err(store::Error::Redis(redis::Error::Lost(_)))));
    assert_eq!(panicking.submit(Shard::ONLY, false).await, Ok(()));
}

#[tokio::test]
async fn submit_succeeds_after_the_task_of_its_shard_has_panicked() {
    #[derive(Debug)]
    struct PanickingDrop(bool);
    impl Drop for PanickingDrop {
        fn drop(&mut self) {
            assert!(!self.0, "for the test");
        }
    }
    let group_commit = group_commit(store(Duration::from_secs(30), 10), |_, requests: Vec<PanickingDrop>| async move {
        vec![Ok(()); requests.len()]
    });
    for _ in 0..Queue::<PanickingDrop, ()>::MAX_TASKS {
        // The task drops a request that was abandoned before it was sent.
        let abandoned = poll_immediate(pin!(group_commit.submit(Shard::ONLY, PanickingDrop(true)))).await;
        assert_eq!(abandoned, None);
        tokio::task::yield_now().await;
    }
    assert_eq!(group_commit.submit(Shard::ONLY, PanickingDrop(false)).await, Ok(()));
}

#[tokio::test]
async fn submit_times_out_in_a_batch_and_before_it() {
    const TIMEOUT: Duration = Duration::from_millis(50);
    let hanging = group_commit(store(TIMEOUT, 1), |_, _: Vec<()>| std::future::pending::<Vec<Response<()>>>());
    assert_eq!(hanging.submit(Shard::ONLY, ()).await, Err(redis::Error::Timeout(TIMEOUT).into()));
    for _ in 0..3 {
        let response = hanging.submit(Shard::ONLY, ()).await;
        assert_eq!(response, Err(redis::Error::Timeout(TIMEOUT).into()), "behind a batch that never ends");
    }
}

#[tokio::test]
async fn submit_takes_the_place_of_an_abandoned_request() {
    let hanging =
        group_commit(store(Duration::from_secs(30), 1), |_, _: Vec<()>| std::future::pending::<Vec<Response<()>>>());
    let submit = || Box::pin(hanging.submit(Shard::ONLY, ()));
    let mut in_flight = submit();
    assert_eq!(poll_immediate(&mut in_flight).await, None);
    tokio::task::yield_now().await;
    let mut abandoned = submit();
    assert_eq!(poll_immediate(&mut abandoned).await, None);
    assert_eq!(submit().await, Err(store::Error::Overloaded(1)), "there is one place");
    drop(abandoned);
    assert_eq!(poll_immediate(submit()).await, None, "it is pending");
}

/// Returns the group commit of requests that end when the token is cancelled; those without a token end at once.
fn cancellable() -> GroupCommit<Option<CancellationToken>, ()> {
    group_commit(store(Duration::from_secs(30), 100), |_, requests: Vec<Option<CancellationToken>>| async move {
        for token in requests.iter().flatten() {
            token.cancelled().await;
        }
        vec![Ok(()); requests.len()]
    })
}

#[rstest]
#[case::small(Queue::<(), ()>::MAX_SMALL_BATCH, true)]
#[case::large(Queue::<(), ()>::MAX_SMALL_BATCH + 1, false)]
#[tokio::test]
async fn submit_sends_a_second_batch_only_beside_a_small_one(#[case] in_flight: usize, #[case] is_sent: bool) {
    let (requests, token) = (cancellable(), CancellationToken::new());
    let submit = |token: Option<&CancellationToken>| Box::pin(requests.submit(Shard::ONLY, token.cloned()));
    let mut first: Vec<_> = (0..in_flight).map(|_| submit(Some(&token))).collect();
    for request in &mut first {
        assert_eq!(poll_immediate(request).await, None);
    }
    tokio::task::yield_now().await;
    let mut second = submit(None);
    assert_eq!(poll_immediate(&mut second).await, None);
    tokio::task::yield_now().await;
    assert_eq!(poll_immediate(&mut second).await.is_some(), is_sent);
}

#[tokio::test]
async fn submit_sends_no_batch_beside_a_large_one_when_a_small_one_ends() {
    let (requests, small, large) = (cancellable(), CancellationToken::new(), CancellationToken::new());
    let submit = |token: Option<&CancellationToken>| Box::pin(requests.submit(Shard::ONLY, token.cloned()));
    let mut first = submit(Some(&small));
    assert_eq!(poll_immediate(&mut first).await, None);
    tokio::task::yield_now().await;
    let mut second: Vec<_> = (0..=Queue::<(), ()>::MAX_SMALL_BATCH).map(|_| submit(Some(&large))).collect();
    for request in &mut second {
        assert_eq!(poll_immediate(request).await, None);
    }
    tokio::task::yield_now().await;
    let mut third = submit(None);
    assert_eq!(poll_immediate(&mut third).await, None);
    small.cancel();
    assert_eq!(first.await, Ok(()));
    tokio::task::yield_now().await;
    assert_eq!(poll_immediate(&mut third).await, None, "the large batch is in flight");
    large.cancel();
    assert_eq!(third.await, Ok(()));
}

#[tokio::test]
async fn submit_waits_for_no_batch_of_another_shard() {
    let hanging_for_true = group_commit(store(Duration::from_secs(30), 10), |_, requests: Vec<bool>| async move {
        if requests.contains(&true) {
            std::future::pending::<()>().await;
        }
        vec![Ok(()); requests.len()]
    });
    let hanging = hanging_for_true.clone();
    let hanging = tokio::spawn(async move { hanging.submit(Shard { index: 0, count: 2 }, true).await });
    tokio::task::yield_now().await;
    assert_eq!(hanging_for_true.submit(Shard { index: 1, count: 2 }, false).await, Ok(()));
    hanging.abort();
}
