//! Round trips to Redis that are shared: one is under way at a time, and what is asked meanwhile goes with the next.
//!
//! Nobody waits for a timer. When nothing is under way a question sets out at once, and the longer the trips take, the
//! more questions share them. Databases do the same with their log, and call it group commit.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use crate::redis;
use crate::store::{self, Store};
use crate::telemetry::{RoundMetrics, TRACED};

/// Questions and their answers, in shared round trips. Clones share them.
pub struct Rounds<Q, A>(Arc<Shared<Q, A>>);

struct Shared<Q, A> {
    store: Store,
    metrics: RoundMetrics,
    trip: Box<Trip<Q, A>>,
    queue: Mutex<Queue<Q, A>>,
}

type Answer<A> = Result<A, store::Error>;

/// Takes questions to Redis, and gives an answer for each, in their order.
type Trip<Q, A> = dyn Fn(Store, Vec<Q>) -> BoxFuture<'static, Vec<Answer<A>>> + Send + Sync;

struct Queue<Q, A> {
    waiting: VecDeque<Asked<Q, A>>,
    /// Whether somebody is taking the trips and will come for those who wait.
    is_served: bool,
}

struct Asked<Q, A> {
    question: Q,
    /// The trace of who asked.
    span: Span,
    answer: oneshot::Sender<Answer<A>>,
}

impl<Q: Send + 'static, A: Send + 'static> Rounds<Q, A> {
    /// Rounds to `store` whose trips `trip` takes: it gives an answer for each question, in their order. `metrics` measures
    /// them.
    pub fn new<F>(
        store: Store,
        metrics: RoundMetrics,
        trip: impl Fn(Store, Vec<Q>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<Result<A, store::Error>>> + Send + 'static,
    {
        let trip = Box::new(move |store, questions| trip(store, questions).boxed());
        let queue = Mutex::new(Queue { waiting: VecDeque::new(), is_served: false });
        Self(Arc::new(Shared { store, metrics, trip, queue }))
    }

    /// Asks `question` with the next trip, unless `most` others wait for that already. Who stops waiting before it sets out takes
    /// the question back.
    ///
    /// # Errors
    ///
    /// What the trip says; [`store::Error::Overloaded`], at once, when no more may wait; [`redis::Error::Timeout`] when
    /// waiting and the trip together took too long.
    pub async fn ask(&self, question: Q, most: usize) -> Result<A, store::Error> {
        let span = tracing::info_span!(target: TRACED, "wait for round trip");
        let answer = self.join(question, most, span.clone()).inspect_err(|error| self.0.store.note_failure(error))?;
        let limit = self.0.store.limits().answer;
        match tokio::time::timeout(limit, answer).instrument(span).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(redis::Error::Lost("the round trip was broken off".to_owned()).into()),
            Err(_) => {
                // The trip itself may have been in time.
                let error = store::Error::from(redis::Error::Timeout(limit));
                self.0.store.note_failure(&error);
                Err(error)
            }
        }
    }

    /// How many wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    fn join(&self, question: Q, most: usize, span: Span) -> Result<oneshot::Receiver<Answer<A>>, store::Error> {
        let mut queue = self.queue();
        // Those who gave up leave their places. They are mostly those who came first.
        while queue.waiting.len() >= most && queue.waiting.front().is_some_and(|asked| asked.answer.is_closed()) {
            queue.waiting.pop_front();
        }
        if queue.waiting.len() >= most {
            return Err(store::Error::Overloaded(most));
        }
        let (answer, receiver) = oneshot::channel();
        queue.waiting.push_back(Asked { question, span, answer });
        if !std::mem::replace(&mut queue.is_served, true) {
            tokio::spawn(self.clone().serve());
        }
        Ok(receiver)
    }

