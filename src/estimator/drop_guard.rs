//! A guard that acts when a future is dropped before its end.

/// Calls a function when it is dropped, unless it was disarmed.
#[derive(Debug)]
pub struct DropGuard<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> DropGuard<F> {
    /// Calls `on_drop` when the guard is dropped.
    pub fn new(on_drop: F) -> Self {
        Self(Some(on_drop))
    }

    /// Drops the guard without the call.
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
