//! Shell: a thread that carries clients: their sockets, their timers, and what it is told to do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, mpsc::TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rivero::clock::Clock;
use rivero::rtp::NtpTime;
use rivero::rtp::transport_feedback::Writer;
use tokio::sync::oneshot;

use super::client::{Client, Joining, Shared, Taken};
use super::histogram::Histogram;
use super::process::thread_time;
use super::sockets::{Arrival, Bound, Sockets, Waker};
use super::stream::Counts;

/// Batches read from one socket before others get their turn.
const MAX_BATCHES: usize = 8;
/// The longest that nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// What a thread is told to do. Clients are known by numbers.
enum Order {
    Join(usize, Box<Joining>),
    Candidate(usize, String),
    Leave(usize),
    /// Who publishes does so as many times as often.
    Rate(u32),
    Tell(oneshot::Sender<Tally>),
    Stop,
}

/// What clients sent and got since they are there, and how long it was under way since the last time
/// somebody asked.
#[derive(Clone, Default)]
pub struct Tally {
    pub counts: Counts,
    pub delays: Histogram,
    /// How long datagrams lay in the system before a thread had time for them.
    pub waits: Histogram,
    /// Processor time of each thread.
    pub threads: Vec<Duration>,
    /// The longest that a present viewer got no picture, since it had its first.
    pub silence: Duration,
    pub sent: u64,
    pub keyframes_asked: u64,
    pub nacked: u64,
    /// What publishers left out because the thread was late.
    pub left_out: u64,
    pub undecryptable: u64,
    pub dropped: u64,
    /// Packets that were sent again to try what a way carries.
    pub repetitions: u64,
    /// Datagrams that this process was too slow to read, or the system too full to send.
    pub overflown: u64,
    pub refused: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.delays.merge(&other.delays);
        self.waits.merge(&other.waits);
        self.threads.extend(&other.threads);
        self.silence = self.silence.max(other.silence);
        self.sent += other.sent;
        self.keyframes_asked += other.keyframes_asked;
        self.nacked += other.nacked;
        self.left_out += other.left_out;
        self.undecryptable += other.undecryptable;
        self.dropped += other.dropped;
        self.repetitions += other.repetitions;
        self.overflown += other.overflown;
        self.refused += other.refused;
    }
}

/// The other end of a thread. When it is dropped, the clients say goodbye and the thread ends.
pub struct Media {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Media {
    /// # Errors
    /// What the system says.
    pub fn start(number: usize, clock: Clock, origin: Instant, rows: bool) -> io::Result<Self> {
        let (orders, receiver) = channel();
        let waker = Arc::new(Waker::new()?);
        let (bound, called) = (Bound::new(rows)?, waker.clone());
        let thread =
            std::thread::Builder::new().name(format!("load-{number}")).spawn(move || {
                match Sockets::new(bound, &*called) {
                    Ok(sockets) => Thread::new(clock, origin, sockets, receiver, called).run(),
                    Err(error) => eprintln!("no clients: {error}"),
                }
            })?;
        Ok(Self { orders, waker, thread: Some(thread) })
    }

    pub fn join(&self, number: usize, joining: Joining) {
        self.order(Order::Join(number, Box::new(joining)));
    }

    pub fn candidate(&self, number: usize, line: String) {
        self.order(Order::Candidate(number, line));
    }

    pub fn leave(&self, number: usize) {
        self.order(Order::Leave(number));
    }

    pub fn set_rate(&self, rate: u32) {
        self.order(Order::Rate(rate));
    }

    /// None if the thread has ended.
    pub async fn tell(&self) -> Option<Tally> {
        let (to, tally) = oneshot::channel();
        self.order(Order::Tell(to));
        tally.await.ok()
    }

    fn order(&self, order: Order) {
        // A thread that has ended answers nobody, which who waits notices.
        let _ = self.orders.send(order);
        self.waker.wake();
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // It has told of its panic itself.
            let _ = thread.join();
        }
    }
}

struct Thread {
    clock: Clock,
    origin: Instant,
    sockets: Sockets,
    orders: Receiver<Order>,
    waker: Arc<Waker>,
    clients: Vec<Option<Box<Client>>>,
    /// Earlier times of the same client are passed over.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    delays: Histogram,
    waits: Histogram,
    writer: Writer,
    /// Of clients that have left.
    gone: Tally,
}

impl Thread {
    fn new(
        clock: Clock,
        origin: Instant,
        sockets: Sockets,
        orders: Receiver<Order>,
        waker: Arc<Waker>,
    ) -> Self {
        let (clients, due, delays) = (Vec::new(), BinaryHeap::new(), Histogram::default());
        let (waits, writer, gone) = (Histogram::default(), Writer::default(), Tally::default());
        Self { clock, origin, sockets, orders, waker, clients, due, delays, waits, writer, gone }
    }

    fn run(mut self) {
        let mut arrivals = Vec::new();
        loop {
            let now = self.clock.now();
            let next = self.due.peek().map_or(now + IDLE, |Reverse((due, _))| *due);
            let ready = self.sockets.wait(next.saturating_duration_since(now));
            for at in 0..ready {
                match self.sockets.ready(at) {
                    Some(socket) => self.read(socket, &mut arrivals),
                    None => {
                        self.waker.clear();
                        if !self.take_orders() {
                            return self.end();
                        }
                    }
                }
            }
            self.serve_due();
            self.sockets.flush();
        }
    }

