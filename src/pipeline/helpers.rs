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

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn what_helpers_serve_arrives_once_and_in_order() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (helpers, threads) = Helpers::start(2).expect("threads");
        // Two other workers have nothing to do.
        helpers.rest();
        helpers.rest();
        let socket = UdpSocket::bind(any).expect("a free port");
        let mut out = Ways { socket, parties: SecondaryMap::new() };
        let mut team = helpers.team(std::slice::from_ref(&out.socket));
        let now = Instant::now();
        let mut router = Router::new(now);
        let config = PeerConfig { cname: "rivero".to_owned(), remb: true };
        let publisher = router.add_peer(now, config.clone());
        let source = router.add_source(publisher, source());
        let mut viewers = Vec::new();
        for _ in 0..VIEWERS {
            let peer = router.add_peer(now, config.clone());
            let sink = router.add_sink(peer, sink());
            router.set_route(now, sink, Some(source));
            let viewer = std::net::UdpSocket::bind(any).expect("a free port");
            viewer.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
            let sender = Sender::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).expect("a key");
            let address = viewer.local_addr().expect("bound");
            out.parties.insert(peer, (Some(Box::new(sender)), address));
            viewers.push(viewer);
        }
        let mut sent = 0;
        for batch in 0..3 {
            for number in 8 * batch..8 * (batch + 1) {
                take(&mut router, now, source, number, &mut out);
            }
            router.deliver_with(&mut out, &mut team);
        }
        let mut bytes = [0; 100];
        for viewer in &viewers {
            for number in 0..24 {
                let (len, _) = viewer.recv_from(&mut bytes).expect("arrives");
                assert_eq!((len, &bytes[2..4]), (12 + 4 + 16, &[0, number][..]));
                sent += 1;
            }
        }
        assert_eq!(sent, 24 * VIEWERS);
        helpers.stop();
        for thread in threads {
            thread.join().expect("a helper that did not fail");
        }
    }
}
