//! Group commit. While a batch of a shard is in flight, the requests that arrive form the next one.
//!
//! A request that arrives when nothing is in flight is sent at once; nothing waits for a batch to fill. The longer
//! Redis takes, the larger the batches get. Databases write their logs in this way.
//!
//! A second batch does not wait for a small one. With few connections, Redis and the service would otherwise work in
//! turns.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::redis;
use crate::store::{self, Store};
use crate::telemetry::{BatchMetrics, TRACED};

/// Sends requests to Redis in batches, and returns to each caller the response to its own request. Clones share the
/// batches.
pub struct GroupCommit<Req, Resp> {
    shared: Arc<Shared<Req, Resp>>,
}

struct Shared<Req, Resp> {
    store: Store,
    metrics: BatchMetrics,
    send_batch: Box<SendBatch<Req, Resp>>,
    shards: Box<[Mutex<Queue<Req, Resp>>]>,
}

type Response<Resp> = Result<Resp, store::Error>;

/// Sends a batch, and returns a response to each of its requests, in their order.
type SendBatch<Req, Resp> = dyn Fn(Store, Vec<Req>) -> BoxFuture<'static, Vec<Response<Resp>>> + Send + Sync;

struct Queue<Req, Resp> {
    pending: VecDeque<Pending<Req, Resp>>,
    /// Number of tasks that send batches of this shard.
    tasks: usize,
    /// Number of requests in the batches in flight.
    in_flight: usize,
}

impl<Req, Resp> Queue<Req, Resp> {
    const MAX_TASKS: usize = 2;
    /// A second batch is sent only while at most this many requests are in flight.
    const MAX_SMALL_BATCH: usize = 8;
    /// Requests for which an idle queue keeps memory.
    const MAX_IDLE_CAPACITY: usize = 1_024;

    /// Whether the request that was just added needs another task, of at most `max_tasks`.
    fn needs_task(&self, max_tasks: usize) -> bool {
        // If other requests are pending, a task will take all of them.
        let is_first = self.pending.len() == 1;
        let may_start = self.tasks < max_tasks && self.in_flight <= Self::MAX_SMALL_BATCH;
        self.tasks == 0 || is_first && may_start
    }
}

/// The share of a task in the queue: it is one of the tasks, and its batch is in flight.
struct BatchTask<'a, Req, Resp> {
    queue: &'a Mutex<Queue<Req, Resp>>,
    /// Size of its batch.
    taken: usize,
    has_ended: bool,
}

impl<'a, Req, Resp> BatchTask<'a, Req, Resp> {
    fn new(queue: &'a Mutex<Queue<Req, Resp>>) -> Self {
        Self { queue, taken: 0, has_ended: false }
    }

    /// Takes all pending requests into `batch`, which is empty. Ends the task, and returns false, if there are none, or
    /// if the other task has a large batch in flight. It takes them afterwards.
    fn take_batch(&mut self, batch: &mut VecDeque<Pending<Req, Resp>>) -> bool {
        let mut queue = lock(self.queue);
        queue.in_flight -= std::mem::take(&mut self.taken);
        if queue.pending.is_empty() || queue.in_flight > Queue::<Req, Resp>::MAX_SMALL_BATCH {
            queue.tasks -= 1;
            queue.pending.shrink_to(Queue::<Req, Resp>::MAX_IDLE_CAPACITY);
            self.has_ended = true;
            return false;
        }
        std::mem::swap(&mut queue.pending, batch);
        self.taken = batch.len();
        queue.in_flight += self.taken;
        true
    }
}

impl<Req, Resp> Drop for BatchTask<'_, Req, Resp> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // The task panicked.
        let mut queue = lock(self.queue);
        queue.tasks -= 1;
        queue.in_flight -= self.taken;
        // No other task would take the pending requests. Dropping them fails their callers.
        let stranded = if queue.tasks == 0 { std::mem::take(&mut queue.pending) } else { VecDeque::new() };
        drop(queue);
        drop(stranded);
    }
}

fn lock<Req, Resp>(queue: &Mutex<Queue<Req, Resp>>) -> MutexGuard<'_, Queue<Req, Resp>> {
    // A queue is whole at every step, so a panic of another holder of the lock does no harm.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that no batch has taken yet.
struct Pending<Req, Resp> {
    request: Req,
    /// A span of the caller's trace.
    span: Span,
    caller: Caller<Resp>,
}

