//! The pending requests of a shard, and the tasks that send them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use crate::store;

pub(super) type Response<Resp> = Result<Resp, store::Error>;

pub(super) struct Queue<Req, Resp> {
    pending: VecDeque<Pending<Req, Resp>>,
    /// Number of tasks that send batches of this shard.
    tasks: usize,
    /// Number of requests in the batches in flight.
    in_flight: usize,
}

impl<Req, Resp> Queue<Req, Resp> {
    pub(super) const MAX_TASKS: usize = 2;
    /// A second batch is sent only while at most this many requests are in flight.
    pub(super) const MAX_SMALL_BATCH: usize = 8;
    /// Requests for which an idle queue keeps memory.
    const MAX_IDLE_CAPACITY: usize = 1_024;

    pub(super) fn new() -> Self {
        Self { pending: VecDeque::new(), tasks: 0, in_flight: 0 }
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Drops abandoned requests if `max_pending` are pending; they are usually at the front. Returns whether there is
    /// room for another.
    pub(super) fn make_room(&mut self, max_pending: usize) -> bool {
        while self.pending.len() >= max_pending && self.pending.front().is_some_and(|front| front.caller.is_gone()) {
            self.pending.pop_front();
        }
        self.pending.len() < max_pending
    }

    /// Adds a request, whose deadline is no earlier than those of the pending ones. Returns whether the caller must
    /// start a task that sends it; there are at most `max_tasks`.
    pub(super) fn push(&mut self, request: Pending<Req, Resp>, max_tasks: usize) -> bool {
        self.pending.push_back(request);
        // If other requests are pending, a task will take all of them.
        let is_first = self.pending.len() == 1;
        let may_start = self.tasks < max_tasks && self.in_flight <= Self::MAX_SMALL_BATCH;
        let needs_task = self.tasks == 0 || is_first && may_start;
        self.tasks += usize::from(needs_task);
        needs_task
    }

    /// Takes the first request if its deadline has passed.
    pub(super) fn pop_late(&mut self, now: Instant) -> Option<Pending<Req, Resp>> {
        self.pending.pop_front_if(|pending| pending.caller.deadline <= now)
    }

    /// Returns the earliest deadline.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.pending.front().map(|pending| pending.caller.deadline)
    }
}

/// The share of a task in the queue: it is one of the tasks, and its batch is in flight.
pub(super) struct BatchTask<'a, Req, Resp> {
    queue: &'a Mutex<Queue<Req, Resp>>,
    /// Size of its batch.
    taken: usize,
    has_ended: bool,
}

impl<'a, Req, Resp> BatchTask<'a, Req, Resp> {
    pub(super) fn new(queue: &'a Mutex<Queue<Req, Resp>>) -> Self {
        Self { queue, taken: 0, has_ended: false }
    }

    /// Takes all pending requests into `batch`, which is empty. Ends the task, and returns false, if there are none, or
    /// if the other task has a large batch in flight. It takes them afterwards.
    pub(super) fn take_batch(&mut self, batch: &mut VecDeque<Pending<Req, Resp>>) -> bool {
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

pub(super) fn lock<Req, Resp>(queue: &Mutex<Queue<Req, Resp>>) -> MutexGuard<'_, Queue<Req, Resp>> {
    // A queue is whole at every step, so a panic of another holder of the lock does no harm.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that no batch has taken yet.
pub(super) struct Pending<Req, Resp> {
    pub(super) request: Req,
    /// A span of the caller's trace.
    pub(super) span: Span,
    pub(super) caller: Caller<Resp>,
}

/// The end of a request that its caller waits on.
pub(super) struct Caller<Resp> {
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// `None` once it was answered.
    response: Option<oneshot::Sender<Response<Resp>>>,
}

impl<Resp> Caller<Resp> {
    pub(super) fn new(deadline: Instant, response: oneshot::Sender<Response<Resp>>) -> Self {
        Self { deadline, response: Some(response) }
    }

    pub(super) fn answer(&mut self, response: Response<Resp>) {
        if let Some(sender) = self.response.take() {
            // Fails if the caller has stopped waiting.
            let _ = sender.send(response);
        }
    }

    /// Whether the caller has stopped waiting.
    pub(super) fn is_gone(&self) -> bool {
        self.response.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}
