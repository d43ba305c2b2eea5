//! Shell: a media worker's thread with its sockets, its mailbox and its clock. What it decides is in
//! [`Machine`].
//!
//! A panic while a pipeline is at work ends that pipeline and nothing else.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use tracing::Span;

use super::helpers::{Helpers, Tally as Helped};
use super::load::Load;
use super::machine::{Machine, Outbox};
use super::own_sockets::OwnSockets;
use super::pool::Outlet;
use super::resolver::{Question, Resolver};
use super::setup::allowance;
use super::streams::{Epoll, Owner, Ready, Streams, TlsConfig};
use super::{Command, Ticket, WorkerId, cores};
use crate::clock::{Clock, Reading};
use crate::config::ModuleConfig;
use crate::elements::{Asker, Certificates, LegKey, Moment, Net, Places, PlainNet};
use crate::metrics::{Tally, WorkerMetrics};
use crate::model::ObjectLimits;
use crate::rtp::NtpTime;
use crate::transport::LinkOutput;
use crate::transport::demux::Demux;
use crate::transport::interfaces::Interface;
use crate::transport::path::{self, Path};
use crate::transport::ports::{PortRange, Ports, Quota};
use crate::transport::tcp::{Listener, MAX_FRAME};
use crate::transport::udp::{
    Incoming, RecvBatch, SEND_BATCH, SEND_SLOT, SendBatch, SendStats, UdpSocket,
};

/// Batches read from one socket before others get their turn.
const MAX_BATCHES: usize = 8;

/// What came of a datagram waits this long at most for others that arrive meanwhile: what goes to one
/// destination leaves together, and nobody waits when nothing comes.
const LEAVES_AFTER: Duration = Duration::from_micros(300);

/// Sockets of endpoints and connections that are told of at once; others are told of the next time.
const MAX_READY: usize = 64;

/// How often counters are handed to the metrics.
const METRICS_PERIOD: Duration = Duration::from_millis(500);

/// A worker shows at least so often that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// What a worker is made of.
pub(super) struct Parts {
    pub id: WorkerId,
    pub clock: Clock,
    pub sockets: Vec<UdpSocket>,
    pub listeners: Vec<Listener>,
    /// Which interfaces have the addresses.
    pub interfaces: Vec<Interface>,
    pub resolver: Resolver,
    /// What TURN servers are checked with.
    pub tls: TlsConfig,
    pub mailbox: Arc<Mailbox>,
    pub load: Arc<Load>,
    pub helpers: Helpers,
    /// Where the thread is to stay.
    pub core: Option<usize>,
    /// Milliseconds of the clock's uptime at the last turn.
    pub beat: Arc<AtomicU64>,
    pub outlet: Outlet,
    pub certificates: Arc<Certificates>,
    pub object_limits: ObjectLimits,
    /// Where endpoints of plain RTP get their ports, and how many all workers together.
    pub rtp_ports: PortRange,
    pub rtp_pairs: Arc<Quota>,
    /// What new elements start with.
    pub defaults: Arc<ModuleConfig>,
}

/// Starts the thread.
///
/// # Errors
/// When the system gives no thread or no epoll instance.
pub(super) fn spawn(parts: Parts) -> io::Result<JoinHandle<()>> {
    let poller = Poller::new(&parts)?;
    let mut parts = parts;
    let tcp = parts.listeners.iter().map(Listener::local_addr).collect();
    let streams = Streams::new(
        parts.clock.now(),
        poller.epoll.clone(),
        std::mem::take(&mut parts.listeners),
        parts.tls.clone(),
    )?;
    std::thread::Builder::new().name(format!("media-{}", parts.id)).spawn(move || {
        if let Some(core) = parts.core
            && let Err(error) = cores::pin(core)
        {
            tracing::warn!(core, %error, "this thread moves between cores");
        }
        Shell::new(parts, poller, streams, tcp).run();
    })
}

struct Shell {
    machine: Machine,
    clock: Clock,
    poller: Poller,
    out: Sockets,
    /// None only while it is in use.
    received: Option<RecvBatch>,
    /// One message of a connection.
    message: Vec<u8>,
    mailbox: Arc<Mailbox>,
    /// Commands that wait until media was sent.
    commands: VecDeque<(Command, Ticket, Span)>,
    load: Arc<Load>,
    beat: Arc<AtomicU64>,
    /// Since the counters were handed over.
    waited: Duration,
    helpers: Helpers,
    /// What helpers did, where there are any.
    tally: Helped,
    outlet: Outlet,
    metrics: WorkerMetrics,
    /// Microseconds of each turn, waiting left out, and datagrams of each batch that was received.
    turns: Tally,
    batches: Tally,
    counts: Counts,
    counted_at: Instant,
}

