//! hyper's timer for the head of a request, without a timer of the runtime for each request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// Timer of one connection. hyper starts a sleep when the connection becomes idle, and drops it when a head has arrived. All of these
/// sleeps share one timer of the runtime, [`HeadTimeout`], which is moved only when it fires.
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
}

impl HeadTimer {
    /// Returns a timer whose sleeps take `timeout`, and the future that ends them.
    pub fn new(timeout: Duration) -> (Self, HeadTimeout) {
        let started_at = Instant::now();
        let state =
            Arc::new(State { started_at, deadline: AtomicU64::new(State::NONE), is_over: AtomicBool::new(false) });
        let timer = Box::pin(tokio::time::sleep(timeout));
        (Self(Arc::clone(&state)), HeadTimeout { state, timeout, timer, is_registered: false })
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let after_start = deadline.saturating_duration_since(self.0.started_at);
        // Rounded up, so that the sleep never ends early.
        let millis = u64::try_from(after_start.as_millis()).map_or(State::NONE, |millis| millis.saturating_add(1));
        self.0.deadline.store(millis, Ordering::Relaxed);
        self.0.is_over.store(false, Ordering::Relaxed);
        Box::pin(HeadSleep(Arc::clone(&self.0)))
    }
}

/// A sleep of hyper. It is polled by the task that polls the [`HeadTimeout`], which wakes that task.
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

/// Ends the sleep of a [`HeadTimer`]. It belongs to the task of the connection.
pub struct HeadTimeout {
    state: Arc<State>,
    timeout: Duration,
    timer: Pin<Box<tokio::time::Sleep>>,
    /// Whether the timer wakes the task.
    is_registered: bool,
}

impl HeadTimeout {
    /// Returns whether the sleep is over. Otherwise the task of `context` is woken when it may be. The task must always be the same.
    pub fn poll_over(&mut self, context: &mut Context<'_>) -> bool {
        // Polling the timer at every turn of the connection would cost more than hyper's own timer.
        while !self.is_registered || self.timer.is_elapsed() {
            self.is_registered = true;
            if self.timer.as_mut().poll(context).is_pending() {
                return false;
            }
            let now = Instant::now();
            let deadline = self.deadline();
            // A sleep that begins later ends at the timeout or later.
            let next = deadline.filter(|deadline| *deadline > now).unwrap_or(now + self.timeout);
            self.timer.as_mut().reset(next.into());
            self.is_registered = false;
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.state.is_over.store(true, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    /// Returns the end of the current sleep.
    fn deadline(&self) -> Option<Instant> {
        let millis = Some(self.state.deadline.load(Ordering::Relaxed)).filter(|millis| *millis != State::NONE)?;
        self.state.started_at.checked_add(Duration::from_millis(millis))
    }
}
