//! A queue for one reader that may be slow: it has a bound, and what is oldest is lost first and
//! counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub struct Queue<T> {
    inside: Mutex<Inside<T>>,
    filled: Notify,
}

#[derive(Debug)]
struct Inside<T> {
    items: VecDeque<T>,
    capacity: usize,
    lost: u64,
    closed: bool,
}

impl<T> Queue<T> {
    pub fn new(capacity: usize) -> Arc<Self> {
        let inside =
            Inside { items: VecDeque::new(), capacity: capacity.max(1), lost: 0, closed: false };
        Arc::new(Self { inside: Mutex::new(inside), filled: Notify::new() })
    }

    /// Adds an item; whether the oldest had to go for it.
    pub fn push(&self, item: T) -> bool {
        let mut inside = self.lock();
        if inside.closed {
            return false;
        }
        let full = inside.items.len() >= inside.capacity;
        if full {
            inside.items.pop_front();
            inside.lost += 1;
        }
        inside.items.push_back(item);
        drop(inside);
        self.filled.notify_one();
        full
    }

    /// The oldest item, waiting for one; none when the queue is closed and empty.
    pub async fn pop(&self) -> Option<T> {
        loop {
            {
                let mut inside = self.lock();
                if let Some(item) = inside.items.pop_front() {
                    return Some(item);
                }
                if inside.closed {
                    return None;
                }
            }
            // A push between the look and here leaves its permit behind.
            self.filled.notified().await;
        }
    }

    /// How many were lost for want of room.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Takes no more; what is in it can still be read.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        // Nothing in here panics half-way.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_and_it_is_counted() {
        let queue = Queue::new(3);
        let full: Vec<_> = (0..5).map(|item| queue.push(item)).collect();
        assert_eq!(full, [false, false, false, true, true]);
        queue.close();
        assert!(!queue.push(9));
        assert_eq!(
            (queue.pop().await, queue.pop().await, queue.pop().await, queue.pop().await),
            (Some(2), Some(3), Some(4), None)
        );
        assert_eq!(queue.lost(), 2);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let queue = Queue::new(3);
        let reader = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { (queue.pop().await, queue.pop().await) }
        });
        tokio::task::yield_now().await;
        queue.push(1);
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(reader.await.expect("no panic"), (Some(1), None));
    }
}