#[derive(Default)]
struct Counts {
    packets: u64,
    bytes: u64,
    truncated: u64,
}

impl Shell {
    fn new(parts: Parts, poller: Poller, streams: Streams, tcp: Vec<SocketAddr>) -> Self {
        let own = OwnSockets::new(poller.epoll.clone());
        let metrics = parts.outlet.metrics().worker(parts.id);
        let ports = Ports::new(parts.rtp_ports, parts.rtp_pairs, Box::new(own.clone()));
        let net = Net {
            plain: PlainNet::new(ports),
            legs: SlotMap::with_key(),
            demux: Demux::new(),
            addresses: parts.sockets.iter().map(UdpSocket::local_addr).collect(),
            places: Places { interfaces: parts.interfaces, tcp, ..Places::default() },
            certificates: parts.certificates,
            object_limits: parts.object_limits,
            defaults: parts.defaults,
            touched: Vec::new(),
            closing: Vec::new(),
        };
        let mut machine = Machine::new(parts.id, net);
        let mut tally = Helped::default();
        if parts.helpers.any() {
            let team = parts.helpers.team(&parts.sockets);
            tally = team.tally();
            machine.set_crew(Box::new(team));
        }
        Self {
            machine,
            clock: parts.clock,
            poller,
            out: Sockets {
                list: parts.sockets.into_iter().map(|one| (one, SendBatch::new())).collect(),
                own,
                stats: SendStats::default(),
                streams,
                resolver: parts.resolver,
                unasked: 0,
                mailbox: parts.mailbox.clone(),
                now: parts.clock.now(),
            },
            received: Some(RecvBatch::new()),
            message: Vec::with_capacity(MAX_FRAME),
            mailbox: parts.mailbox,
            commands: VecDeque::new(),
            load: parts.load,
            waited: Duration::ZERO,
            helpers: parts.helpers,
            tally,
            beat: parts.beat,
            outlet: parts.outlet,
            turns: metrics.turns.tally(),
            batches: metrics.batches.tally(),
            metrics,
            counts: Counts::default(),
            counted_at: parts.clock.now(),
        }
    }

    fn run(mut self) {
        // However this ends, nobody must wait for an answer afterwards.
        let _closing = Closing(self.mailbox.clone());
        while !self.mailbox.stopped() {
            let due = self.machine.poll_timeout();
            let uncounted =
                self.counts.packets > 0 || self.out.stats.sent > 0 || self.out.own.has_sent();
            let uncounted = uncounted || self.out.unasked > 0 || self.out.streams.cuts.any();
            let uncounted = uncounted || self.load.is_busy();
            let count_at = uncounted.then(|| self.counted_at + METRICS_PERIOD);
            let sweep_at = self.out.streams.poll_timeout();
            let next = due.into_iter().chain(count_at).chain(sweep_at).min();
            let before = self.clock.now();
            let wait = next.map(|next| next.saturating_duration_since(before));
            let wait = match self.sets_up() {
                true => Duration::ZERO,
                false => wait.unwrap_or(BEAT).min(BEAT),
            };
            self.helpers.rest();
            let ready = self.poller.wait(Some(wait));
            self.helpers.wake();
            let began = self.clock.now();
            self.waited += began.saturating_duration_since(before);
            self.beat.store(self.clock.uptime().as_millis() as u64, Ordering::Relaxed);
            for ready in 0..ready {
                let (token, events) = self.poller.ready(ready);
                match Ready::of(token) {
                    _ if token == Poller::MAILBOX => self.read_mailbox(),
                    Some(Ready::Listener(number)) => {
                        let now = self.clock.now();
                        self.out.streams.accept(now, number);
                    }
                    Some(Ready::Open(number)) => self.read_stream(number, events),
                    None if token >= OwnSockets::FIRST_TOKEN => {
                        self.with_room(|shell, room| shell.read_own_socket(token, room));
                    }
                    None => {
                        self.with_room(|shell, room| shell.read_socket(token as usize, room));
                    }
                }
            }
            let at = self.moment();
            if self.machine.poll_timeout().is_some_and(|due| due <= at.now) {
                self.guarded(at, |machine, out| machine.handle_timeout(at, out));
            }
            self.tell_links(at);
            self.flush(at.now);
            self.set_up(began);
            let (machine, streams) = (&self.machine, &mut self.out.streams);
            streams.sweep(at.now, |leg| machine.has(leg));
            for notice in self.machine.notices() {
                self.outlet.send(notice);
            }
            let ended = self.machine.take_ended();
            if ended > 0 {
                self.load.ended(ended);
            }
            if at.now >= self.counted_at + METRICS_PERIOD {
                let passed = at.now.saturating_duration_since(self.counted_at);
                self.load.tell(passed, std::mem::take(&mut self.waited));
                self.counted_at = at.now;
                self.count();
            }
            let turn = self.clock.now().saturating_duration_since(began);
            self.turns.note(turn.as_micros() as u64);
        }
        let at = self.moment();
        self.guarded(at, |machine, out| machine.release_all(at, out));
        self.out.flush_all();
        for notice in self.machine.notices() {
            self.outlet.send(notice);
        }
        self.count();
    }