    fn read(&mut self, socket: usize, arrivals: &mut Vec<Arrival>) {
        for _ in 0..MAX_BATCHES {
            let more = self.sockets.receive(socket, arrivals);
            let now = self.clock.now();
            let time = now - self.origin;
            for arrival in arrivals.iter() {
                self.waits.record(arrival.waited);
                let number = arrival.client;
                let Some(Some(client)) = self.clients.get_mut(number) else { continue };
                let bytes = self.sockets.bytes(arrival);
                let at = time.saturating_sub(arrival.waited);
                let taken = client.handle_datagram(now, at, arrival.from, bytes, &mut self.delays);
                if taken == Taken::Other {
                    self.with(now, number, |client, shared| client.drain(now, shared));
                }
            }
            self.sockets.flush();
            if !more {
                return;
            }
        }
    }

    fn serve_due(&mut self) {
        let now = self.clock.now();
        while let Some(Reverse((due, number))) = self.due.peek().copied() {
            if due > now {
                return;
            }
            self.due.pop();
            let Some(Some(client)) = self.clients.get_mut(number) else { continue };
            if client.scheduled == Some(due) {
                client.scheduled = None;
                self.with(now, number, |client, shared| client.handle_timeout(now, shared));
            }
        }
    }

    /// Runs `work` for a client, and sees that it is looked after in time.
    fn with(
        &mut self,
        now: Instant,
        number: usize,
        work: impl FnOnce(&mut Client, &mut Shared<'_>),
    ) {
        let Some(Some(client)) = self.clients.get_mut(number) else { return };
        let ntp = NtpTime::from_bits(self.clock.ntp(now));
        let mut shared = Shared {
            sockets: &mut self.sockets,
            origin: self.origin,
            ntp,
            writer: &mut self.writer,
            delays: &mut self.delays,
        };
        work(client, &mut shared);
        if let Some(due) = client.poll_timeout()
            && client.scheduled.is_none_or(|scheduled| due < scheduled)
        {
            client.scheduled = Some(due);
            self.due.push(Reverse((due, number)));
        }
    }

    /// False when it is time to end.
    fn take_orders(&mut self) -> bool {
        loop {
            let now = self.clock.now();
            match self.orders.try_recv() {
                Ok(Order::Join(number, joining)) => self.join(now, number, *joining),
                Ok(Order::Candidate(number, line)) => {
                    self.with(now, number, |client, shared| {
                        // One that cannot be used is one less to try.
                        let _ = client.add_candidate(now, number, &line, shared);
                    });
                }
                Ok(Order::Leave(number)) => self.leave(now, number),
                Ok(Order::Rate(rate)) => {
                    self.clients.iter_mut().flatten().for_each(|client| client.set_rate(rate));
                }
                // Who asked may have gone.
                Ok(Order::Tell(to)) => drop(to.send(self.tally())),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn join(&mut self, now: Instant, number: usize, joining: Joining) {
        let ntp = NtpTime::from_bits(self.clock.ntp(now));
        let mut shared = Shared {
            sockets: &mut self.sockets,
            origin: self.origin,
            ntp,
            writer: &mut self.writer,
            delays: &mut self.delays,
        };
        // What fails is noticed by who waits for the client to be connected.
        let Ok(client) = Client::new(now, number, joining, &mut shared) else { return };
        if self.clients.len() <= number {
            self.clients.resize_with(number + 1, || None);
        }
        self.clients[number] = Some(Box::new(client));
        self.with(now, number, |client, shared| client.drain(now, shared));
    }

    fn leave(&mut self, now: Instant, number: usize) {
        self.with(now, number, |client, shared| client.close(now, shared));
        if let Some(client) = self.clients.get_mut(number).and_then(Option::take) {
            count(&mut self.gone, &client);
        }
    }

    fn tally(&mut self) -> Tally {
        let mut tally = self.gone.clone();
        let now = self.clock.now() - self.origin;
        for client in self.clients.iter().flatten() {
            count(&mut tally, client);
            tally.silence = tally.silence.max(client.silence(now));
        }
        tally.delays = std::mem::take(&mut self.delays);
        tally.waits = std::mem::take(&mut self.waits);
        tally.threads = vec![thread_time()];
        tally.overflown = self.sockets.overflown();
        tally.refused = self.sockets.refused;
        tally
    }

    fn end(mut self) {
        let now = self.clock.now();
        for number in 0..self.clients.len() {
            self.leave(now, number);
        }
        self.sockets.flush();
    }
}

fn count(tally: &mut Tally, client: &Client) {
    tally.counts.add(&client.counts());
    tally.undecryptable += client.undecryptable;
    tally.dropped += client.dropped;
    tally.repetitions += client.repetitions;
    tally.sent += client.messages_sent();
    if let Some(publisher) = &client.publisher {
        tally.sent += publisher.packets_sent();
        tally.keyframes_asked += publisher.asked;
        tally.nacked += publisher.nacked;
        tally.left_out += publisher.left_out;
    }
}
