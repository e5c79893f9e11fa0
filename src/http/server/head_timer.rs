//! hyper's timer for the head of a request, without a timer of the runtime for each request.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::task::unconstrained;

/// Timer of one connection. hyper starts a sleep when the connection becomes idle, and drops it when a head has
/// arrived. These sleeps share one timer of the runtime, in [`HeadDeadline`]. It is moved only when it fires.
#[derive(Debug, Clone)]
pub struct HeadTimer(Arc<State>);

#[derive(Debug)]
struct State {
    started_at: Instant,
    /// The end of the current sleep in milliseconds after the start; [`State::NONE`] without one.
    deadline: AtomicU64,
    is_over: AtomicBool,
}

impl State {
    const NONE: u64 = u64::MAX;

    /// Begins a sleep.
    fn begin(&self, deadline: Instant) {
        let after_start = deadline.saturating_duration_since(self.started_at);
        // Rounded up, so that the sleep never ends early.
        let millis = u64::try_from(after_start.as_millis()).map_or(Self::NONE, |millis| millis.saturating_add(1));
        self.deadline.store(millis, Ordering::Relaxed);
        self.is_over.store(false, Ordering::Relaxed);
    }
}

impl HeadTimer {
    /// Returns a timer whose sleeps take `timeout`, and the deadline that ends them.
    pub fn new(timeout: Duration) -> (Self, HeadDeadline) {
        let started_at = Instant::now();
        let state =
            Arc::new(State { started_at, deadline: AtomicU64::new(State::NONE), is_over: AtomicBool::new(false) });
        let timer = Box::pin(tokio::time::sleep(timeout));
        (Self(Arc::clone(&state)), HeadDeadline { state, timeout, timer, is_registered: false })
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.begin(deadline);
        Box::pin(HeadSleep(Arc::clone(&self.0)))
    }

    // The default drops the previous sleep after the new one has begun, which would end both.
    fn reset(&self, _: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        self.0.begin(deadline);
    }
}

/// A sleep of hyper. It is polled by the task that polls the [`HeadDeadline`], which wakes that task.
struct HeadSleep(Arc<State>);

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.is_over.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        self.0.deadline.store(State::NONE, Ordering::Relaxed);
    }
}

/// Ends the sleeps of a [`HeadTimer`]. It belongs to the task of the connection.
pub struct HeadDeadline {
    state: Arc<State>,
    timeout: Duration,
    timer: Pin<Box<tokio::time::Sleep>>,
    /// Whether the timer wakes the task.
    is_registered: bool,
}

impl HeadDeadline {
    /// Is ready if the current sleep is over. hyper finds that out when it is polled next. All calls must come from the
    /// same task.
    pub fn poll_passed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Polling the timer whenever the connection is polled would take longer than hyper's own timer.
        while !self.is_registered || self.timer.is_elapsed() {
            self.is_registered = true;
            // Without a budget: a task that has used its own up would get no registration.
            ready!(pin!(unconstrained(self.timer.as_mut())).poll(context));
            let now = Instant::now();
            let deadline = self.deadline();
            // A sleep that begins later ends at the timeout or later.
            let next = deadline.filter(|deadline| *deadline > now).unwrap_or(now + self.timeout);
            self.timer.as_mut().reset(next.into());
            self.is_registered = false;
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.state.is_over.store(true, Ordering::Relaxed);
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Returns the end of the current sleep.
    fn deadline(&self) -> Option<Instant> {
        let millis = Some(self.state.deadline.load(Ordering::Relaxed)).filter(|millis| *millis != State::NONE)?;
        self.state.started_at.checked_add(Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn sleep_ends_once_its_own_timeout_has_passed_and_not_with_an_earlier_sleep() {
        let (timer, mut deadline) = HeadTimer::new(TIMEOUT);
        drop(timer.sleep(TIMEOUT));
        tokio::time::sleep(TIMEOUT / 2).await;
        let started = Instant::now();
        let sleep = timer.sleep(TIMEOUT);
        poll_fn(|context| deadline.poll_passed(context)).await;
        assert!(started.elapsed() >= TIMEOUT, "{:?}", started.elapsed());
        sleep.await;
    }

    #[tokio::test]
    async fn reset_begins_a_sleep() {
        let (timer, mut deadline) = HeadTimer::new(TIMEOUT);
        let mut sleep = timer.sleep(TIMEOUT);
        timer.reset(&mut sleep, Instant::now() + 2 * TIMEOUT);
        let started = Instant::now();
        poll_fn(|context| deadline.poll_passed(context)).await;
        assert!(started.elapsed() >= TIMEOUT, "{:?}", started.elapsed());
        sleep.await;
    }

    #[tokio::test]
    async fn poll_passed_registers_in_a_task_without_budget() {
        let (timer, mut deadline) = HeadTimer::new(TIMEOUT);
        let sleep = timer.sleep(TIMEOUT);
        let mut has_budget = true;
        let passed = poll_fn(|context| {
            while has_budget {
                has_budget = tokio::task::coop::has_budget_remaining();
                let _ = pin!(tokio::task::coop::consume_budget()).poll(context);
            }
            deadline.poll_passed(context)
        });
        tokio::time::timeout(100 * TIMEOUT, passed).await.expect("the timer wakes the task");
        sleep.await;
    }
}