    fn moment(&self) -> Moment {
        self.moment_of(self.clock.reading())
    }

    fn moment_of(&self, Reading { now, unix }: Reading) -> Moment {
        let ntp = NtpTime::from_bits(self.clock.ntp(now));
        Moment { now, came: now, unix_millis: unix.as_millis() as u64, ntp }
    }

    fn read_mailbox(&mut self) {
        let at = self.moment();
        let (commands, answers) = self.mailbox.take();
        self.commands.extend(commands);
        for Answer { asker, ip } in answers {
            self.guarded(at, |machine, out| machine.handle_resolved(at, asker, ip, out));
        }
    }

    fn sets_up(&self) -> bool {
        !self.commands.is_empty() || self.machine.handshakes() > 0
    }

    /// Carries out commands and does steps of handshakes, for a share of the time that the turn took which
    /// `began` then.
    fn set_up(&mut self, began: Instant) {
        if !self.sets_up() {
            return;
        }
        let from = self.clock.now();
        let until = from + allowance(from.saturating_duration_since(began));
        loop {
            let at = self.moment();
            if let Some((command, ticket, request)) = self.commands.pop_front() {
                let _named = request.entered();
                self.guarded(at, |machine, out| machine.handle_command(at, command, ticket, out));
            }
            self.guarded(at, |machine, out| machine.next_handshake(at, out));
            if !self.sets_up() || self.clock.now() >= until {
                self.guarded(at, |machine, out| machine.end_of_batch(at, out));
                return self.flush(at.now);
            }
        }
    }

    fn read_stream(&mut self, number: usize, events: u32) {
        let at = self.moment();
        if self.out.streams.datagrams(number).is_some() {
            self.with_room(|shell, room| shell.read_link(at, number, room));
            return;
        }
        self.out.streams.serve(at.now, number, events);
        let mut message = std::mem::take(&mut self.message);
        while let Some(owner) = self.out.streams.next(number, &mut message) {
            self.counts.packets += 1;
            self.counts.bytes += message.len() as u64;
            let bytes = &mut message[..];
            match owner {
                Owner::Peer { local, remote } => {
                    let mut taken = None;
                    self.guarded(at, |machine, out| {
                        taken = machine.handle_datagram(at, local, remote, bytes, out);
                    });
                    if let Some(leg) = taken {
                        self.out.streams.set_known(number, leg);
                    }
                }
                Owner::Link(leg) => {
                    self.guarded(at, |machine, out| machine.handle_link(at, leg, bytes, out));
                }
            }
        }
        self.message = message;
        self.guarded(at, |machine, out| machine.end_of_batch(at, out));
        self.tell_links(at);
        self.flush(at.now);
    }

    /// Takes what a TURN server sent by UDP.
    fn read_link(&mut self, at: Moment, number: usize, batch: &mut RecvBatch) {
        for _ in 0..MAX_BATCHES {
            let Some((socket, server, leg)) = self.out.streams.datagrams(number) else { break };
            if !matches!(socket.recv_batch(batch), Ok(1..)) {
                break;
            }
            let reading = self.clock.reading();
            for Incoming { came, bytes, .. } in batch.iter_mut().filter(|one| one.from == server) {
                self.counts.packets += 1;
                self.counts.bytes += bytes.len() as u64;
                let at = Moment { came: came.map_or(at.now, |came| reading.when(came)), ..at };
                self.guarded(at, |machine, out| machine.handle_link(at, leg, bytes, out));
            }
            self.guarded(at, |machine, out| machine.end_of_batch(at, out));
        }
        self.flush(at.now);
    }

