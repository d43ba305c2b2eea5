//! Shell: what a worker has open besides its UDP sockets: TCP connections with peers, and the way of
//! each session to its TURN server.
//!
//! A connection that says nothing a session understands ends soon, and there is room for so many of them
//! only. Of those that a session took something from there may be more, but few for each session; they
//! end when they fall silent, for checks come every few seconds.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::ClientConfig;

use crate::config::modules::TurnTransport;
use crate::elements::LegKey;
use crate::transport::tcp::{Framing, Health, Listener, MAX_FRAME, Nonsense, Stream};
use crate::transport::udp::UdpSocket;
use crate::transport::{LinkOutput, path};

/// Connections of one worker that no session has taken anything from; the oldest gives way.
const MAX_UNKNOWN: usize = 256;
/// Connections that one session has taken something from; the longest silent gives way.
const MAX_OF_SESSION: usize = 8;
/// Connections that are accepted before others have their turn.
const MAX_ACCEPTED: usize = 64;
/// All that one worker has open.
const MAX_OPEN: usize = 8_192;
/// Time to say something that a session understands.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(10);
/// Silence after which a connection ends.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How often time limits are looked at.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// Settled once, for all workers, aside from their threads.
pub(super) type TlsConfig = Arc<OnceLock<Arc<ClientConfig>>>;

/// Registers sockets to be waited for.
#[derive(Clone)]
pub(super) struct Epoll(Arc<OwnedFd>);

impl Epoll {
    pub fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub fn add(&self, fd: RawFd, token: u64, interest: libc::c_int) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    fn change(&self, fd: RawFd, token: u64, interest: libc::c_int) {
        // It was added, and so it can be changed.
        let _ = self.control(libc::EPOLL_CTL_MOD, fd, token, interest);
    }

    fn control(
        &self,
        what: libc::c_int,
        fd: RawFd,
        token: u64,
        interest: libc::c_int,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: token };
        // SAFETY: `event` is valid for the call, and the kernel keeps a copy.
        let result = unsafe { libc::epoll_ctl(self.raw(), what, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Tokens of listening sockets, and of what is open.
const LISTENER: u64 = 1 << 40;
const OPEN: u64 = 1 << 41;

/// What a token of [`Streams`] stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {
    Listener(usize),
    Open(usize),
}

impl Ready {
    pub fn of(token: u64) -> Option<Self> {
        let number = (token & (LISTENER - 1)) as usize;
        match token & !(LISTENER - 1) {
            LISTENER => Some(Self::Listener(number)),
            OPEN => Some(Self::Open(number)),
            _ => None,
        }
    }
}

/// Who the messages are for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// Whichever session knows the peer; both addresses are marked as those of a connection.
    Peer { local: SocketAddr, remote: SocketAddr },
    /// A session, from its TURN server.
    Link(LegKey),
}

enum Way {
    Stream(Stream),
    Datagrams { socket: UdpSocket, server: SocketAddr },
}

struct Open {
    way: Way,
    owner: Owner,
    since: Instant,
    heard_at: Instant,
    /// A session took something from it, or asked for it.
    known: bool,
    /// Which session it was that took something.
    holder: Option<LegKey>,
    /// Tells it from others that had the same place.
    serial: u64,
    /// It is to be told when it becomes writable.
    waiting: bool,
}

/// What was refused or cut, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Cuts {
    pub unknown_evicted: u64,
    pub unknown_silent: u64,
    pub session_evicted: u64,
    pub idle: u64,
    pub too_many: u64,
    pub no_descriptor: u64,
    pub nonsense: u64,
    pub full: u64,
}

