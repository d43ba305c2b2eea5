//! A media worker's machine with browsers around it, each behind links of its own, on a clock that
//! steps by milliseconds: all of the server but its control plane, sockets and threads.

use super::{
    browser::{Browser, Role},
    publisher::Publisher,
    viewer::Viewer,
    world::{ms, secs},
};
use crate::support::link::{Conditions, Link};
use rivero::{
    config::Limits,
    elements::{Asker, Certificates, Moment, Net, PlainNet},
    model::{Class, ObjectId, class, value},
    pipeline::{
        Command, LentWay, Notice,
        machine::{Levels, Machine, Outbox, Shaken},
    },
    router::Crew,
    rtp::NtpTime,
    transport::{
        demux::Demux,
        ports::{Binder, PortRange, Ports, Quota},
    },
};
use serde_json::{Value, json};
use slotmap::SlotMap;
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 8_000);

/// How long the machine is said to take until a batch is handled, and until it has left.
pub const ROUTED: Duration = Duration::from_micros(150);
pub const LEFT: Duration = Duration::from_micros(400);

const ALL_PORTS: PortRange = PortRange { first: 1_024, last: 65_535 };

/// Where every port is free that nobody bound before.
#[derive(Clone, Default)]
struct Bound(Rc<RefCell<HashSet<SocketAddr>>>);

impl Binder for Bound {
    fn bind(&mut self, address: SocketAddr) -> std::io::Result<()> {
        let free = self.0.borrow_mut().insert(address);
        if free { Ok(()) } else { Err(std::io::ErrorKind::AddrInUse.into()) }
    }

    fn send(&mut self, _: SocketAddr, _: SocketAddr, _: &[u8]) {}

    fn close(&mut self, address: SocketAddr) {
        assert!(self.0.borrow_mut().remove(&address), "closed what was not bound");
    }
}

/// A datagram that left by a port of plain RTP.
#[derive(Clone, Debug)]
pub struct Left {
    pub at: u64,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// What left the machine, to be put on the links.
#[derive(Default)]
struct Wire {
    left: Vec<(SocketAddr, Vec<u8>)>,
    plain: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Names that were to be looked up.
    asked: Vec<String>,
    /// Sending there panics: a bug that shows while a certain pipeline is at work.
    cursed: Option<SocketAddr>,
}

impl Outbox for Wire {
    fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        assert_ne!(Some(remote), self.cursed, "the bug that a test wants");
        let mut slot = vec![0; 1_500];
        if let Some(len) = fill(&mut slot) {
            slot.truncate(len);
            if local == SocketAddr::from(SERVER) {
                self.left.push((remote, slot));
            } else {
                self.plain.push((local, remote, slot));
            }
        }
    }

    fn is_shared(&self, local: SocketAddr) -> bool {
        local == SocketAddr::from(SERVER)
    }

    fn resolve(&mut self, _asker: Asker, name: String) {
        self.asked.push(name);
    }
}

/// An event of an object, and when it was raised.
#[derive(Clone, Debug)]
pub struct Told {
    pub at: u64,
    pub source: String,
    pub name: &'static str,
    pub data: Value,
}