    /// Takes trips until nobody waits.
    async fn serve(self) {
        loop {
            let Some(asked) = self.next_round() else { return };
            let asked: Vec<_> = asked.into_iter().filter(|asked| !asked.answer.is_closed()).collect();
            if asked.is_empty() {
                continue;
            }
            let span = trip_span(asked.iter().map(|asked| &asked.span));
            let (questions, callers): (Vec<_>, Vec<_>) =
                asked.into_iter().map(|asked| (asked.question, asked.answer)).unzip();
            self.0.metrics.begins(questions.len());
            // A trip that panics ends here for those who are on it, and not for those who come after.
            let trip = async { (self.0.trip)(self.0.store.clone(), questions).await }.instrument(span);
            let answers = AssertUnwindSafe(trip).catch_unwind().await.unwrap_or_default();
            for (caller, answer) in callers.into_iter().zip(answers) {
                // Who no longer waits needs no answer.
                let _ = caller.send(answer);
            }
        }
    }

    /// Those who wait; when nobody does, the serving is over.
    fn next_round(&self) -> Option<VecDeque<Asked<Q, A>>> {
        let mut queue = self.queue();
        queue.is_served = !queue.waiting.is_empty();
        queue.is_served.then(|| std::mem::take(&mut queue.waiting))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Q, A>> {
        // Nothing panics while it holds the lock; were it otherwise, the queue would still be whole.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The span of a trip for those who wait in `waits`: in the trace of the first that is traced, and linked to the others'.
fn trip_span<'a>(waits: impl Iterator<Item = &'a Span>) -> Span {
    let mut traced = waits.filter(|span| !span.is_disabled());
    let Some(first) = traced.next() else { return Span::none() };
    let span = first.in_scope(|| tracing::info_span!(target: TRACED, "round trip"));
    for other in traced {
        span.follows_from(other);
    }
    span
}

impl<Q, A> Clone for Rounds<Q, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q, A> fmt::Debug for Rounds<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds").field("store", &self.0.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::redis::{Client, Limits, RedisUrl};

    /// A store that leads nowhere: these trips don't ask it.
    fn nowhere(answer: Duration, waiting: usize) -> Store {
        let url = RedisUrl::parse("redis://127.0.0.1:1").unwrap();
        let limits = Limits { connect: answer, answer, waiting };
        Store::new(Client::new(url, limits, Arc::default()).unwrap())
    }

    fn rounds<Q: Send + 'static, A: Send + 'static, F>(
        store: Store,
        trip: impl Fn(Store, Vec<Q>) -> F + Send + Sync + 'static,
    ) -> Rounds<Q, A>
    where
        F: Future<Output = Vec<Answer<A>>> + Send + 'static,
    {
        let metrics = store.metrics().visit_rounds.clone();
        Rounds::new(store, metrics, trip)
    }

    #[tokio::test]
    async fn each_question_gets_its_own_answer() {
        let rounds = rounds(nowhere(Duration::from_secs(30), 100), |_, questions: Vec<u32>| async {
            questions.into_iter().map(|question| Ok(question * 2)).collect()
        });
        let asked: Vec<_> = (0..50)
            .map(|question| {
                let rounds = rounds.clone();
                tokio::spawn(async move { rounds.ask(question, 100).await })
            })
            .collect();
        for (question, answer) in (0..).zip(asked) {
            assert_eq!(answer.await.unwrap(), Ok(question * 2));
        }
    }

    #[tokio::test]
    async fn a_trip_that_panics_is_an_error_and_the_next_one_is_taken() {
        let rounds = rounds(nowhere(Duration::from_secs(30), 100), |_, questions: Vec<bool>| {
            assert!(!questions.contains(&true), "for the test");
            async move { vec![Ok(()); questions.len()] }
        });
        assert!(matches!(rounds.ask(true, 1).await, Err(store::Error::Redis(redis::Error::Lost(_)))));
        assert_eq!(rounds.ask(false, 10).await, Ok(()));
    }

    #[tokio::test]
    async fn waiting_is_bounded_on_a_trip_and_before_it_and_those_who_gave_up_leave_their_places() {
        const LIMIT: Duration = Duration::from_millis(50);
        let rounds = rounds(nowhere(LIMIT, 1), |_, _: Vec<()>| std::future::pending::<Vec<Answer<()>>>());
        assert_eq!(rounds.ask((), 1).await, Err(redis::Error::Timeout(LIMIT).into()));
        for _ in 0..3 {
            assert_eq!(
                rounds.ask((), 1).await,
                Err(redis::Error::Timeout(LIMIT).into()),
                "behind a trip that never ends"
            );
        }
    }
}
