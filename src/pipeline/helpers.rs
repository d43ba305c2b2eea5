//! Shell: threads that help media workers with batches that are for many.
//!
//! Their number is fixed when the server starts. They have nothing of their own but a batch of datagrams
//! to be sent: what they work with is lent to them, and the sockets are the worker's. They are asked only
//! while some worker rests, for then a core is free; a worker that nobody helps does all by itself.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::sealed::{LentWay, Wire};
use crate::router::{Crew, Share};
use crate::transport::udp::{SendBatch, SendStats, UdpSocket};

type Job = Share<LentWay>;

/// The helpers of a process. Cheap to clone.
#[derive(Clone)]
pub struct Helpers(Arc<Shared>);

struct Shared {
    calls: Mutex<Calls>,
    bell: Condvar,
    /// How many there are, and how many of them have nothing to do.
    threads: usize,
    idle: AtomicUsize,
    /// Workers that wait for something to happen.
    resting: AtomicUsize,
}

#[derive(Default)]
struct Calls {
    /// Whom to help; no more than there are helpers.
    rounds: VecDeque<Arc<Round>>,
    stopped: bool,
}

/// The shares of one worker's batch.
struct Round {
    sockets: Arc<[UdpSocket]>,
    state: Mutex<State>,
    /// A share came back.
    back: Condvar,
}

#[derive(Default)]
struct State {
    offered: Vec<Job>,
    served: Vec<Job>,
    failed: bool,
    stats: SendStats,
    /// Shares that helpers served.
    helped: u64,
}

/// What helpers did for a worker since it was asked last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Helped {
    pub shares: u64,
    pub stats: SendStats,
}

impl Helpers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(threads: usize) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            bell: Condvar::new(),
            threads,
            idle: AtomicUsize::new(threads),
            resting: AtomicUsize::new(0),
        });
        let helpers = Self(shared);
        let mut handles = Vec::new();
        for number in 0..threads {
            let shared = helpers.0.clone();
            let builder = std::thread::Builder::new().name(format!("helper-{number}"));
            match builder.spawn(move || shared.help()) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    helpers.stop();
                    return Err(error);
                }
            }
        }
        Ok((helpers, handles))
    }

    /// Ends the threads.
    pub fn stop(&self) {
        lock(&self.0.calls).stopped = true;
        self.0.bell.notify_all();
    }

    /// A worker begins to wait.
    pub fn rest(&self) {
        self.0.resting.fetch_add(1, Ordering::Relaxed);
    }

    pub fn wake(&self) {
        self.0.resting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Those who help the worker with these sockets.
    pub fn team(&self, sockets: &[UdpSocket]) -> Team {
        let round = Arc::new(Round::new(Arc::from(sockets)));
        let tally = Tally::default();
        Team {
            shared: self.0.clone(),
            out: Own::new(),
            round,
            tally,
            to_call: 0,
            unserved: 0,
            spare: Vec::new(),
        }
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.0.threads > 0
    }
}