pub struct Stage {
    pub browsers: Vec<Browser>,
    pub told: Vec<Told>,
    /// In order.
    pub destroyed: Vec<String>,
    /// Milliseconds since the start.
    pub time: u64,
    /// What left by ports of plain RTP.
    pub left: Vec<Left>,
    /// Datagrams to addresses where nobody is, if those are allowed.
    pub strays: Option<u64>,
    /// Datagrams of handshakes that are taken in a step; all as long as nobody says how many.
    pub patience: usize,
    /// The server looks at what came each so many milliseconds; it is busy in between.
    pub looks_each: u64,
    /// What came since it looked, and when.
    waiting: Vec<(Instant, SocketAddr, Vec<u8>)>,
    /// Bytes of all but STUN that the server got from each browser, and that it sent to it.
    pub carried: HashMap<usize, (u64, u64)>,
    bound: Bound,
    machine: Machine,
    wire: Wire,
    classes: HashMap<String, &'static Class>,
    /// The server's candidates, by endpoint.
    candidates: HashMap<String, Vec<String>>,
    start: Instant,
    conditions: Conditions,
    seed: u64,
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a world")]
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        let bound = Bound::default();
        let ports = Ports::new(ALL_PORTS, Arc::new(Quota::new(8)), Box::new(bound.clone()));
        let net = Net {
            legs: SlotMap::with_key(),
            demux: Demux::new(),
            plain: PlainNet::new(ports),
            addresses: vec![SocketAddr::from(SERVER)],
            places: Default::default(),
            certificates: Arc::new(Certificates::default()),
            object_limits: (&Limits::default()).into(),
            defaults: Arc::default(),
            touched: Vec::new(),
            closing: Vec::new(),
        };
        Self {
            browsers: Vec::new(),
            told: Vec::new(),
            destroyed: Vec::new(),
            time: 0,
            left: Vec::new(),
            strays: None,
            patience: usize::MAX,
            looks_each: 1,
            waiting: Vec::new(),
            carried: HashMap::new(),
            bound,
            machine: Machine::new(0, net),
            wire: Wire::default(),
            classes: HashMap::new(),
            candidates: HashMap::new(),
            start: Instant::now(),
            conditions,
            seed,
        }
    }

    pub fn now(&self) -> Instant {
        self.at().now
    }

    fn at(&self) -> Moment {
        let unix = secs(1_700_000_000) + ms(self.time);
        let now = self.start + ms(self.time);
        Moment {
            now,
            came: now,
            unix_millis: unix.as_millis() as u64,
            ntp: NtpTime::from_unix(unix),
        }
    }

    /// Creates an object, below `parent` unless it is a pipeline; its id.
    pub fn create(&mut self, name: &str, parent: Option<&str>) -> String {
        let class = class::factory(name).expect("a class");
        let parent = parent.map(ObjectId::from);
        let id = ObjectId::new(class, parent.as_ref());
        let given = match (&parent, class.parent()) {
            (Some(parent), Some(param)) => json!({param.name: parent.as_str()}),
            _ => json!({}),
        };
        let lookup = |id: &str| self.classes.get(id).copied();
        let args = value::constructor_args(class, Some(&given), &lookup).expect("arguments");
        self.command(Command::Create { class, id: id.clone(), parent, args });
        self.classes.insert(id.to_string(), class);
        id.to_string()
    }

    /// Invokes an operation; its value.
    pub fn invoke(&mut self, object: &str, operation: &str, given: Value) -> Value {
        let method = self.classes[object].method(operation).expect("an operation");
        let lookup = |id: &str| self.classes.get(id).copied();
        let args = value::operation_args(method, Some(&given), &lookup).expect("arguments");
        self.command(Command::Invoke { object: ObjectId::from(object), method, args })
    }

    pub fn release(&mut self, object: &str) {
        self.command(Command::Release { object: ObjectId::from(object) });
    }

    fn command(&mut self, command: Command) -> Value {
        let (ticket, mut reply) = oneshot::channel();
        self.machine.handle_command(self.at(), command, ticket, &mut self.wire);
        self.deliver();
        reply.try_recv().expect("an answer at once").expect("a success")
    }

    /// Brings a browser into a pipeline: offer, answer, candidates. Its number and its endpoint's id.
    pub fn join(&mut self, pipeline: &str, role: Role) -> (usize, String) {
        let number = self.browsers.len();
        let address = SocketAddr::from(([10, 0, 1, number as u8], 5_000));
        let links =
            [0, 1].map(|way| Link::new(self.seed + 2 * number as u64 + way, self.conditions));
        let now = self.at().now;
        let browser = Browser::new(now, address, role, links);
        let (offer, line) = (browser.offer(), browser.candidate());
        self.browsers.push(browser);
        let endpoint = self.create("WebRtcEndpoint", Some(pipeline));
        let answer = self.invoke(&endpoint, "processOffer", json!({"offer": offer}));
        self.browsers[number].start(now, answer.as_str().expect("a description"));
        self.invoke(&endpoint, "gatherCandidates", json!({}));
        let candidate = json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0});
        self.invoke(&endpoint, "addIceCandidate", json!({"candidate": candidate}));
        for line in self.candidates.remove(&endpoint).expect("candidates were told") {
            self.browsers[number].add_candidate(now, &line);
        }
        (number, endpoint)
    }

    pub fn publisher(&mut self, number: usize) -> &mut Publisher {
        match &mut self.browsers[number].role {
            Role::Publisher(publisher) => publisher,
            Role::Viewer(_) => panic!("{number} watches"),
        }
    }

    pub fn viewer(&self, number: usize) -> &Viewer {
        match &self.browsers[number].role {
            Role::Viewer(viewer) => viewer,
            Role::Publisher(_) => panic!("{number} publishes"),
        }
    }

    /// A datagram of a stranger arrives.
    pub fn inject(&mut self, from: SocketAddr, bytes: &[u8]) {
        let at = self.at();
        let mut bytes = bytes.to_vec();
        self.guarded(|machine, wire| {
            machine.handle_datagram(at, SocketAddr::from(SERVER), from, &mut bytes, wire);
        });
        self.shake_hands();
        self.deliver();
    }

    /// How many datagrams the machine dropped for `reason` since it was asked last.
    pub fn dropped(&mut self, reason: &str) -> u64 {
        self.all_dropped().remove(reason).unwrap_or(0)
    }

    /// By reason.
    pub fn all_dropped(&mut self) -> HashMap<&'static str, u64> {
        let mut counts = HashMap::new();
        for (reason, count) in self.machine.take_dropped() {
            *counts.entry(reason).or_default() += count;
        }
        counts
    }

    pub fn pipelines(&self) -> usize {
        self.machine.pipelines()
    }

    /// Names that were to be looked up.
    pub fn asked(&self) -> &[String] {
        &self.wire.asked
    }

    /// What an endpoint told, in order.
    pub fn told_by(&self, endpoint: &str) -> Vec<&Told> {
        self.told.iter().filter(|told| told.source == endpoint).collect()
    }

    pub fn run_for(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.step();
            self.time += 1;
        }
    }

    /// Ports of plain RTP that are bound.
    pub fn ports(&self) -> usize {
        self.bound.0.borrow().len()
    }

    /// A datagram arrives at a port of plain RTP, now.
    pub fn arrive(&mut self, to: SocketAddr, from: SocketAddr, mut bytes: Vec<u8>) {
        let at = self.at();
        self.guarded(|machine, wire| {
            machine.handle_plain_datagram(at, to, from, &mut bytes, wire);
            machine.end_of_batch(at, wire);
        });
        self.deliver();
    }

    /// From now on the server panics when it sends anything to that address.
    pub fn curse_address(&mut self, address: SocketAddr) {
        self.wire.cursed = Some(address);
    }

    /// From now on the server panics when it sends anything to that browser.
    pub fn curse(&mut self, number: usize) {
        self.wire.cursed = Some(self.browsers[number].address);
    }

    /// From now on these help the server.
    pub fn set_crew(&mut self, crew: Box<dyn Crew<LentWay>>) {
        self.machine.set_crew(crew);
    }

    fn step(&mut self) {
        let (at, server) = (self.at(), SocketAddr::from(SERVER));
        for (number, browser) in self.browsers.iter_mut().enumerate() {
            browser.step(at.now, self.time, server);
            while let Some(bytes) = browser.up.receive(at.now) {
                self.carried.entry(number).or_default().0 += carried(&bytes);
                self.waiting.push((at.now, browser.address, bytes));
            }
        }
        if !self.time.is_multiple_of(self.looks_each) {
            return;
        }
        let mut batch = std::mem::take(&mut self.waiting);
        self.guarded(|machine, wire| {
            for (came, from, bytes) in &mut batch {
                machine.handle_datagram(Moment { came: *came, ..at }, server, *from, bytes, wire);
            }
            machine.end_of_batch(at, wire);
        });
        assert!(!self.machine.has_busy(), "what came at the same time goes on, whatever fails");
        if self.machine.measures() {
            self.machine.measured(at.now, at.now + ROUTED, at.now + LEFT);
        }
        if self.machine.poll_timeout().is_some_and(|due| due <= at.now) {
            self.guarded(|machine, wire| machine.handle_timeout(at, wire));
        }
        self.shake_hands();
        self.deliver();
    }

    /// Does what a worker does when media was sent.
    fn shake_hands(&mut self) {
        let at = self.at();
        for _ in 0..self.patience.min(self.machine.handshakes()) {
            self.guarded(|machine, wire| machine.next_handshake(at, wire));
        }
        self.guarded(|machine, wire| machine.end_of_batch(at, wire));
    }

    /// Datagrams of handshakes that wait.
    pub fn handshakes(&self) -> usize {
        self.machine.handshakes()
    }

    /// What the machine holds.
    pub fn levels(&self) -> Levels {
        self.machine.levels()
    }

    /// Handshakes that began, succeeded and failed since this was asked last.
    pub fn shaken(&mut self) -> Shaken {
        self.machine.take_shaken()
    }

    /// As a worker's thread does it.
    fn guarded(&mut self, f: impl FnOnce(&mut Machine, &mut Wire)) {
        let at = self.at();
        self.machine.guarded(at, &mut self.wire, f);
    }

    /// Puts datagrams on their links, notes events and answers.
    fn deliver(&mut self) {
        let now = self.at().now;
        for (to, bytes) in self.wire.left.drain(..) {
            match self.browsers.iter().position(|one| one.address == to) {
                Some(number) => {
                    self.carried.entry(number).or_default().1 += carried(&bytes);
                    self.browsers[number].down.send(now, bytes);
                }
                None => match &mut self.strays {
                    Some(strays) => *strays += 1,
                    None => panic!("a datagram to {to}, where nobody is"),
                },
            }
        }
        let plain = self.wire.plain.drain(..);
        self.left.extend(plain.map(|(from, to, bytes)| Left { at: self.time, from, to, bytes }));
        for notice in self.machine.notices() {
            match notice {
                Notice::Event(event) => {
                    let (source, name) = (event.source.to_string(), event.class.name);
                    let data = Value::Object(event.into_data());
                    if let Some(line) = data["candidate"]["candidate"].as_str() {
                        self.candidates.entry(source.clone()).or_default().push(line.to_owned());
                    }
                    self.told.push(Told { at: self.time, source, name, data });
                }
                Notice::Reply { ticket, result } => drop(ticket.send(result)),
                Notice::Destroyed { id } => self.destroyed.push(id.to_string()),
                Notice::Created { .. } => {}
            }
        }
    }
}

/// The length of a datagram that is not STUN (RFC 7983 §7).
fn carried(bytes: &[u8]) -> u64 {
    if bytes[0] < 4 { 0 } else { bytes.len() as u64 }
}