/// The end of a request that its caller waits on.
struct Caller<Resp> {
    /// When the caller stops waiting.
    deadline: Instant,
    /// `None` once it was answered.
    response: Option<oneshot::Sender<Response<Resp>>>,
}

impl<Resp> Caller<Resp> {
    fn answer(&mut self, response: Response<Resp>) {
        if let Some(sender) = self.response.take() {
            // Fails if the caller has stopped waiting.
            let _ = sender.send(response);
        }
    }

    /// Whether the caller has stopped waiting.
    fn is_gone(&self) -> bool {
        self.response.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// A shard, whose batches wait for no other shard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its number.
    pub index: usize,
    /// How many shards are in use. They share the limit of pending requests.
    pub count: usize,
}

impl Shard {
    /// The shard of a [`GroupCommit`] that has one.
    pub const ONLY: Self = Self { index: 0, count: 1 };
    /// Requests that may be pending in a shard, however many shards share the limit.
    const MIN_PENDING: usize = 100;

    /// Returns how many requests may be pending in this shard if `max` may be in all.
    fn max_pending(self, max: usize) -> usize {
        max.div_ceil(self.count).max(Self::MIN_PENDING.min(max))
    }
}

impl<Req: Send + 'static, Resp: Send + 'static> GroupCommit<Req, Resp> {
    /// Creates `shards` queues for `store`. `send_batch` sends a batch and returns a response to each request, in their
    /// order.
    pub fn new<F>(
        store: Store,
        metrics: BatchMetrics,
        shards: usize,
        send_batch: impl Fn(Store, Vec<Req>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<Response<Resp>>> + Send + 'static,
    {
        let send_batch = Box::new(move |store, requests| send_batch(store, requests).boxed());
        let queue = || Mutex::new(Queue { pending: VecDeque::new(), tasks: 0, in_flight: 0 });
        let shards = std::iter::repeat_with(queue).take(shards).collect();
        Self { shared: Arc::new(Shared { store, metrics, send_batch, shards }) }
    }

    /// Sends `request` with the next batch of `shard`, and waits for the response. Dropping the future before the batch
    /// is sent withdraws the request.
    ///
    /// # Errors
    ///
    /// The error of the batch; [`store::Error::Overloaded`], at once, if too many requests are pending;
    /// [`redis::Error::Timeout`] if waiting and the batch together took too long.
    pub async fn submit(&self, shard: Shard, request: Req) -> Response<Resp> {
        let span = tracing::info_span!(target: TRACED, "wait for batch");
        let response =
            self.enqueue(shard, request, span.clone()).inspect_err(|error| self.shared.store.log_error(error))?;
        match response.instrument(span).await {
            Ok(response) => response,
            Err(_) => Err(redis::Error::Lost("the batch panicked".to_owned()).into()),
        }
    }

    fn enqueue(
        &self,
        shard: Shard,
        request: Req,
        span: Span,
    ) -> Result<oneshot::Receiver<Response<Resp>>, store::Error> {
        let limits = self.shared.store.limits();
        let max_pending = shard.max_pending(limits.max_pending);
        let mut queue = lock(&self.shared.shards[shard.index]);
        // Drop abandoned requests; they are usually at the front.
        while queue.pending.len() >= max_pending && queue.pending.front().is_some_and(|front| front.caller.is_gone()) {
            queue.pending.pop_front();
        }
        if queue.pending.len() >= max_pending {
            return Err(store::Error::Overloaded(max_pending));
        }
        let (sender, receiver) = oneshot::channel();
        // Read under the lock, so that the queue is in the order of deadlines. `time_out` relies on it.
        let caller = Caller { deadline: Instant::now() + limits.answer, response: Some(sender) };
        queue.pending.push_back(Pending { request, span, caller });
        if queue.needs_task(self.max_tasks()) {
            queue.tasks += 1;
            tokio::spawn(self.clone().send_batches(shard.index));
        }
        Ok(receiver)
    }

    /// Returns how many batches of a shard may be in flight. A wait for replicas blocks the connection, so that a second
    /// batch would only wait for the first.
    fn max_tasks(&self) -> usize {
        if self.shared.store.acks().is_required() { 1 } else { Queue::<Req, Resp>::MAX_TASKS }
    }

    /// Sends batches of the shard until no request is pending.
    async fn send_batches(self, shard: usize) {
        let mut task = BatchTask::new(&self.shared.shards[shard]);
        // One timer for all callers. It is moved only when it fires: most callers are answered long before their
        // deadlines.
        let mut timer = pin!(tokio::time::sleep(self.shared.store.limits().answer));
        // The queue and the batch use the same two buffers in turns.
        let (mut batch, mut callers) = (VecDeque::new(), Vec::new());
        while task.take_batch(&mut batch) {
            batch.retain(|pending| !pending.caller.is_gone());
            if batch.is_empty() {
                continue;
            }
            let span = batch_span(batch.iter().map(|pending| &pending.span));
            let mut requests = Vec::with_capacity(batch.len());
            callers.clear();
            for Pending { request, caller, .. } in batch.drain(..) {
                requests.push(request);
                callers.push(caller);
            }
            self.shared.metrics.committed(requests.len());
            // A panic fails the requests of this batch, not those of the next: there are no responses, the response
            // channels are dropped, and `submit` fails.
            let sending =
                async { (self.shared.send_batch)(self.shared.store.clone(), requests).await }.instrument(span);
            let mut sending = pin!(AssertUnwindSafe(sending).catch_unwind());
            let responses = loop {
                tokio::select! {
                    biased;
                    responses = &mut sending => break responses.unwrap_or_default(),
                    () = timer.as_mut() => timer.as_mut().reset(self.time_out(shard, &mut callers)),
                }
            };
            for (caller, response) in callers.iter_mut().zip(responses) {
                caller.answer(response);
            }
        }
    }

    /// Answers the callers whose deadline has passed: those of the batch in flight, and those that are pending. Returns
    /// the deadline of the next.
    fn time_out(&self, shard: usize, in_flight: &mut [Caller<Resp>]) -> Instant {
        let (now, timeout) = (Instant::now(), self.shared.store.limits().answer);
        let time_out = |caller: &mut Caller<Resp>| {
            if !caller.is_gone() {
                // The batch may still succeed, so nothing else logs this timeout.
                let error = store::Error::from(redis::Error::Timeout(timeout));
                self.shared.store.log_error(&error);
                caller.answer(Err(error));
            }
        };
        let passed = in_flight.partition_point(|caller| caller.deadline <= now);
        in_flight[..passed].iter_mut().for_each(time_out);
        let mut queue = lock(&self.shared.shards[shard]);
        while let Some(mut late) = queue.pending.pop_front_if(|pending| pending.caller.deadline <= now) {
            time_out(&mut late.caller);
        }
        let next = in_flight.get(passed).or(queue.pending.front().map(|pending| &pending.caller));
        next.map_or(now + timeout, |caller| caller.deadline)
    }

    /// Updates the queue-length gauge.
    pub fn measure_pending(&self) {
        let pending = self.shared.shards.iter().map(|queue| lock(queue).pending.len()).sum();
        self.shared.metrics.set_pending(pending);
    }
}

/// Creates the span of a batch: in the first of its requests' traces, with links to the others.
fn batch_span<'a>(spans: impl Iterator<Item = &'a Span>) -> Span {
    let mut traced = spans.filter(|span| !span.is_disabled());
    let Some(first) = traced.next() else { return Span::none() };
    let span = first.in_scope(|| tracing::info_span!(target: TRACED, "batch"));
    for other in traced {
        span.follows_from(other);
    }
    span
}

impl<Req, Resp> Clone for GroupCommit<Req, Resp> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<Req, Resp> fmt::Debug for GroupCommit<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
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
        let group_commit =
            group_commit(store(Duration::from_secs(30), 10), |_, requests: Vec<PanickingDrop>| async move {
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
        let hanging = group_commit(store(Duration::from_secs(30), 1), |_, _: Vec<()>| {
            std::future::pending::<Vec<Response<()>>>()
        });
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

    #[rstest]
    #[case::one_shard(10_000, 1, 10_000)]
    #[case::several(10_000, 8, 1_250)]
    #[case::rounded_up(10_001, 8, 1_251)]
    #[case::at_least_a_hundred(10_000, 1_024, 100)]
    #[case::never_more_than_all(50, 8, 50)]
    fn max_pending_shares_the_limit(#[case] max: usize, #[case] count: usize, #[case] expected: usize) {
        assert_eq!(Shard { index: 0, count }.max_pending(max), expected);
    }
}
