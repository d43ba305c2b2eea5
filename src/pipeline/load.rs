//! How much each worker has to do, and so where a new pipeline goes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Workers that differ by less than this, in thousandths of their time, are alike.
const ALIKE: usize = 50;

/// What one worker has to do, as it tells itself. Told and read now and then, so nothing is exact.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Pipelines that live there or are on their way, and those of them that came since it last told.
    pipelines: AtomicUsize,
    recent: AtomicUsize,
    /// Thousandths of its time that it was busy lately.
    busy: AtomicUsize,
}

impl Load {
    /// A pipeline is on its way there.
    pub fn placed(&self) {
        self.pipelines.fetch_add(1, Ordering::Relaxed);
        self.recent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn ended(&self, pipelines: usize) {
        self.pipelines.fetch_sub(pipelines, Ordering::Relaxed);
    }

    /// Of the time that passed since this was called last, so much was spent waiting.
    pub fn tell(&self, passed: Duration, waited: Duration) {
        let busy = passed.saturating_sub(waited).as_micros() * 1_000 / passed.as_micros().max(1);
        self.busy.store(busy as usize, Ordering::Relaxed);
        self.recent.store(0, Ordering::Relaxed);
    }

    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }
}

/// Which worker has the least to do. Pipelines that came too lately to be felt count as much as others do
/// on average; where there is as much to do, the one with the fewest is taken.
pub(super) fn least<'a>(loads: impl Iterator<Item = &'a Load> + Clone) -> Option<usize> {
    let read = |value: &AtomicUsize| value.load(Ordering::Relaxed);
    let all = loads.clone().fold((0, 0), |(busy, pipelines), one| {
        let felt = read(&one.pipelines).saturating_sub(read(&one.recent));
        (busy + read(&one.busy), pipelines + felt)
    });
    let each = all.0 / all.1.max(1);
    let expected = |one: &Load| {
        let busy = read(&one.busy) + read(&one.recent) * each;
        (busy / ALIKE, read(&one.pipelines))
    };
    loads.enumerate().min_by_key(|(_, one)| expected(one)).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(busy: u64, pipelines: usize) -> Load {
        let load = Load::default();
        (0..pipelines).for_each(|_| load.placed());
        load.tell(Duration::from_millis(1_000), Duration::from_millis(1_000 - busy));
        load
    }

    fn place(loads: &[Load], times: usize) -> Vec<usize> {
        let mut placed = vec![0; loads.len()];
        for _ in 0..times {
            let at = least(loads.iter()).expect("there are some");
            loads[at].placed();
            placed[at] += 1;
        }
        placed
    }

    #[test]
    fn a_worker_with_one_large_pipeline_gets_fewer_than_one_with_many_idle_ones() {
        assert_eq!(place(&[worker(900, 1), worker(20, 40)], 10), [0, 10]);
    }

    #[test]
    fn where_as_much_is_done_the_one_with_the_fewest_is_taken() {
        assert_eq!(place(&[worker(0, 4), worker(30, 2), worker(0, 3)], 6), [1, 3, 2]);
    }

    #[test]
    fn many_that_come_at_once_do_not_all_go_where_least_was_done() {
        // Each is expected to take a twentieth of a core, as those do that are there.
        let placed = place(&[worker(600, 12), worker(400, 8)], 20);
        assert_eq!(placed, [8, 12]);
    }
}
