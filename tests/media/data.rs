//! Data channels between two sessions over networks that delay, lose, reorder and repeat.

use super::world::{ms, secs};
use crate::support::link::{Conditions, Link};
use bytes::Bytes;
use rivero::transport::{
    Certificate, DropReason, DtlsRole, Fingerprint, KeyKind, MAX_MESSAGE, Reliability,
    data_channel::{ChannelOptions, ChannelState, DataSettings, Message},
    webrtc::{Event, Output, RemoteParameters, Session, Settings},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

const PORT: u16 = 5_000;

fn certificate() -> Arc<Certificate> {
    static MADE: OnceLock<Arc<Certificate>> = OnceLock::new();
    let make = || Arc::new(Certificate::generate(KeyKind::Ecdsa).expect("a certificate"));
    MADE.get_or_init(make).clone()
}

struct Side {
    session: Session,
    address: SocketAddr,
    /// To the other side.
    link: Link<Vec<u8>>,
    opened: Vec<u16>,
    closed: Vec<u16>,
    received: BTreeMap<u16, Vec<Message>>,
    dropped: Vec<DropReason>,
    drained: usize,
}

impl Side {
    fn messages(&self, channel: u16) -> &[Message] {
        self.received.get(&channel).map_or(&[], Vec::as_slice)
    }

    fn take_outputs(&mut self, now: Instant) {
        self.session.flush(now);
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => self.link.send(now, bytes.to_vec()),
                Output::Event(Event::ChannelOpened(id)) => self.opened.push(id),
                Output::Event(Event::ChannelClosed(id)) => self.closed.push(id),
                Output::Message { channel, message } => {
                    self.received.entry(channel).or_default().push(message);
                }
                Output::Drained => self.drained += 1,
                Output::Dropped(reason) => self.dropped.push(reason),
                Output::Event(_) | Output::Bind { .. } | Output::Live(_) => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }
}

/// The client of DTLS, and the server.
struct Pair {
    sides: [Side; 2],
    now: Instant,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new(seed: u64, conditions: Conditions) -> Self {
        Self::with(seed, conditions, [PORT, PORT], Some(MAX_MESSAGE))
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a world")]
    fn with(seed: u64, conditions: Conditions, ports: [u16; 2], max: Option<usize>) -> Self {
        let now = Instant::now();
        let mut sides = [0_u8, 1].map(|number| {
            let settings =
                Settings { certificate: certificate(), controlling: usize::from(number) == CLIENT };
            let mut session = Session::new(now, settings).expect("a session");
            let address = SocketAddr::from(([10, 0, 0, number + 1], 4_000));
            session.add_local_candidate(address).expect("room for one");
            Side {
                session,
                address,
                link: Link::new(seed + u64::from(number), conditions),
                opened: Vec::new(),
                closed: Vec::new(),
                received: BTreeMap::new(),
                dropped: Vec::new(),
                drained: 0,
            }
        });
        for number in [CLIENT, SERVER] {
            let other = &sides[1 - number].session;
            let remote = RemoteParameters {
                ufrag: other.ufrag().to_owned(),
                pwd: other.pwd().to_owned(),
                fingerprints: Fingerprint::parse("sha-256", certificate().fingerprint())
                    .into_iter()
                    .collect(),
                role: if number == CLIENT { DtlsRole::Client } else { DtlsRole::Server },
            };
            let candidate = other.local_candidates().remove(0);
            let session = &mut sides[number].session;
            let settings = DataSettings {
                local_port: ports[number],
                remote_port: ports[1 - number],
                max_message: max,
            };
            session.carry_data(settings, true);
            session.start(now, remote).expect("starts");
            session.add_remote_candidate(now, &candidate).expect("a candidate");
        }
        Self { sides, now }
    }

    fn connected(seed: u64, conditions: Conditions) -> Self {
        Self::new(seed, conditions).connect()
    }

    fn connect(mut self) -> Self {
        assert!(self.run_until(secs(60), |pair| {
            pair.sides
                .iter()
                .all(|side| side.session.data().is_some_and(|data| data.is_connected()))
        }));
        self
    }

    fn step(&mut self) {
        for number in [CLIENT, SERVER] {
            let now = self.now;
            let [local, remote] = [number, 1 - number].map(|number| self.sides[number].address);
            while let Some(mut bytes) = self.sides[1 - number].link.receive(now) {
                self.sides[number].session.handle_datagram(now, local, remote, &mut bytes);
                self.sides[number].take_outputs(now);
            }
            let session = &mut self.sides[number].session;
            if session.poll_timeout().is_some_and(|due| due <= now) {
                session.handle_timeout(now);
            }
            self.sides[number].take_outputs(now);
        }
        self.now += ms(1);
    }

    /// Whether it was `done` in time.
    fn run_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        while self.now < end {
            if done(self) {
                return true;
            }
            self.step();
        }
        done(self)
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn open(&mut self, side: usize, label: &str, ordered: bool, reliability: Reliability) -> u16 {
        let options = ChannelOptions {
            label: label.to_owned(),
            protocol: "proto".to_owned(),
            ordered,
            reliability,
        };
        self.sides[side].session.open_channel(self.now, options).expect("a channel")
    }

    fn send(&mut self, side: usize, channel: u16, message: &Message) -> Result<(), DropReason> {
        self.sides[side].session.send_message(self.now, channel, message)
    }
}

fn text(text: &str) -> Message {
    Message { is_text: true, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn binary(len: usize, start: u8) -> Message {
    let bytes: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_add(start)).collect();
    Message { is_text: false, bytes: bytes.into() }
}

fn bad() -> Conditions {
    Conditions::delay(20).jitter(10).loss_per_mille(50).reorder(50, 25).duplicate_per_mille(30)
}

#[test]
fn messages_of_every_kind_arrive_whole_and_in_order_over_bad_networks() {
    for seed in 1..=4 {
        let mut pair = Pair::connected(seed, bad());
        let from_client = pair.open(CLIENT, "käse", true, Reliability::Reliable);
        let from_server = pair.open(SERVER, "", true, Reliability::Reliable);
        assert_eq!((from_client, from_server), (0, 1));
        let mut messages = vec![text("first"), text(""), binary(0, 0), binary(1, 7)];
        messages.extend([binary(MAX_MESSAGE, 3), text(&"é".repeat(5_000)), binary(1_200, 9)]);
        messages.extend((0..100).map(|number| text(&format!("message {number}"))));
        for message in &messages {
            for channel in [from_client, from_server] {
                for side in [CLIENT, SERVER] {
                    while pair.send(side, channel, message).is_err() {
                        pair.run_for(ms(5));
                    }
                }
            }
        }
        let all = |pair: &Pair| {
            pair.sides.iter().all(|side| {
                [0, 1].iter().all(|channel| side.messages(*channel).len() == messages.len())
            })
        };
        assert!(pair.run_until(secs(120), all), "seed {seed}");
        for side in &pair.sides {
            assert!(side.messages(0) == messages && side.messages(1) == messages, "seed {seed}");
            assert_eq!(side.opened.len(), 2);
            let channel = side.session.data().expect("data").channel(0).expect("is open");
            assert_eq!((&*channel.label, &*channel.protocol), ("käse", "proto"));
            assert_eq!(channel.messages_received, messages.len() as u64);
            assert_eq!(channel.bytes_sent, channel.bytes_received);
            assert_eq!(side.dropped, []);
        }
    }
}

#[test]
fn unordered_messages_all_arrive_and_overtake_each_other() {
    let mut pair = Pair::connected(11, bad());
    let channel = pair.open(CLIENT, "u", false, Reliability::Reliable);
    assert!(pair.run_until(secs(10), |pair| !pair.sides[CLIENT].opened.is_empty()));
    for number in 0..2_000_u32 {
        pair.send(CLIENT, channel, &text(&number.to_string())).expect("room");
        if number % 10 == 0 {
            pair.run_for(ms(2));
        }
    }
    assert!(pair.run_until(secs(120), |pair| pair.sides[SERVER].messages(channel).len() == 2_000));
    let read = |message: &Message| String::from_utf8(message.bytes.to_vec()).expect("text");
    let mut came: Vec<u32> = pair.sides[SERVER]
        .messages(channel)
        .iter()
        .map(|message| read(message).parse().expect("a number"))
        .collect();
    assert!(!came.is_sorted());
    came.sort_unstable();
    assert!(came.into_iter().eq(0..2_000));
}

#[test]
fn what_may_be_lost_is_lost_and_holds_nothing_up() {
    for reliability in [Reliability::Retransmits(0), Reliability::Lifetime(30)] {
        for ordered in [true, false] {
            let mut pair = Pair::connected(21, bad().loss_per_mille(150));
            let channel = pair.open(SERVER, "lossy", ordered, reliability);
            assert!(pair.run_until(secs(20), |pair| !pair.sides[SERVER].opened.is_empty()));
            for number in 0..3_000_u32 {
                // A session that is full drops them on the spot, which is fine here.
                let _ = pair.send(SERVER, channel, &binary(200, number as u8));
                pair.run_for(ms(2));
            }
            pair.run_for(secs(70));
            let came = pair.sides[CLIENT].messages(channel).len();
            assert!((300..2_990).contains(&came), "{reliability:?} {ordered}: {came}");
            // It still works after all the losses.
            pair.sides[SERVER].link.set(Conditions::delay(10));
            pair.sides[CLIENT].link.set(Conditions::delay(10));
            pair.send(SERVER, channel, &text("last")).expect("room");
            let last =
                |pair: &Pair| pair.sides[CLIENT].messages(channel).last() == Some(&text("last"));
            assert!(pair.run_until(secs(70), last), "{reliability:?} {ordered}");
        }
    }
}

#[test]
fn a_hundred_channels_from_both_sides_keep_apart() {
    let mut pair = Pair::connected(31, bad());
    let ids: Vec<[u16; 2]> = (0..50)
        .map(|number| {
            [CLIENT, SERVER].map(|side| {
                pair.open(side, &format!("{side}.{number}"), true, Reliability::Reliable)
            })
        })
        .collect();
    assert!(ids.iter().all(|[even, odd]| even % 2 == 0 && odd % 2 == 1));
    assert!(
        pair.run_until(secs(30), |pair| pair.sides.iter().all(|side| side.opened.len() == 100))
    );
    for side in [CLIENT, SERVER] {
        for id in ids.iter().flatten() {
            pair.send(side, *id, &text(&format!("{side} to {id}"))).expect("room");
        }
    }
    let all = |pair: &Pair| pair.sides.iter().all(|side| side.received.len() == 100);
    assert!(pair.run_until(secs(60), all));
    for (number, side) in pair.sides.iter().enumerate() {
        let right = |(id, came): (&u16, &Vec<Message>)| {
            came[..] == [text(&format!("{} to {id}", 1 - number))]
        };
        assert!(side.received.iter().all(right));
        assert!(side.session.data().expect("data").channels().count() == 100);
    }
}

#[test]
fn channels_close_from_either_side_and_their_numbers_serve_again() {
    for seed in 41..46 {
        let mut pair = Pair::connected(seed, bad());
        for round in 0..6 {
            let channel = pair.open(CLIENT, "once", true, Reliability::Reliable);
            for number in 0..200 {
                pair.send(CLIENT, channel, &binary(2_000, number)).expect("room");
            }
            let opened = |pair: &Pair| pair.sides.iter().all(|side| side.opened.len() > round);
            assert!(pair.run_until(secs(20), opened), "{seed} {round}");
            let closer = round % 2;
            pair.sides[closer].session.close_channel(pair.now, channel);
            let gone = |pair: &Pair| {
                pair.sides.iter().all(|side| {
                    side.closed.len() == round + 1
                        && side.session.data().expect("data").channels().count() == 0
                })
            };
            assert!(pair.run_until(secs(60), gone), "{seed} {round}");
            // What was sent before its sender closed it has arrived.
            if closer == CLIENT {
                assert_eq!(pair.sides[SERVER].messages(channel).len(), 200, "{seed} {round}");
            }
            assert_eq!(pair.send(SERVER, channel, &text("x")), Err(DropReason::DataNotOpen));
        }
        let counts = pair.sides[SERVER].session.data().expect("data").counts();
        assert_eq!(counts, (6, 6));
    }
}

#[test]
fn a_peer_may_use_a_number_again_at_once() {
    let mut pair = Pair::connected(51, Conditions::delay(20).loss_per_mille(30));
    // Each time the side that opens comes round to the same number: 512 are there.
    for round in 0..600 {
        let channel = pair.open(SERVER, "again", true, Reliability::Reliable);
        pair.send(SERVER, channel, &text(&round.to_string())).expect("room");
        let came = |pair: &Pair| {
            pair.sides[CLIENT].messages(channel).last() == Some(&text(&round.to_string()))
        };
        assert!(pair.run_until(secs(30), came), "{round}");
        pair.sides[CLIENT].session.close_channel(pair.now, channel);
        let gone = |pair: &Pair| {
            pair.sides.iter().all(|side| side.session.data().expect("data").channels().count() == 0)
        };
        assert!(pair.run_until(secs(30), gone), "{round}");
    }
}

#[test]
fn messages_longer_than_the_peer_takes_are_refused() {
    let mut pair = Pair::with(61, Conditions::delay(5), [PORT, PORT], Some(1_000)).connect();
    let channel = pair.open(CLIENT, "short", true, Reliability::Reliable);
    assert_eq!(pair.send(CLIENT, channel, &binary(1_001, 0)), Err(DropReason::DataTooLong));
    assert_eq!(pair.send(CLIENT, channel, &binary(1_000, 0)), Ok(()));
    let mut pair = Pair::with(62, Conditions::delay(5), [PORT, PORT], None).connect();
    let channel = pair.open(CLIENT, "long", true, Reliability::Reliable);
    assert_eq!(
        pair.send(CLIENT, channel, &binary(MAX_MESSAGE + 1, 0)),
        Err(DropReason::DataTooLong)
    );
    assert_eq!(pair.send(CLIENT, channel, &binary(MAX_MESSAGE, 0)), Ok(()));
    assert!(pair.run_until(secs(10), |pair| pair.sides[SERVER].messages(channel).len() == 1));
}

#[test]
fn ports_are_those_of_the_descriptions() {
    let mut pair = Pair::with(71, bad(), [14_451, 1_024], Some(MAX_MESSAGE)).connect();
    let channel = pair.open(CLIENT, "ports", true, Reliability::Reliable);
    pair.send(CLIENT, channel, &binary(100_000, 1)).expect("room");
    assert!(pair.run_until(secs(30), |pair| pair.sides[SERVER].messages(channel).len() == 1));
    assert!(pair.sides.iter().all(|side| side.dropped.is_empty()));
}

#[test]
fn a_reader_that_waits_makes_the_sender_wait_and_loses_nothing() {
    let mut pair = Pair::connected(81, Conditions::delay(10).loss_per_mille(10));
    let channel = pair.open(CLIENT, "flow", true, Reliability::Reliable);
    pair.run_for(ms(200));
    let mut sent = 0_u32;
    for _ in 0..40 {
        let reader = &mut pair.sides[SERVER].session;
        reader.set_reading(pair.now, false);
        pair.run_for(ms(10));
        while !pair.sides[CLIENT].session.is_full() {
            pair.send(CLIENT, channel, &binary(10_000, sent as u8)).expect("room until it is full");
            sent += 1;
        }
        pair.run_for(ms(300));
        let now = pair.now;
        pair.sides[SERVER].session.set_reading(now, true);
        pair.sides[SERVER].take_outputs(now);
        let drained = pair.sides[CLIENT].drained;
        // Far below the second that a retransmission takes: the reader says that there is room.
        let more = |pair: &Pair| pair.sides[CLIENT].drained > drained;
        assert!(pair.run_until(secs(4), more), "after {sent}");
    }
    assert!(pair.run_until(secs(60), |pair| {
        pair.sides[SERVER].messages(channel).len() == sent as usize
    }));
    let came = pair.sides[SERVER].messages(channel).iter().enumerate();
    assert!(came.into_iter().all(|(at, message)| *message == binary(10_000, at as u8)));
}

#[test]
fn a_peer_that_takes_nothing_holds_nobody_up_for_ever() {
    let mut pair = Pair::connected(91, Conditions::delay(10));
    let channel = pair.open(CLIENT, "stuck", true, Reliability::Reliable);
    pair.run_for(ms(200));
    let now = pair.now;
    pair.sides[SERVER].session.set_reading(now, false);
    while !pair.sides[CLIENT].session.is_full() {
        pair.send(CLIENT, channel, &binary(200_000, 0)).expect("room");
        pair.run_for(ms(50));
    }
    pair.run_for(secs(3));
    assert!(pair.sides[CLIENT].session.is_full());
    pair.run_for(secs(19));
    assert!(!pair.sides[CLIENT].session.is_full());
    assert_eq!(pair.send(CLIENT, channel, &text("x")), Err(DropReason::DataSlowPeer));
    assert_eq!(pair.sides[CLIENT].drained, 1);
    let now = pair.now;
    pair.sides[SERVER].session.set_reading(now, true);
    assert!(pair.run_until(secs(30), |pair| {
        let data = pair.sides[CLIENT].session.data().expect("data");
        data.channel(channel).is_some_and(|channel| channel.state == ChannelState::Open)
    }));
    // The other side was asked less and less often whether there is room.
    let mut waited = 0;
    while pair.send(CLIENT, channel, &text("x")) != Ok(()) {
        pair.run_for(secs(1));
        waited += 1;
        assert!(waited < 60, "it takes messages again");
    }
}

#[test]
fn all_channels_close_with_their_session() {
    let mut pair = Pair::connected(101, Conditions::delay(10));
    let channel = pair.open(CLIENT, "gone", true, Reliability::Reliable);
    assert!(pair.run_until(secs(5), |pair| pair.sides.iter().all(|side| side.opened.len() == 1)));
    let now = pair.now;
    pair.sides[SERVER].session.close(now);
    assert!(pair.run_until(secs(5), |pair| pair.sides[CLIENT].closed == [channel]));
    assert_eq!(pair.send(CLIENT, channel, &text("x")), Err(DropReason::DataNotOpen));
}

#[test]
fn an_outage_of_a_minute_is_survived() {
    let mut pair = Pair::connected(111, Conditions::delay(10));
    let channel = pair.open(CLIENT, "outage", true, Reliability::Reliable);
    pair.run_for(secs(1));
    for side in &mut pair.sides {
        side.link.set(Conditions::delay(10).loss_per_mille(1_000));
    }
    pair.send(CLIENT, channel, &text("through")).expect("room");
    pair.run_for(secs(25));
    for side in &mut pair.sides {
        side.link.set(Conditions::delay(10));
    }
    assert!(pair.run_until(secs(40), |pair| pair.sides[SERVER].messages(channel).len() == 1));
}
