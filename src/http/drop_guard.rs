//! A guard that notices the cancellation of a future.

/// Calls a closure when it is dropped, unless it was disarmed. In a future, it is dropped armed if the future is
/// cancelled.
pub struct DropGuard<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> DropGuard<F> {
    pub const fn new(on_drop: F) -> Self {
        Self(Some(on_drop))
    }

    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for DropGuard<F> {
    fn drop(&mut self) {
        if let Some(on_drop) = self.0.take() {
            on_drop();
        }
    }
}
