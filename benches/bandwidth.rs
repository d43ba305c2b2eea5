//! What estimator and pacer add to a packet that leaves: admission, what is noted of it, and its share
//! of the feedback that tells of it. Proves on the way that neither allocates.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rivero::{
    bandwidth::{Bandwidth, Bounds, Class, Fate, Means, Pacer},
    rtp::Bitrate,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

const SIZE: u32 = 1_200;
/// Packets between two feedback messages.
const TOLD: u64 = 25;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes unchanged to the system's allocator, whose promises are these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Call {
    bandwidth: Bandwidth,
    pacer: Pacer<u64>,
    epoch: Instant,
    now: Instant,
    seq: u64,
}

impl Call {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin is needed, and any will do")]
        let now = Instant::now();
        let estimate = Bitrate::from_kbps(8_000);
        let bounds = Bounds { start: Some(estimate), ..Bounds::default() };
        let bandwidth = Bandwidth::new(now, Means::TransportWide, bounds);
        Self { bandwidth, pacer: Pacer::new(now, estimate), epoch: now, now, seq: 0 }
    }

    /// A packet of a stream of 2.4 Mbit/s; its receiver tells of 25 at once.
    fn packet(&mut self) {
        self.now += Duration::from_millis(4);
        if black_box(self.pacer.admit(self.now, Class::Video, SIZE)) {
            self.seq += 1;
            self.bandwidth.sent(self.now, self.seq, SIZE);
        }
        if self.seq.is_multiple_of(TOLD) {
            let (last, now, epoch) = (self.seq, self.now, self.epoch);
            let told = (0..TOLD).map(|n| {
                let sent_at = now - Duration::from_millis(4 * (TOLD - 1 - n));
                let received_at = Some((sent_at - epoch) + Duration::from_micros(20_000 + n * 13));
                Fate { seq: last - (TOLD - 1 - n), size: SIZE, sent_at, received_at }
            });
            self.bandwidth.handle_feedback(now, told);
            self.pacer.set_estimate(self.bandwidth.estimate().target);
            black_box(self.bandwidth.poll_probe(now));
        }
    }
}

fn per_packet(criterion: &mut Criterion) {
    let mut call = Call::new();
    for _ in 0..10_000 {
        call.packet();
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100_000 {
        call.packet();
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "a packet allocates");
    let mut group = criterion.benchmark_group("bandwidth");
    group.throughput(Throughput::Elements(1));
    group.bench_function("estimate_and_pace", |bencher| bencher.iter(|| call.packet()));
    group.finish();
}

criterion_group!(benches, per_packet);
criterion_main!(benches);
