//! What a router owns and may give away for the time of a batch, so that another thread works with it.

use std::ops::{Deref, DerefMut};

/// A value that is here between batches. While it is lent nobody may look at it: that would be a mistake
/// of ours, and a panic.
#[derive(Debug)]
pub(super) struct Lent<T>(Option<Box<T>>);

const AWAY: &str = "what is lent for a batch comes back at its end";

impl<T> Lent<T> {
    pub fn new(value: T) -> Self {
        Self(Some(Box::new(value)))
    }

    /// Gives it away; none if it is lent already.
    pub fn lend(&mut self) -> Option<Box<T>> {
        self.0.take()
    }

    /// Where it is, if it is here.
    #[inline]
    pub fn here(&self) -> Option<&T> {
        self.0.as_deref()
    }

    pub fn give_back(&mut self, value: Box<T>) {
        self.0 = Some(value);
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().expect(AWAY)
    }
}

impl<T> DerefMut for Lent<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect(AWAY)
    }
}