    /// Tells sessions what happened to their ways to TURN servers.
    fn tell_links(&mut self, at: Moment) {
        for (leg, open) in self.out.streams.take_news() {
            self.guarded(at, |machine, out| machine.handle_link_state(at, leg, open, out));
        }
    }

    /// Runs `read` with the room for datagrams, which is the same every time: a new one would cost more
    /// than the few packets that an endpoint's own port has at once.
    fn with_room(&mut self, read: impl FnOnce(&mut Self, &mut RecvBatch)) {
        let mut room = self.received.take().unwrap_or_default();
        read(self, &mut room);
        self.received = Some(room);
    }

    fn read_socket(&mut self, number: usize, batch: &mut RecvBatch) {
        self.read_batches(|shell| {
            let (socket, _) = shell.out.list.get(number)?;
            let local = socket.local_addr();
            match socket.recv_batch(batch) {
                Ok(0) => None,
                Ok(_) => Some(shell.handle_batch(batch, |machine, at, remote, bytes, out| {
                    machine.handle_datagram(at, local, remote, bytes, out);
                })),
                Err(error) => {
                    tracing::warn!(%local, %error, "cannot receive");
                    None
                }
            }
        });
    }

    fn read_own_socket(&mut self, token: u64, batch: &mut RecvBatch) {
        self.read_batches(|shell| {
            let (local, count) = shell.out.own.receive(token, batch)?;
            (count > 0).then(|| {
                shell.handle_batch(batch, |machine, at, remote, bytes, out| {
                    machine.handle_plain_datagram(at, local, remote, bytes, out);
                })
            })
        });
    }

    /// Reads batches until none waits, lets what came of them go on together, looks what has arrived
    /// meanwhile, and sends all of it together, see [`LEAVES_AFTER`]. `read` gives the time at which
    /// what it read had arrived.
    fn read_batches(&mut self, mut read: impl FnMut(&mut Self) -> Option<Moment>) {
        let (mut oldest, mut taken) = (None, None);
        for _ in 0..MAX_BATCHES {
            let arrived = read(self);
            if let Some(at) = arrived {
                taken = Some(at);
                // Nothing of it goes on, so nothing has to be waited for: most batches are one report.
                let goes_on = oldest.is_some() || self.machine.has_packets();
                oldest.get_or_insert(at.now);
                if !goes_on {
                    break;
                }
            }
            let Some(since) = oldest else { break };
            let late = self.clock.now().saturating_duration_since(since) >= LEAVES_AFTER;
            if arrived.is_some() && !late {
                continue;
            }
            let Some(at) = taken.take() else { break };
            self.guarded(at, |machine, out| machine.end_of_batch(at, out));
            if self.clock.now().saturating_duration_since(since) >= LEAVES_AFTER {
                self.flush(since);
                oldest = None;
            }
        }
        if let Some(at) = taken {
            self.guarded(at, |machine, out| machine.end_of_batch(at, out));
        }
        if let Some(since) = oldest {
            self.flush(since);
        }
    }

    /// Gives each datagram to the machine; when they arrived.
    fn handle_batch(
        &mut self,
        batch: &mut RecvBatch,
        handle: impl Fn(&mut Machine, Moment, SocketAddr, &mut [u8], &mut Sockets),
    ) -> Moment {
        self.counts.truncated += batch.truncated() as u64;
        self.batches.note(batch.len() as u64);
        let reading = self.clock.reading();
        let at = self.moment_of(reading);
        for Incoming { from, came, bytes } in batch.iter_mut() {
            self.counts.packets += 1;
            self.counts.bytes += bytes.len() as u64;
            let at = Moment { came: came.map_or(at.now, |came| reading.when(came)), ..at };
            self.guarded(at, |machine, out| handle(machine, at, from, bytes, out));
        }
        at
    }

    /// Sends what came of all that arrived at `arrived`, and looks how long that took where somebody
    /// wants to know.
    fn flush(&mut self, arrived: Instant) {
        let routed = self.machine.measures().then(|| self.clock.now());
        self.out.flush_all();
        if let Some(routed) = routed {
            self.machine.measured(arrived, routed, self.clock.now());
        }
    }

