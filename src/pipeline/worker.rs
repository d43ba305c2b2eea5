//! Shell: a media worker's thread with its sockets, its mailbox and its clock. What it decides is in
//! [`Machine`].
//!
//! A panic while a pipeline is at work ends that pipeline and nothing else.

mod counting;
mod mailbox;
mod poller;
mod reading;
mod sockets;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use tracing::Span;

use super::helpers::{Helpers, Tally as Helped};
use super::load::Load;
use super::machine::Machine;
use super::own_sockets::OwnSockets;
use super::pool::Outlet;
use super::resolver::Resolver;
use super::setup::allowance;
use super::streams::{Ready, Streams, TlsConfig};
use super::{Command, Ticket, WorkerId, cores};
use crate::clock::{Clock, Reading};
use crate::config::ModuleConfig;
use crate::elements::{Certificates, Moment, Net, Places, PlainNet};
use crate::metrics::{Tally, WorkerMetrics};
use crate::model::ObjectLimits;
use crate::rtp::NtpTime;
use crate::transport::demux::Demux;
use crate::transport::interfaces::Interface;
use crate::transport::ports::{PortRange, Ports, Quota};
use crate::transport::tcp::{Listener, MAX_FRAME};
use crate::transport::udp::{RecvBatch, SendBatch, SendStats, UdpSocket};
use counting::Counts;
use mailbox::Closing;
pub(super) use mailbox::{Answer, Mailbox};
use poller::Poller;
use sockets::Sockets;

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
            self.outlet.send(self.machine.notices());
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
        self.outlet.send(self.machine.notices());
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

    /// Tells sessions what happened to their ways to TURN servers.
    fn tell_links(&mut self, at: Moment) {
        for (leg, open) in self.out.streams.take_news() {
            self.guarded(at, |machine, out| machine.handle_link_state(at, leg, open, out));
        }
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
        self.out.now = at.now;
        self.machine.guarded(at, &mut self.out, f);
    }
}