impl Cuts {
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

pub(super) struct Streams {
    epoll: Epoll,
    listeners: Vec<Listener>,
    tls: TlsConfig,
    open: Vec<Option<Open>>,
    free: Vec<usize>,
    by_path: HashMap<(SocketAddr, SocketAddr), usize>,
    by_leg: HashMap<LegKey, usize>,
    /// Those that no session knows, the oldest first, among some that are known or gone by now.
    unknown: VecDeque<(usize, u64)>,
    /// How many of these are still unknown.
    strangers: usize,
    serial: u64,
    /// Connections of peers that each session knows.
    of_session: HashMap<LegKey, Vec<usize>>,
    /// Listeners with more to accept.
    unfinished: Vec<usize>,
    /// Those with something to send.
    dirty: Vec<usize>,
    /// Ways to TURN servers that opened (true) or were lost.
    news: Vec<(LegKey, bool)>,
    swept_at: Instant,
    pub cuts: Cuts,
    /// Datagrams and bytes that left.
    pub sent: (u64, u64),
}

impl Streams {
    /// # Errors
    /// When the system does not watch the listening sockets.
    pub fn new(
        now: Instant,
        epoll: Epoll,
        listeners: Vec<Listener>,
        tls: TlsConfig,
    ) -> io::Result<Self> {
        for (number, listener) in listeners.iter().enumerate() {
            // Told once for each arrival: without descriptors nothing must spin.
            let interest = libc::EPOLLIN | libc::EPOLLET;
            epoll.add(listener.as_raw_fd(), LISTENER + number as u64, interest)?;
        }
        Ok(Self {
            epoll,
            listeners,
            tls,
            open: Vec::new(),
            free: Vec::new(),
            by_path: HashMap::new(),
            by_leg: HashMap::new(),
            unknown: VecDeque::new(),
            strangers: 0,
            serial: 0,
            of_session: HashMap::new(),
            unfinished: Vec::new(),
            dirty: Vec::new(),
            news: Vec::new(),
            swept_at: now,
            cuts: Cuts::default(),
            sent: (0, 0),
        })
    }

