//! Group commit. While a batch of a shard is in flight, the requests that arrive form the next one.
//!
//! A request that arrives when nothing is in flight is sent at once; nothing waits for a batch to fill. The longer
//! Redis takes, the larger the batches get. Databases write their logs in this way.
//!
//! A second batch does not wait for a small one. With few connections, Redis and the service would otherwise work in
//! turns.

mod queue;
mod shard;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use self::queue::{BatchTask, Caller, Pending, Queue, Response, lock};
pub use self::shard::Shard;
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

/// Sends a batch, and returns a response to each of its requests, in their order.
type SendBatch<Req, Resp> = dyn Fn(Store, Vec<Req>) -> BoxFuture<'static, Vec<Response<Resp>>> + Send + Sync;

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
        let shards = std::iter::repeat_with(|| Mutex::new(Queue::new())).take(shards).collect();
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
        received(response).instrument(span).await
    }

    /// Sends all of `requests` with the next batch of `shard`, and waits for their responses, as [`Self::submit`] does.
    /// They need the room of one request only, so that a queue never refuses them for their number.
    pub async fn submit_all(&self, shard: Shard, requests: Vec<Req>) -> Vec<Response<Resp>> {
        let (span, count) = (tracing::info_span!(target: TRACED, "wait for batch"), requests.len());
        let responses = self.enqueue_all(shard, requests, &span);
        match responses.inspect_err(|error| self.shared.store.log_error(error)) {
            Ok(responses) => join_all(responses.into_iter().map(received)).instrument(span).await,
            Err(error) => std::iter::repeat_with(|| Err(error.clone())).take(count).collect(),
        }
    }

    fn enqueue(
        &self,
        shard: Shard,
        request: Req,
        span: Span,
    ) -> Result<oneshot::Receiver<Response<Resp>>, store::Error> {
        let mut queue = self.lock_with_room(shard)?;
        Ok(self.push(&mut queue, shard, request, span))
    }

    fn enqueue_all(
        &self,
        shard: Shard,
        requests: Vec<Req>,
        span: &Span,
    ) -> Result<Vec<oneshot::Receiver<Response<Resp>>>, store::Error> {
        let mut queue = self.lock_with_room(shard)?;
        // One lock for all, so that no task takes a part of them. Their batch needs a link to one span only.
        let spans = std::iter::once(span.clone()).chain(std::iter::repeat_with(Span::none));
        Ok(requests.into_iter().zip(spans).map(|(request, span)| self.push(&mut queue, shard, request, span)).collect())
    }

    /// Locks the queue of `shard`, which has room for another request.
    fn lock_with_room(&self, shard: Shard) -> Result<MutexGuard<'_, Queue<Req, Resp>>, store::Error> {
        let max_pending = shard.max_pending(self.shared.store.limits().max_pending);
        let mut queue = lock(&self.shared.shards[shard.index]);
        if queue.make_room(max_pending) { Ok(queue) } else { Err(store::Error::Overloaded(max_pending)) }
    }

    /// Adds `request` to the locked queue of `shard`, and starts a task if the queue needs one.
    fn push(
        &self,
        queue: &mut Queue<Req, Resp>,
        shard: Shard,
        request: Req,
        span: Span,
    ) -> oneshot::Receiver<Response<Resp>> {
        let (sender, receiver) = oneshot::channel();
        // Read under the lock, so that the queue is in the order of deadlines. `time_out` relies on it.
        let caller = Caller::new(Instant::now() + self.shared.store.limits().answer, sender);
        if queue.push(Pending { request, span, caller }, self.max_tasks()) {
            tokio::spawn(self.clone().send_batches(shard.index));
        }
        receiver
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
        while let Some(mut late) = queue.pop_late(now) {
            time_out(&mut late.caller);
        }
        let next = in_flight.get(passed).map(|caller| caller.deadline);
        next.or_else(|| queue.first_deadline()).unwrap_or(now + timeout)
    }

    /// Updates the queue-length gauge.
    pub fn measure_pending(&self) {
        let pending = self.shared.shards.iter().map(|queue| lock(queue).pending()).sum();
        self.shared.metrics.set_pending(pending);
    }
}

/// Waits for the response to a request.
async fn received<Resp>(response: oneshot::Receiver<Response<Resp>>) -> Response<Resp> {
    response.await.unwrap_or_else(|_| Err(redis::Error::Lost("the batch panicked".to_owned()).into()))
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