    /// Runs a part of the machine; if it panics, the pipeline that was at work is gone afterwards.
    fn guarded(&mut self, at: Moment, f: impl FnOnce(&mut Machine, &mut Sockets)) {
        let (machine, out) = (&mut self.machine, &mut self.out);
        machine.at_rest();
        out.now = at.now;
        // What is left inconsistent is the pipeline at work, and that one is thrown away.
        if catch_unwind(AssertUnwindSafe(|| f(machine, out))).is_err() {
            tracing::error!("a pipeline failed and is ended");
            self.machine.bury(at);
        }
    }

    fn count(&mut self) {
        let metrics = self.outlet.metrics();
        let counts = std::mem::take(&mut self.counts);
        metrics.received(counts.packets, counts.bytes);
        let mut sent = std::mem::take(&mut self.out.stats);
        sent += self.out.own.take_stats();
        let helped = self.tally.take();
        sent += helped.stats;
        metrics.helped(helped.shares);
        let streamed = std::mem::take(&mut self.out.streams.sent);
        metrics.sent(
            sent.sent as u64 + streamed.0,
            sent.bytes as u64 + streamed.1,
            sent.messages as u64 + streamed.0,
        );
        let cuts = std::mem::take(&mut self.out.streams.cuts);
        let own = [
            ("tcp_unknown_evicted", cuts.unknown_evicted),
            ("tcp_unknown_silent", cuts.unknown_silent),
            ("tcp_session_evicted", cuts.session_evicted),
            ("tcp_idle", cuts.idle),
            ("tcp_too_many", cuts.too_many),
            ("tcp_no_descriptor", cuts.no_descriptor),
            ("tcp_nonsense", cuts.nonsense),
            ("tcp_full", cuts.full),
            ("too_long", counts.truncated),
            ("name_queue_full", std::mem::take(&mut self.out.unasked)),
            ("socket_full", sent.dropped_full as u64),
            ("refused_by_kernel", sent.dropped_refused as u64),
        ];
        for (reason, number) in own.into_iter().chain(self.machine.take_dropped()) {
            if number > 0 {
                metrics.dropped(reason, number);
            }
        }
        self.metrics.turns.take(&mut self.turns);
        self.metrics.batches.take(&mut self.batches);
        let shaken = self.machine.take_shaken();
        metrics.handshakes(shaken.begun, shaken.done, shaken.failed);
        for (what, number) in self.machine.take_estimator_counts() {
            if number > 0 {
                metrics.estimators(what, number);
            }
        }
        let levels = self.machine.levels();
        let slots = self.out.list.len() * SEND_BATCH * SEND_SLOT;
        let (own, held) = (&self.metrics, levels.routers);
        for (level, count) in [
            (&own.sessions, levels.sessions),
            (&own.handshakes_under_way, levels.shaking),
            (&own.commands_waiting, self.commands.len()),
            (&own.handshakes_waiting, levels.handshakes),
            (&own.packets_paced, held.paced),
            (&own.message_bytes_waiting, levels.messages),
            (&own.notices_waiting, self.outlet.waiting()),
            (&own.histories, held.histories),
            (&own.notes, held.notes),
            (&own.send_slots, slots),
            (&own.handshake_bytes, levels.handshake_bytes),
        ] {
            level.set(count as i64);
        }
        let [up, down] = self.machine.take_switches();
        for (way, number) in [("up", up), ("down", down)] {
            if number > 0 {
                metrics.switched(way, number);
            }
        }
    }
}

/// The worker's sockets with what waits to be sent from each.
struct Sockets {
    list: Vec<(UdpSocket, SendBatch)>,
    /// Those of single endpoints.
    own: OwnSockets,
    stats: SendStats,
    streams: Streams,
    resolver: Resolver,
    /// Names that nobody had time to look up.
    unasked: u64,
    mailbox: Arc<Mailbox>,
    now: Instant,
}

impl Sockets {
    fn flush_all(&mut self) {
        self.streams.flush();
        for (socket, batch) in &mut self.list {
            if !batch.is_empty() {
                self.stats += batch.flush(socket);
            }
        }
        self.own.flush();
    }
}