impl Shared {
    /// What a helper does.
    fn help(&self) {
        let mut out = Own::new();
        loop {
            let mut calls = lock(&self.calls);
            let round = loop {
                if calls.stopped {
                    return;
                }
                match calls.rounds.pop_front() {
                    Some(round) => break round,
                    None => {
                        calls = self.bell.wait(calls).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(calls);
            self.idle.fetch_sub(1, Ordering::Relaxed);
            round.help(&mut out);
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Round {
    fn new(sockets: Arc<[UdpSocket]>) -> Self {
        Self { sockets, state: Mutex::default(), back: Condvar::new() }
    }

    /// Serves shares until none is left.
    fn help(&self, out: &mut Own) {
        loop {
            let mut state = lock(&self.state);
            let Some(mut share) = state.offered.pop() else { return };
            drop(state);
            // What it worked with is gone then, and so is the pipeline that it belongs to.
            let served = catch_unwind(AssertUnwindSafe(|| out.serve(&self.sockets, &mut share)));
            let mut state = lock(&self.state);
            match served {
                Ok(stats) => {
                    state.stats += stats;
                    state.helped += 1;
                    state.served.push(share);
                }
                Err(_) => {
                    state.failed = true;
                    *out = Own::new();
                }
            }
            drop(state);
            self.back.notify_one();
        }
    }
}

/// What was done for a worker, for its loop to take.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<Helped>>);

impl Tally {
    pub fn take(&self) -> Helped {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// A worker with those who help it.
pub struct Team {
    shared: Arc<Shared>,
    round: Arc<Round>,
    out: Own,
    tally: Tally,
    /// Helpers that are still to be called.
    to_call: usize,
    /// Shares that were offered and have not been handed back.
    unserved: usize,
    spare: Vec<Job>,
}

impl Team {
    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// All shares are here again.
    fn finish(&mut self) {
        let mut state = lock(&self.round.state);
        let (stats, shares) = (std::mem::take(&mut state.stats), std::mem::take(&mut state.helped));
        drop(state);
        let mut tally = lock(&self.tally.0);
        tally.stats += stats;
        tally.shares += shares;
    }
}

impl Crew<LentWay> for Team {
    fn begin(&mut self) -> bool {
        if self.unserved > 0 {
            // Somebody failed; what is left of that batch is nobody's any more.
            self.unserved = 0;
            self.round = Arc::new(Round::new(self.round.sockets.clone()));
        }
        let resting = self.shared.resting.load(Ordering::Relaxed);
        self.to_call = self.shared.idle.load(Ordering::Relaxed).min(resting);
        self.to_call > 0
    }

    fn empty(&mut self) -> Job {
        self.spare.pop().unwrap_or_default()
    }

    fn offer(&mut self, share: Job) {
        self.unserved += 1;
        lock(&self.round.state).offered.push(share);
        // The first share is for the worker itself.
        if self.to_call > 0 && self.unserved > 1 {
            self.to_call -= 1;
            let mut calls = lock(&self.shared.calls);
            if calls.rounds.len() < self.shared.threads {
                calls.rounds.push_back(self.round.clone());
                drop(calls);
                self.shared.bell.notify_one();
            }
        }
    }

    fn served(&mut self) -> Option<Job> {
        if self.unserved == 0 {
            self.finish();
            return None;
        }
        let mut state = lock(&self.round.state);
        loop {
            assert!(!state.failed, "a helper failed");
            if let Some(share) = state.served.pop() {
                self.unserved -= 1;
                return Some(share);
            }
            if let Some(mut share) = state.offered.pop() {
                drop(state);
                let stats = self.out.serve(&self.round.sockets, &mut share);
                lock(&self.round.state).stats += stats;
                self.unserved -= 1;
                return Some(share);
            }
            state = self.round.back.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn keep(&mut self, share: Job) {
        self.spare.push(share);
    }
}

/// Where a thread sends from: the sockets of whom it helps, with a batch of its own.
struct Own {
    sockets: Arc<[UdpSocket]>,
    batch: SendBatch,
    /// Which of them the batch is sent from.
    of: usize,
    stats: SendStats,
}

impl Own {
    fn new() -> Self {
        let sockets = Arc::from([]);
        Self { sockets, batch: SendBatch::new(), of: 0, stats: SendStats::default() }
    }

    /// Serves a share, and sends what comes of it.
    fn serve(&mut self, sockets: &Arc<[UdpSocket]>, share: &mut Job) -> SendStats {
        self.sockets.clone_from(sockets);
        share.serve(self);
        self.flush();
        std::mem::take(&mut self.stats)
    }

    fn flush(&mut self) {
        if let Some(socket) = self.sockets.get(self.of)
            && !self.batch.is_empty()
        {
            self.stats += self.batch.flush(socket);
        }
    }
}

impl Wire for Own {
    fn send(
        &mut self,
        mark: u8,
        local: SocketAddr,
        remote: SocketAddr,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>,
    ) {
        #[cfg(test)]
        assert_ne!(remote, tests::cursed(), "the bug that a test wants");
        let is_it = |socket: &UdpSocket| socket.local_addr() == local;
        if !self.sockets.get(self.of).is_some_and(is_it) {
            let Some(of) = self.sockets.iter().position(is_it) else { return };
            self.flush();
            self.of = of;
        }
        if self.batch.is_full() {
            self.flush();
        }
        if let Some(len) = fill(self.batch.slot()) {
            self.batch.commit_marked(len, remote, mark);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{
        Egress, Lender, PeerConfig, PeerKey, Router, SinkConfig, SourceConfig, SourceKey,
    };
    use crate::rtp::{Codec, Extensions, Format, Kind, RtpPacket};
    use crate::transport::srtp::{Profile, Sender};
    use slotmap::SecondaryMap;
    use std::time::{Duration, Instant};

    const VIEWERS: u32 = 70;

    /// Lends all it has.
    struct Ways {
        socket: UdpSocket,
        parties: SecondaryMap<PeerKey, (Option<Box<Sender>>, SocketAddr)>,
    }

    impl Egress for Ways {
        fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
            let (sender, address) = &mut self.parties[to];
            let (sender, mut slot) = (sender.as_mut().expect("not lent"), [0; 100]);
            let len = sender.seal_rtp(header, payload, index, &mut slot).expect("a new index");
            self.socket.send_to(&slot[..len], *address).expect("sends");
        }

        fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
    }

    impl Lender for Ways {
        type Way = LentWay;

        fn flush(&mut self) {}

        fn lend(&mut self, to: PeerKey) -> Option<LentWay> {
            let (sender, address) = &mut self.parties[to];
            Some(LentWay::new(sender.take()?, 0, self.socket.local_addr(), *address))
        }

        fn give_back(&mut self, to: PeerKey, way: LentWay) {
            self.parties[to].0 = Some(way.into_sender().0);
        }
    }

    fn formats() -> Vec<(u8, Format)> {
        vec![(96, Format::new(Codec::Vp8, ""))]
    }

    fn source() -> SourceConfig {
        SourceConfig {
            kind: Kind::Video,
            formats: formats(),
            nack: true,
            pli: true,
            fir: true,
            remb: true,
            transport_cc: false,
            rtx: Vec::new(),
            rtx_ssrcs: Vec::new(),
            extensions: Extensions::default(),
            receiver_ssrc: 1,
            keyframe_cache: 0,
        }
    }

    fn sink() -> SinkConfig {
        SinkConfig {
            kind: Kind::Video,
            ssrc: 9,
            formats: formats(),
            nack: true,
            rtx: None,
            extensions: Extensions::default(),
            transport_cc: false,
            mid: None,
            sequence_start: 0,
            timestamp_start: 0,
        }
    }

    fn take(router: &mut Router, now: Instant, source: SourceKey, number: u8, out: &mut Ways) {
        let bytes = [0x80, 96, 0, number, 0, 0, 0, number / 8, 0, 0, 0, 7, 0x10, number, 1, 2];
        let packet = RtpPacket::parse(&bytes).expect("a well-formed packet");
        router.take(now, source, &packet, out);
    }

    /// Sending there panics, for whoever helps.
    pub fn cursed() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9))
    }

    /// A pipeline's router with a publisher and many viewers.
    struct Crowd {
        now: Instant,
        router: Router,
        source: SourceKey,
        out: Ways,
        viewers: Vec<std::net::UdpSocket>,
    }

    impl Crowd {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do as the origin of a test"
        )]
        fn new(socket: &UdpSocket) -> Self {
            let now = Instant::now();
            let mut out = Ways { socket: socket.clone(), parties: SecondaryMap::new() };
            let mut router = Router::new(now);
            let config = PeerConfig { cname: "rivero".to_owned(), remb: true };
            let publisher = router.add_peer(now, config.clone());
            let source = router.add_source(publisher, source());
            let mut viewers = Vec::new();
            for _ in 0..VIEWERS {
                let peer = router.add_peer(now, config.clone());
                let sink = router.add_sink(peer, sink());
                router.set_route(now, sink, Some(source));
                let viewer = std::net::UdpSocket::bind(any()).expect("a free port");
                viewer.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
                let sender =
                    Sender::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).expect("a key");
                let address = viewer.local_addr().expect("bound");
                out.parties.insert(peer, (Some(Box::new(sender)), address));
                viewers.push(viewer);
            }
            Self { now, router, source, out, viewers }
        }

        /// What is sent to one of them, in the middle of a share, fails.
        fn curse(&mut self) {
            let mut parties = self.out.parties.values_mut();
            parties.nth(VIEWERS as usize / 2).expect("a viewer").1 = cursed();
        }

        /// Eight packets arrive and go on.
        fn batch(&mut self, batch: u8, crew: &mut dyn Crew<LentWay>) {
            for number in 8 * batch..8 * (batch + 1) {
                take(&mut self.router, self.now, self.source, number, &mut self.out);
            }
            self.router.deliver_with(&mut self.out, crew);
        }

        /// So many batches came to everyone, each packet once and in order.
        fn check(&self, batches: u8) {
            let mut bytes = [0; 100];
            for viewer in &self.viewers {
                for number in 0..8 * batches {
                    let (len, _) = viewer.recv_from(&mut bytes).expect("arrives");
                    assert_eq!((len, &bytes[2..4]), (12 + 4 + 16, &[0, number][..]));
                }
                viewer.set_nonblocking(true).expect("sets");
                assert!(viewer.recv_from(&mut bytes).is_err(), "more than was sent");
            }
        }
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Helpers of whom two other workers, that have nothing to do, let their cores be used.
    fn start() -> (Helpers, Vec<JoinHandle<()>>) {
        let (helpers, threads) = Helpers::start(2).expect("threads");
        helpers.rest();
        helpers.rest();
        (helpers, threads)
    }

    fn end(helpers: &Helpers, threads: Vec<JoinHandle<()>>) {
        helpers.stop();
        for thread in threads {
            thread.join().expect("a helper that did not fail");
        }
        assert_eq!(helpers.0.idle.load(Ordering::Relaxed), 2, "nobody counts as busy for ever");
    }

    #[expect(clippy::disallowed_methods, reason = "a test that would hang fails")]
    fn wait_until(mut what: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed() < Duration::from_secs(10), "nobody helps");
            std::thread::yield_now();
        }
    }

    /// A worker that always gets help, and serves no share itself if it is lazy.
    struct Aided {
        team: Team,
        lazy: bool,
    }

    impl Aided {
        /// Those who helped may have gone before the last share was offered.
        fn call(&self) {
            let mut calls = lock(&self.team.shared.calls);
            if calls.rounds.is_empty() {
                calls.rounds.push_back(self.team.round.clone());
                self.team.shared.bell.notify_one();
            }
        }
    }

    impl Crew<LentWay> for Aided {
        fn begin(&mut self) -> bool {
            // Helpers may not have said yet that they are done with the batch before.
            wait_until(|| self.team.begin());
            true
        }

        fn empty(&mut self) -> Job {
            self.team.empty()
        }

        fn offer(&mut self, share: Job) {
            self.team.offer(share);
        }

        fn served(&mut self) -> Option<Job> {
            if self.lazy {
                wait_until(|| {
                    let all_taken = lock(&self.team.round.state).offered.is_empty();
                    if !all_taken {
                        self.call();
                    }
                    all_taken
                });
            }
            self.team.served()
        }

        fn keep(&mut self, share: Job) {
            self.team.keep(share);
        }
    }

    #[test]
    fn what_helpers_serve_arrives_once_and_in_order() {
        let (helpers, threads) = start();
        let socket = UdpSocket::bind(any()).expect("a free port");
        let mut team = helpers.team(std::slice::from_ref(&socket));
        let mut crowd = Crowd::new(&socket);
        for batch in 0..3 {
            crowd.batch(batch, &mut team);
        }
        crowd.check(3);
        end(&helpers, threads);
    }

    #[test]
    fn a_helper_that_fails_fails_the_pipeline_at_work_and_helps_with_the_next() {
        let (helpers, threads) = start();
        let socket = UdpSocket::bind(any()).expect("a free port");
        let team = helpers.team(std::slice::from_ref(&socket));
        let tally = team.tally();
        let mut crew = Aided { team, lazy: true };
        let mut before = Crowd::new(&socket);
        before.batch(0, &mut crew);
        // More often than there are helpers.
        for _ in 0..3 {
            let mut doomed = Crowd::new(&socket);
            doomed.batch(0, &mut crew);
            doomed.curse();
            // As a worker does it, which ends the pipeline then.
            let failed = catch_unwind(AssertUnwindSafe(|| doomed.batch(1, &mut crew)));
            let why = failed.expect_err("what was lent is not back");
            assert_eq!(why.downcast_ref(), Some(&"a helper failed"));
        }
        tally.take();
        let mut after = Crowd::new(&socket);
        after.batch(0, &mut crew);
        for crowd in [&mut before, &mut after] {
            crowd.batch(1, &mut crew);
            crowd.check(2);
        }
        let each = u64::from(VIEWERS.div_ceil(16));
        assert_eq!(tally.take().shares, 3 * each, "helpers served all of them");
        end(&helpers, threads);
    }

    #[test]
    fn a_worker_that_fails_at_a_share_leaves_nothing_of_it_to_the_next_batch() {
        let (helpers, threads) = start();
        let socket = UdpSocket::bind(any()).expect("a free port");
        let team = helpers.team(std::slice::from_ref(&socket));
        let mut crew = Aided { team, lazy: false };
        for _ in 0..10 {
            let mut doomed = Crowd::new(&socket);
            doomed.out.parties.values_mut().for_each(|party| party.1 = cursed());
            catch_unwind(AssertUnwindSafe(|| doomed.batch(0, &mut crew))).expect_err("all fails");
            let mut next = Crowd::new(&socket);
            next.batch(0, &mut crew);
            next.check(1);
        }
        end(&helpers, threads);
    }
}