    /// When [`Self::sweep`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.unfinished.is_empty() {
            return Some(self.swept_at);
        }
        (self.open.len() > self.free.len()).then(|| self.swept_at + SWEEP)
    }

    /// Ends what had its time, and goes on with what others had to have their turn before. `lives` says
    /// whether a session still exists.
    pub fn sweep(&mut self, now: Instant, lives: impl Fn(LegKey) -> bool) {
        for number in std::mem::take(&mut self.unfinished) {
            self.accept(now, number);
        }
        if now < self.swept_at + SWEEP {
            return;
        }
        self.swept_at = now;
        for at in 0..self.open.len() {
            let Some(one) = &self.open[at] else { continue };
            let cut = match one.owner {
                Owner::Link(leg) => (!lives(leg)).then_some(None),
                Owner::Peer { .. } if !one.known && now >= one.since + UNKNOWN_LIMIT => {
                    Some(Some(&mut self.cuts.unknown_silent))
                }
                Owner::Peer { .. } if now >= one.heard_at + IDLE_LIMIT => {
                    Some(Some(&mut self.cuts.idle))
                }
                Owner::Peer { .. } => None,
            };
            if let Some(count) = cut {
                if let Some(count) = count {
                    *count += 1;
                }
                self.close(at);
            }
        }
        // What had to wait for a descriptor may be accepted now.
        for number in 0..self.listeners.len() {
            self.accept(now, number);
        }
    }

    /// Accepts what waits, up to a fair share.
    pub fn accept(&mut self, now: Instant, number: usize) {
        for _ in 0..MAX_ACCEPTED {
            let Some(listener) = self.listeners.get(number) else { return };
            let local = path::tcp(listener.local_addr());
            match listener.accept() {
                Ok(None) => return,
                Ok(Some((stream, remote))) => {
                    let remote = path::tcp(remote);
                    self.make_room();
                    self.insert(now, Way::Stream(stream), Owner::Peer { local, remote }, false);
                }
                Err(error) => {
                    self.cuts.no_descriptor += 1;
                    tracing::debug!(%error, "cannot accept");
                    return;
                }
            }
        }
        if !self.unfinished.contains(&number) {
            self.unfinished.push(number);
        }
    }

    /// Of the connections that nobody knows, the oldest gives way to a new one.
    fn make_room(&mut self) {
        while self.strangers >= MAX_UNKNOWN
            && let Some((at, serial)) = self.unknown.pop_front()
        {
            if self.is_stranger(at, serial) {
                self.cuts.unknown_evicted += 1;
                self.close(at);
            }
        }
    }

    fn is_stranger(&self, at: usize, serial: u64) -> bool {
        let one = self.open.get(at).and_then(Option::as_ref);
        one.is_some_and(|one| one.serial == serial && !one.known)
    }

    /// Notes a connection that nobody knows yet.
    fn add_stranger(&mut self, at: usize) {
        self.strangers += 1;
        self.unknown.push_back((at, self.serial));
        // Those that became known or ended stay in the list until they are as many as the others.
        if self.unknown.len() > 2 * self.strangers.max(MAX_UNKNOWN) {
            let unknown = std::mem::take(&mut self.unknown);
            let still = |&(at, serial): &(usize, u64)| self.is_stranger(at, serial);
            self.unknown = unknown.into_iter().filter(still).collect();
        }
    }

    fn insert(&mut self, now: Instant, way: Way, owner: Owner, known: bool) -> Option<usize> {
        if self.open.len() - self.free.len() >= MAX_OPEN {
            self.cuts.too_many += 1;
            return None;
        }
        let (fd, waiting) = match &way {
            Way::Stream(stream) => (stream.as_raw_fd(), stream.is_waiting()),
            Way::Datagrams { socket, .. } => (socket.as_raw_fd(), false),
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        if self.epoll.add(fd, OPEN + at as u64, interest(waiting)).is_err() {
            self.free.push(at);
            self.cuts.no_descriptor += 1;
            return None;
        }
        match owner {
            Owner::Peer { local, remote } => self.by_path.insert((local, remote), at),
            Owner::Link(leg) => self.by_leg.insert(leg, at),
        };
        if self.open.len() - self.free.len() == 1 {
            self.swept_at = now;
        }
        self.serial += 1;
        let (since, heard_at, serial) = (now, now, self.serial);
        self.open[at] =
            Some(Open { way, owner, since, heard_at, known, holder: None, serial, waiting });
        if !known && matches!(owner, Owner::Peer { .. }) {
            self.add_stranger(at);
        }
        Some(at)
    }

    fn close(&mut self, at: usize) {
        let Some(one) = self.open.get_mut(at).and_then(Option::take) else { return };
        self.free.push(at);
        if let Way::Stream(stream) = &one.way {
            self.cuts.full += stream.dropped;
        }
        match one.owner {
            Owner::Peer { local, remote } => {
                self.strangers -= usize::from(!one.known);
                if let Some(holder) = one.holder
                    && let Some(known) = self.of_session.get_mut(&holder)
                {
                    known.retain(|other| *other != at);
                    if known.is_empty() {
                        self.of_session.remove(&holder);
                    }
                }
                if self.by_path.get(&(local, remote)) == Some(&at) {
                    self.by_path.remove(&(local, remote));
                }
            }
            Owner::Link(leg) => {
                if self.by_leg.get(&leg) == Some(&at) {
                    self.by_leg.remove(&leg);
                    self.news.push((leg, false));
                }
            }
        }
    }

    /// Something happened to it: takes what arrived, and sends what waits.
    pub fn serve(&mut self, now: Instant, at: usize, events: u32) {
        let Some(Some(one)) = self.open.get_mut(at) else { return };
        let Way::Stream(stream) = &mut one.way else { return };
        let mut health = Health::Open;
        if stream.is_connecting() {
            health = stream.writable();
            if let (false, Health::Open, Owner::Link(leg)) =
                (stream.is_connecting(), health, one.owner)
            {
                self.news.push((leg, true));
            }
        } else if events & libc::EPOLLOUT as u32 != 0 {
            health = stream.writable();
        }
        if health == Health::Open && !stream.is_connecting() {
            health = stream.receive();
            one.heard_at = now;
        }
        match health {
            Health::Open => self.dirty.push(at),
            Health::Closed => self.close(at),
        }
    }

    /// The next message of a connection, in `buffer`; its owner and its length.
    pub fn next(&mut self, at: usize, buffer: &mut Vec<u8>) -> Option<Owner> {
        let one = self.open.get_mut(at)?.as_mut()?;
        let Way::Stream(stream) = &mut one.way else { return None };
        match stream.next_message() {
            Ok(Some(message)) => {
                buffer.clear();
                buffer.extend_from_slice(message);
                Some(one.owner)
            }
            Ok(None) => None,
            Err(Nonsense) => {
                self.cuts.nonsense += 1;
                self.close(at);
                None
            }
        }
    }

    /// The UDP socket to a TURN server, if it is one, and whose it is.
    pub fn datagrams(&self, at: usize) -> Option<(&UdpSocket, SocketAddr, LegKey)> {
        match self.open.get(at)?.as_ref()? {
            Open { way: Way::Datagrams { socket, server }, owner: Owner::Link(leg), .. } => {
                Some((socket, *server, *leg))
            }
            _ => None,
        }
    }

    /// A session took a message that came over it. If that one has too many, another of it ends.
    pub fn set_known(&mut self, at: usize, leg: LegKey) {
        let Some(Some(one)) = self.open.get_mut(at) else { return };
        if std::mem::replace(&mut one.known, true) {
            return;
        }
        one.holder = Some(leg);
        self.strangers -= 1;
        let known = self.of_session.entry(leg).or_default();
        let silent_since = |at: &usize| self.open[*at].as_ref().map(|one| one.heard_at);
        let oldest = known.iter().copied().min_by_key(silent_since);
        let spare = oldest.filter(|_| known.len() >= MAX_OF_SESSION);
        known.push(at);
        if let Some(spare) = spare {
            self.cuts.session_evicted += 1;
            self.close(spare);
        }
    }

    /// Sends a message to a peer; a peer that waits for connections is connected to.
    pub fn send(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, message: &[u8]) {
        let at = match self.by_path.get(&(local, remote)) {
            Some(at) => *at,
            None if path::plain(local).port() == 0 => {
                match Stream::connect(path::plain(remote), Framing::Rfc4571, None) {
                    Ok(stream) => {
                        let owner = Owner::Peer { local, remote };
                        let Some(at) = self.insert(now, Way::Stream(stream), owner, false) else {
                            return;
                        };
                        at
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot connect to the peer");
                        return;
                    }
                }
            }
            None => return,
        };
        self.queue(at, message);
    }

    fn queue(&mut self, at: usize, message: &[u8]) {
        let Some(Some(one)) = self.open.get_mut(at) else { return };
        match &mut one.way {
            Way::Stream(stream) => {
                if stream.queue(message) {
                    self.sent.0 += 1;
                    self.sent.1 += message.len() as u64;
                }
                self.dirty.push(at);
            }
            Way::Datagrams { socket, server } => match socket.send_to(message, *server) {
                Ok(true) => {
                    self.sent.0 += 1;
                    self.sent.1 += message.len() as u64;
                }
                Ok(false) => self.cuts.full += 1,
                Err(error) => tracing::debug!(%error, "cannot send to the TURN server"),
            },
        }
    }

    /// Sends part of a buffer over a session's way to its TURN server.
    pub fn send_link(&mut self, leg: LegKey, fill: impl FnOnce(&mut [u8]) -> Option<Range<usize>>) {
        let mut slot = [0; MAX_FRAME];
        if let Some(range) = fill(&mut slot)
            && let Some(&at) = self.by_leg.get(&leg)
        {
            self.queue(at, &slot[range]);
        }
    }

    /// Does what a session wants with its way to its TURN server.
    pub fn link(&mut self, now: Instant, leg: LegKey, output: LinkOutput) {
        match output {
            LinkOutput::Open { server, transport, name } => {
                let opened = self.open_link(server, transport, &name).and_then(|way| {
                    let datagrams = matches!(way, Way::Datagrams { .. });
                    let at = self.insert(now, way, Owner::Link(leg), true);
                    at.map(|_| datagrams).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
                });
                match opened {
                    Ok(true) => self.news.push((leg, true)),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%server, %error, "no way to the TURN server");
                        self.news.push((leg, false));
                    }
                }
            }
            LinkOutput::Send(bytes) => {
                if let Some(&at) = self.by_leg.get(&leg) {
                    self.queue(at, &bytes);
                }
            }
            LinkOutput::Close => {
                if let Some(&at) = self.by_leg.get(&leg) {
                    self.flush_one(at);
                    self.by_leg.remove(&leg);
                    self.close(at);
                }
            }
        }
    }

    fn open_link(
        &self,
        server: SocketAddr,
        transport: TurnTransport,
        name: &str,
    ) -> io::Result<Way> {
        let stream = |tls| Stream::connect(server, Framing::Turn, tls).map(Way::Stream);
        match transport {
            TurnTransport::Udp => {
                let any = match server {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                Ok(Way::Datagrams { socket, server })
            }
            TurnTransport::Tcp => stream(None),
            TurnTransport::Tls => {
                let roots = self.tls.get();
                let roots = roots.ok_or_else(|| io::Error::other("no certificates are loaded"))?;
                stream(Some((roots, name)))
            }
        }
    }

    /// What happened to ways to TURN servers.
    pub fn take_news(&mut self) -> Vec<(LegKey, bool)> {
        std::mem::take(&mut self.news)
    }

    pub fn flush(&mut self) {
        while let Some(at) = self.dirty.pop() {
            self.flush_one(at);
        }
    }

    fn flush_one(&mut self, at: usize) {
        let Some(Some(one)) = self.open.get_mut(at) else { return };
        let Way::Stream(stream) = &mut one.way else { return };
        match stream.flush() {
            Health::Closed => self.close(at),
            Health::Open if stream.is_waiting() != one.waiting => {
                one.waiting = stream.is_waiting();
                self.epoll.change(stream.as_raw_fd(), OPEN + at as u64, interest(one.waiting));
            }
            Health::Open => {}
        }
    }
}