impl Outbox for Sockets {
    fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        self.send_marked(0, local, remote, fill);
    }

    fn send_marked(
        &mut self,
        mark: u8,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        if path::of(local) == Path::Tcp {
            let mut slot = [0; MAX_FRAME];
            if let Some(len) = fill(&mut slot) {
                self.streams.send(self.now, local, remote, &slot[..len]);
            }
            return;
        }
        let Some((socket, batch)) = self.list.iter_mut().find(|(one, _)| one.local_addr() == local)
        else {
            return self.own.send(local, remote, fill);
        };
        if batch.is_full() {
            self.stats += batch.flush(socket);
        }
        if let Some(len) = fill(batch.slot()) {
            batch.commit_marked(len, remote, mark);
        }
    }

    fn flush(&mut self) {
        self.flush_all();
    }

    fn is_shared(&self, local: SocketAddr) -> bool {
        self.list.iter().any(|(one, _)| one.local_addr() == local)
    }

    fn link(&mut self, leg: LegKey, output: LinkOutput) {
        self.streams.link(self.now, leg, output);
    }

    fn send_link(&mut self, leg: LegKey, fill: impl FnOnce(&mut [u8]) -> Option<Range<usize>>) {
        self.streams.send_link(leg, fill);
    }

    fn resolve(&mut self, asker: Asker, name: String) {
        let question = Question { name, asker, mailbox: self.mailbox.clone() };
        self.unasked += u64::from(!self.resolver.ask(question));
    }
}

/// Commands on their way to a worker. Bounded by the requests that control lets wait for an answer.
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    stopped: AtomicBool,
    bell: OwnedFd,
}

/// Closes the mailbox of a thread that ends.
struct Closing(Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.closed = true;
        inner.commands.clear();
    }
}

/// What was found out about a name that a session asked about.
pub(super) struct Answer {
    pub asker: Asker,
    pub ip: Option<IpAddr>,
}

#[derive(Default)]
struct Inner {
    commands: Vec<(Command, Ticket, Span)>,
    /// Bounded by the questions that wait for one.
    answers: Vec<Answer>,
    closed: bool,
}

impl Mailbox {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nobody else owns it.
        let bell = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { inner: Mutex::default(), stopped: AtomicBool::new(false), bell })
    }

    pub fn push(&self, command: Command, ticket: Ticket) {
        let was_empty = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.closed {
                return;
            }
            // What is logged on the way is part of the request that asks for it.
            inner.commands.push((command, ticket, Span::current()));
            inner.commands.len() == 1
        };
        if was_empty {
            self.ring();
        }
    }

    /// Answers a question of a session.
    pub fn answer(&self, answer: Answer) {
        let was_empty = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.closed {
                return;
            }
            inner.answers.push(answer);
            inner.answers.len() == 1
        };
        if was_empty {
            self.ring();
        }
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.ring();
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn take(&self) -> (Vec<(Command, Ticket, Span)>, Vec<Answer>) {
        let mut count = 0_u64;
        // SAFETY: `count` has the eight bytes that an eventfd gives. That it may not be rung is fine.
        unsafe { libc::read(self.bell.as_raw_fd(), (&raw mut count).cast(), 8) };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut inner.commands), std::mem::take(&mut inner.answers))
    }

    fn ring(&self) {
        let one = 1_u64;
        // SAFETY: `one` has the eight bytes that an eventfd takes. It cannot be so full as to refuse.
        unsafe { libc::write(self.bell.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

/// Waits for sockets and the mailbox.
struct Poller {
    epoll: Epoll,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// The mailbox's token; a socket's is its number.
    const MAILBOX: u64 = u64::MAX;

    fn new(parts: &Parts) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nobody else owns it.
        let epoll = Epoll::new(unsafe { OwnedFd::from_raw_fd(fd) });
        epoll.add(parts.mailbox.bell.as_raw_fd(), Self::MAILBOX, libc::EPOLLIN)?;
        for (number, socket) in parts.sockets.iter().enumerate() {
            epoll.add(socket.as_raw_fd(), number as u64, libc::EPOLLIN)?;
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; parts.sockets.len() + MAX_READY];
        Ok(Self { epoll, events })
    }

    /// Waits until something is ready or `wait` is over, without one for as long as it takes; returns
    /// how many are ready.
    fn wait(&mut self, wait: Option<Duration>) -> usize {
        // Rounded up: a timer must not be looked at before its time, again and again.
        let millis = wait
            .map_or(-1, |wait| i32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX));
        // SAFETY: `events` has room for as many events as the call is told.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.raw(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                millis,
            )
        };
        // Only EINTR is possible, and then the loop just comes round again.
        usize::try_from(count).unwrap_or(0)
    }

    /// The token of the n-th that was ready, and for what.
    fn ready(&self, number: usize) -> (u64, u32) {
        (self.events[number].u64, self.events[number].events)
    }
}