const fn interest(writable: bool) -> libc::c_int {
    if writable { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;
    use std::net::TcpStream;
    use std::os::fd::FromRawFd;

    #[expect(clippy::disallowed_methods, reason = "the time of real sockets")]
    fn now() -> Instant {
        Instant::now()
    }

    fn streams() -> (Streams, SocketAddr) {
        // SAFETY: no pointers; the descriptor is checked, and nobody else owns it.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(epoll >= 0);
        // SAFETY: it is open and nobody else owns it.
        let epoll = Epoll::new(unsafe { OwnedFd::from_raw_fd(epoll) });
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr();
        let streams = Streams::new(now(), epoll, vec![listener], TlsConfig::default());
        (streams.expect("is watched"), address)
    }

    fn connect(streams: &mut Streams, address: SocketAddr, count: usize) -> Vec<TcpStream> {
        (0..count)
            .map(|_| {
                let stream = TcpStream::connect(address).expect("is accepted");
                streams.accept(now(), 0);
                stream
            })
            .collect()
    }

    fn is_open(streams: &Streams, at: usize) -> bool {
        streams.open[at].is_some()
    }

    #[test]
    fn a_session_has_few_connections_and_takes_none_from_others() {
        let (mut streams, address) = streams();
        let mut legs = SlotMap::<LegKey, ()>::with_key();
        let (greedy, modest) = (legs.insert(()), legs.insert(()));
        let _peers = connect(&mut streams, address, 100);
        streams.set_known(0, modest);
        for at in 1..99 {
            streams.set_known(at, greedy);
            streams.set_known(at, greedy);
        }
        assert_eq!(streams.cuts.session_evicted, 98 - MAX_OF_SESSION as u64);
        assert!(is_open(&streams, 0) && is_open(&streams, 98) && is_open(&streams, 99));
        assert_eq!(streams.open.len() - streams.free.len(), 2 + MAX_OF_SESSION);
        assert_eq!(streams.strangers, 1);
        for at in 0..100 {
            streams.close(at);
        }
        assert!(streams.of_session.is_empty() && streams.strangers == 0);
    }

    #[test]
    fn the_longest_silent_connection_of_a_session_gives_way() {
        let (mut streams, address) = streams();
        let leg = SlotMap::<LegKey, ()>::with_key().insert(());
        let _peers = connect(&mut streams, address, MAX_OF_SESSION + 1);
        for at in 0..MAX_OF_SESSION {
            streams.set_known(at, leg);
        }
        let later = now() + Duration::from_secs(1);
        for at in (0..MAX_OF_SESSION).filter(|at| *at != 5) {
            streams.open[at].as_mut().expect("is open").heard_at = later;
        }
        streams.set_known(MAX_OF_SESSION, leg);
        let open: Vec<_> = (0..=MAX_OF_SESSION).filter(|at| is_open(&streams, *at)).collect();
        assert_eq!(open, [0, 1, 2, 3, 4, 6, 7, 8]);
    }

    #[test]
    fn strangers_give_way_in_the_order_in_which_they_came() {
        let (mut streams, address) = streams();
        let leg = SlotMap::<LegKey, ()>::with_key().insert(());
        let mut peers = connect(&mut streams, address, MAX_UNKNOWN);
        streams.set_known(0, leg);
        peers.extend(connect(&mut streams, address, 3));
        assert_eq!(streams.cuts.unknown_evicted, 2, "the known one does not count");
        assert!(is_open(&streams, 0));
        // Their places are taken by those that came last.
        let serials: Vec<_> =
            [1, 2, 3].map(|at| streams.open[at].as_ref().map_or(0, |one| one.serial)).into();
        assert_eq!(serials, [MAX_UNKNOWN as u64 + 2, MAX_UNKNOWN as u64 + 3, 4]);
        for _ in 0..2_000 {
            drop(peers.pop());
            let at = streams.open.iter().flatten().map(|one| one.serial).max();
            let newest =
                streams.open.iter().position(|one| one.as_ref().map(|one| one.serial) == at);
            streams.close(newest.expect("some are open"));
            peers.extend(connect(&mut streams, address, 1));
        }
        assert!(streams.unknown.len() <= 2 * MAX_UNKNOWN + 1, "{}", streams.unknown.len());
    }

    #[test]
    fn a_flood_of_connections_lets_others_have_their_turn() {
        let (mut streams, address) = streams();
        let _peers: Vec<_> = (0..3 * MAX_ACCEPTED / 2)
            .map(|_| TcpStream::connect(address).expect("waits"))
            .collect();
        let start = now();
        streams.accept(start, 0);
        assert_eq!(streams.open.len(), MAX_ACCEPTED);
        assert!(streams.poll_timeout().is_some_and(|due| due <= start), "it goes on at once");
        streams.sweep(start, |_| true);
        assert_eq!(streams.open.len(), 3 * MAX_ACCEPTED / 2);
        assert!(streams.poll_timeout().is_some_and(|due| due > start));
    }
}
