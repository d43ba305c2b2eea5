//! Two sessions over a seeded link with delay and loss, on a simulated clock.

use std::time::Duration;

mod restart;

use super::*;
use crate::transport::certificate::KeyKind;
use crate::transport::srtp::Profile;

/// Where simulated time begins.
#[expect(clippy::disallowed_methods, reason = "simulated time needs some origin")]
fn origin() -> Instant {
    Instant::now()
}

const ADDRESSES: [&str; 2] = ["10.0.0.1:8000", "10.0.0.2:9000"];

struct Side {
    session: Session,
    addr: SocketAddr,
    /// Where the network sees it.
    shown: SocketAddr,
    events: Vec<Event>,
    bound: Vec<(SocketAddr, bool)>,
    received: Vec<Vec<u8>>,
    dropped: Vec<DropReason>,
    sent: usize,
    wakes: usize,
}

struct Net {
    now: Instant,
    began: Instant,
    sides: [Side; 2],
    flying: Vec<(Instant, usize, SocketAddr, Vec<u8>)>,
    delay: Duration,
    loss_per_mille: u64,
    seed: u64,
}

struct Call {
    kinds: [KeyKind; 2],
    controlling: usize,
    client: usize,
    lie_about: Option<usize>,
    /// Side that hears of no candidates.
    untold: Option<usize>,
    loss_per_mille: u64,
    seed: u64,
}

const CALL: Call = Call {
    kinds: [KeyKind::Ecdsa; 2],
    controlling: 0,
    client: 0,
    lie_about: None,
    untold: None,
    loss_per_mille: 0,
    seed: 1,
};

fn certificate(kind: KeyKind) -> Arc<Certificate> {
    Arc::new(Certificate::generate(kind).expect("generates"))
}

impl Net {
    fn new(call: &Call) -> Self {
        let began = origin();
        let certificates = call.kinds.map(certificate);
        let side = |at: usize| {
            let settings = Settings {
                certificate: certificates[at].clone(),
                controlling: call.controlling == at,
            };
            let mut session = Session::new(began, settings).expect("is made");
            let addr: SocketAddr = ADDRESSES[at].parse().expect("address");
            session.add_local_candidate(addr).expect("fits");
            Side {
                session,
                addr,
                shown: addr,
                events: vec![],
                bound: vec![],
                received: vec![],
                dropped: vec![],
                sent: 0,
                wakes: 0,
            }
        };
        let mut net = Self {
            now: began,
            began,
            sides: [side(0), side(1)],
            flying: vec![],
            delay: Duration::from_millis(20),
            loss_per_mille: call.loss_per_mille,
            seed: call.seed,
        };
        let remote = |of: usize| {
            let session = &net.sides[of].session;
            let text = certificates[of].fingerprint();
            let mut fingerprint = Fingerprint::parse("sha-256", text).expect("parses");
            if call.lie_about == Some(of) {
                fingerprint.bytes[7] ^= 1;
            }
            RemoteParameters {
                ufrag: session.ufrag().to_owned(),
                pwd: session.pwd().to_owned(),
                fingerprints: vec![fingerprint],
                role: if call.client == of { DtlsRole::Server } else { DtlsRole::Client },
            }
        };
        let remotes = [remote(1), remote(0)];
        let lines = [1, 0].map(|of| net.sides[of].session.local_candidates());
        for (of, ((side, remote), lines)) in
            net.sides.iter_mut().zip(remotes).zip(lines).enumerate()
        {
            for line in lines.into_iter().filter(|_| call.untold != Some(of)) {
                side.session.add_remote_candidate(began, &line).expect("reads");
            }
            side.session.start(began, remote).expect("starts");
        }
        net
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn drain(&mut self) {
        for at in 0..2 {
            while let Some(output) = self.sides[at].session.poll_output() {
                match output {
                    Output::Event(event) => self.sides[at].events.push(event),
                    Output::Bind { remote, proven } => self.sides[at].bound.push((remote, proven)),
                    Output::Message { .. }
                    | Output::Drained
                    | Output::Dropped(_)
                    | Output::Live(_) => {}
                    Output::Transmit { local, remote, bytes } => {
                        assert_eq!(local, self.sides[at].addr);
                        self.sides[at].sent += 1;
                        let from = self.sides[at].shown;
                        self.send(remote, from, bytes.to_vec());
                    }
                    other => panic!("nobody asked for {other:?}"),
                }
            }
        }
    }

    fn send(&mut self, to: SocketAddr, from: SocketAddr, bytes: Vec<u8>) {
        let lost = self.random() % 1_000 < self.loss_per_mille;
        let target = self.sides.iter().position(|side| side.shown == to);
        if let Some(target) = target.filter(|_| !lost) {
            self.flying.push((self.now + self.delay, target, from, bytes));
        }
    }

    fn deliver(&mut self, to: usize, from: SocketAddr, mut bytes: Vec<u8>) {
        let side = &mut self.sides[to];
        match side.session.handle_datagram(self.now, side.addr, from, &mut bytes) {
            Received::Rtp(len) | Received::Rtcp(len) => side.received.push(bytes[..len].to_vec()),
            // A flight over a long way is sent twice.
            Received::Dropped(DropReason::DtlsRepeated) => {}
            Received::Dropped(reason) => side.dropped.push(reason),
            Received::Nothing => {}
        }
    }

    /// Runs until `done` or for `limit`; returns whether it was done. Counts steps, so that a timer
    /// that never moves shows.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut steps = 0;
        loop {
            self.drain();
            if done(self) {
                return true;
            }
            let arrival = self.flying.iter().map(|flight| flight.0).min();
            let timers = self.sides.iter_mut().filter_map(|side| side.session.poll_timeout());
            let Some(next) = timers.chain(arrival).min().filter(|&next| next <= end) else {
                self.now = end;
                return false;
            };
            steps += 1;
            assert!(steps < 20_000, "something spins");
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(at) = self.flying.iter().position(|flight| flight.0 <= now) {
                let (_, to, from, bytes) = self.flying.remove(at);
                self.deliver(to, from, bytes);
            }
            for side in &mut self.sides {
                side.wakes +=
                    usize::from(side.session.poll_timeout().is_some_and(|due| due <= now));
                side.session.handle_timeout(now);
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.sides.iter().all(|side| side.events.contains(&Event::Dtls(DtlsState::Connected)))
    }

    fn connect(call: &Call) -> Self {
        let mut net = Self::new(call);
        let connected = net.run_until(Duration::from_secs(25), Self::is_connected);
        let seed = call.seed;
        let events = [&net.sides[0].events, &net.sides[1].events];
        assert!(connected, "seed {seed}, {:?}: {events:#?}", net.now - net.began);
        net
    }

    fn send_media(&mut self, from: usize, header: &[u8], index: u64) -> Vec<u8> {
        let mut out = [0; 1500];
        let session = &mut self.sides[from].session;
        let sender = session.srtp().expect("connected");
        let len = sender.seal_rtp(header, b"payload", index, &mut out).expect("seals");
        let (_, remote) = session.selected().expect("connected");
        let from = self.sides[from].shown;
        self.send(remote, from, out[..len].to_vec());
        out[..len].to_vec()
    }
}

const HEADER: [u8; 12] = [0x80, 96, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9];

fn plain() -> Vec<u8> {
    [&HEADER[..], b"payload"].concat()
}

#[test]
fn sessions_connect_in_all_roles_and_choose_gcm() {
    for (controlling, client) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut net = Net::connect(&Call { controlling, client, ..CALL });
        let took = net.now - net.began;
        assert!(took < Duration::from_millis(600), "{took:?} with a delay of 20 ms");
        for from in [0, 1] {
            let profile = net.sides[from].session.srtp().expect("connected").profile();
            assert_eq!(profile, Profile::AeadAes128Gcm);
            net.send_media(from, &HEADER, 5);
            net.run_until(Duration::from_millis(50), |_| false);
            assert_eq!(net.sides[1 - from].received, [plain()]);
        }
    }
}

#[test]
fn events_come_in_the_order_of_the_original() {
    for client in [0, 1] {
        let net = Net::connect(&Call { client, ..CALL });
        for (side, peer) in [(0, 1), (1, 0)] {
            let line = |of: usize| net.sides[of].session.local_candidates()[0].clone();
            let expected = [
                Event::Ice(IceState::Gathering),
                Event::Ice(IceState::Connecting),
                Event::SelectedPair { local: line(side), remote: line(peer) },
                Event::Ice(IceState::Connected),
                Event::Ice(IceState::Ready),
                Event::Dtls(DtlsState::New),
                Event::Dtls(DtlsState::Connecting),
                Event::Connected,
                Event::Dtls(DtlsState::Connected),
            ];
            assert_eq!(net.sides[side].events, expected, "side {side}, client {client}");
            assert!(net.sides[side].bound.contains(&(net.sides[peer].addr, true)));
        }
    }
}

#[test]
fn checks_begin_when_the_peer_has_an_address() {
    let mut net = Net::new(&Call { untold: Some(0), loss_per_mille: 1_000, ..CALL });
    net.run_until(Duration::from_secs(1), |_| false);
    assert_eq!(net.sides[0].events, [Event::Ice(IceState::Gathering)]);
    assert_eq!(net.sides[0].sent, 0);
    net.loss_per_mille = 0;
    let connected =
        |net: &Net| net.sides.iter().all(|side| side.events.contains(&Event::Connected));
    assert!(net.run_until(Duration::from_secs(5), connected), "the peer's own checks tell it");
    assert_eq!(net.sides[0].events[1], Event::Ice(IceState::Connecting));
}

#[test]
fn sessions_connect_although_datagrams_are_lost() {
    for seed in 1..=200 {
        let call = Call {
            controlling: seed as usize % 2,
            client: seed as usize / 2 % 2,
            loss_per_mille: 250,
            seed,
            ..CALL
        };
        Net::connect(&call);
    }
}

#[test]
fn rsa_and_ecdsa_certificates_work_together() {
    for kinds in [[KeyKind::Rsa; 2], [KeyKind::Rsa, KeyKind::Ecdsa]] {
        for client in [0, 1] {
            Net::connect(&Call { kinds, client, ..CALL });
        }
    }
}

#[test]
fn a_certificate_with_another_fingerprint_is_refused() {
    for (liar, client) in [(0, 0), (0, 1)] {
        let mut net = Net::new(&Call { lie_about: Some(liar), client, ..CALL });
        net.run_until(Duration::from_secs(60), |_| false);
        let deceived = &mut net.sides[1 - liar];
        assert!(deceived.events.contains(&Event::Dtls(DtlsState::Failed)), "{:?}", deceived.events);
        assert!(deceived.session.srtp().is_none());
        assert!(!deceived.events.contains(&Event::Connected));
    }
}

#[test]
fn media_from_an_unvalidated_address_is_dropped() {
    let mut net = Net::connect(&CALL);
    let sealed = net.send_media(0, &HEADER, 5);
    net.flying.clear();
    let stranger = "10.0.0.66:5000".parse().expect("address");
    net.deliver(1, stranger, sealed.clone());
    net.deliver(1, stranger, vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(net.sides[1].dropped, [DropReason::UnvalidatedAddress; 2]);
    let from = net.sides[0].addr;
    net.deliver(1, from, sealed.clone());
    assert_eq!(net.sides[1].received, [plain()]);
    net.deliver(1, from, sealed);
    assert_eq!(net.sides[1].dropped[2..], [DropReason::SrtpReplay]);
}

#[test]
fn stun_without_our_password_is_dropped() {
    let mut net = Net::new(&CALL);
    net.run_until(Duration::from_millis(1), |_| false);
    let (_, to, from, request) = net
        .flying
        .iter()
        .find(|flight| flight.1 == 1 && flight.3[0] == 0)
        .cloned()
        .expect("checks began");
    let mut forged = request.clone();
    let at = forged.len() - 20;
    forged[at] ^= 1;
    net.deliver(to, from, forged);
    let mut other = request.clone();
    other[24] ^= 1;
    net.deliver(to, from, other);
    net.deliver(to, from, request[..30].to_vec());
    net.deliver(to, from, vec![200; 30]);
    let expected = [
        DropReason::StunIntegrity,
        DropReason::StunUsername,
        DropReason::StunMalformed,
        DropReason::UnknownProtocol,
    ];
    assert_eq!(net.sides[1].dropped, expected);
    net.deliver(to, from, request);
    assert_eq!(net.sides[1].dropped.len(), 4);
}

#[test]
fn a_vanished_peer_is_noticed_and_may_return() {
    let mut net = Net::connect(&CALL);
    net.loss_per_mille = 1_000;
    net.flying.clear();
    net.run_until(Duration::from_secs(10), |_| false);
    for side in &mut net.sides {
        assert_eq!(side.session.ice_state(), IceState::Disconnected);
        side.events.clear();
    }
    net.loss_per_mille = 0;
    let back =
        |net: &Net| net.sides.iter().all(|side| side.events.contains(&Event::Ice(IceState::Ready)));
    assert!(net.run_until(Duration::from_secs(5), back));
    net.send_media(0, &HEADER, 5);
    net.run_until(Duration::from_millis(50), |_| false);
    assert_eq!(net.sides[1].received, [plain()]);

    net.loss_per_mille = 1_000;
    net.run_until(Duration::from_secs(60), |_| false);
    for side in &mut net.sides {
        assert_eq!(side.session.ice_state(), IceState::Failed);
        assert_eq!(side.session.selected(), None);
        assert_eq!(side.session.poll_timeout(), None, "nothing is left to wait for");
    }
}

#[test]
fn a_peer_that_never_answers_ends_in_failed_with_few_checks() {
    let mut net = Net::new(&Call { loss_per_mille: 1_000, ..CALL });
    let side = &mut net.sides[0];
    for port in 1..200 {
        let line = format!("candidate:1 1 udp 2113937151 10.0.0.9 {port} typ host");
        let taken = side.session.add_remote_candidate(net.began, &line).is_ok();
        assert_eq!(taken, port < 64, "the 64 include the true one");
    }
    net.run_until(Duration::from_secs(120), |_| false);
    assert_eq!(net.sides[0].session.ice_state(), IceState::Failed);
    assert_eq!(net.sides[0].session.poll_timeout(), None);
    // 64 pairs, each checked at a falling rate for half a minute.
    assert!(net.sides[0].sent <= 64 * 100, "{} checks", net.sides[0].sent);
}

#[test]
fn an_idle_connection_wakes_rarely() {
    let mut net = Net::connect(&CALL);
    net.run_until(Duration::from_secs(2), |_| false);
    let before = net.sides.each_ref().map(|side| (side.wakes, side.sent));
    net.run_until(Duration::from_secs(20), |_| false);
    for (side, (wakes, sent)) in net.sides.iter().zip(before) {
        assert_eq!(side.session.ice_state(), IceState::Ready);
        // One check every two seconds, and the answer to the peer's.
        assert!(side.wakes - wakes <= 11, "{} wakes", side.wakes - wakes);
        assert!(side.sent - sent <= 33, "{} datagrams", side.sent - sent);
    }
}

#[test]
fn loss_of_checks_does_not_look_like_a_peer_that_is_gone() {
    for seed in 1..=5 {
        let mut net = Net::connect(&Call { seed, ..CALL });
        net.sides.iter_mut().for_each(|side| side.events.clear());
        net.loss_per_mille = 100;
        net.run_until(Duration::from_secs(600), |_| false);
        assert_eq!(net.sides.each_ref().map(|side| side.events.len()), [0, 0], "seed {seed}");
    }
}

#[test]
fn closing_tells_the_peer() {
    let mut net = Net::connect(&CALL);
    let now = net.now;
    net.sides[0].session.close(now);
    let closed =
        |net: &Net| net.sides[1].events.ends_with(&[Event::Dtls(DtlsState::Closed), Event::Closed]);
    assert!(net.run_until(Duration::from_secs(1), closed), "{:?}", net.sides[1].events);
    assert_eq!(net.sides[0].session.poll_timeout(), None);
    let addr = net.sides[1].addr;
    net.deliver(0, addr, vec![0x80; 40]);
    assert_eq!(net.sides[0].dropped.last(), Some(&DropReason::Closed));
}

/// A message of the peer by hand, as from an address that its session does not know of.
fn stun(driver: &Session, class: rtc::stun::message::MessageType, parts: Stun<'_>) -> Vec<u8> {
    use rtc::stun::attributes::ATTR_USE_CANDIDATE;
    use rtc::stun::integrity::MessageIntegrity;
    use rtc::stun::message::{BINDING_SUCCESS, Message, Setter};
    use rtc::stun::textattrs::TextAttribute;

    let crypto = driver.certificate.provider.crypto();
    let mut message = Message::new();
    message.transaction_id = parts.id;
    message.set_type(class);
    message.write_header();
    if class != BINDING_SUCCESS {
        let name = TextAttribute::new(rtc::stun::attributes::ATTR_USERNAME, parts.username);
        name.add_to(&mut message).expect("fits");
        message.add(ATTR_USE_CANDIDATE, &[]);
    }
    MessageIntegrity::new_short_term_integrity_with_provider(parts.pwd.to_owned(), crypto)
        .add_to(&mut message)
        .expect("fits");
    message.raw
}

struct Stun<'a> {
    id: rtc::stun::message::TransactionId,
    username: String,
    pwd: &'a str,
}

#[test]
fn media_follows_a_peer_that_nominates_another_address() {
    use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, TransactionId};

    let mut net = Net::connect(&Call { controlling: 1, ..CALL });
    let (old, pwds) = (net.sides[1].addr, [0, 1].map(|at| net.sides[at].session.pwd().to_owned()));
    let username = [0, 1].map(|at| net.sides[at].session.ufrag().to_owned()).join(":");
    let moved: SocketAddr = "10.0.0.3:7000".parse().expect("address");
    net.flying.clear();
    net.now += STALE;
    let ask = |net: &mut Net| {
        let parts = Stun { id: TransactionId::new(), username: username.clone(), pwd: &pwds[0] };
        let request = stun(&net.sides[0].session, BINDING_REQUEST, parts);
        net.deliver(0, moved, request);
    };
    ask(&mut net);
    assert_eq!(net.sides[0].dropped, []);
    assert_eq!(net.sides[0].session.selected().map(|pair| pair.1), Some(old), "not yet proven");
    let mut id = None;
    while let Some(output) = net.sides[0].session.poll_output() {
        if let Output::Transmit { remote, bytes, .. } = output
            && remote == moved
            && bytes[0] == 0
        {
            let mut raw = [0; 12];
            raw.copy_from_slice(&bytes[8..20]);
            id = Some(TransactionId(raw));
        }
    }
    let id = id.expect("the new address is checked");
    let parts = Stun { id, username: String::new(), pwd: &pwds[1] };
    let answer = stun(&net.sides[0].session, BINDING_SUCCESS, parts);
    net.deliver(0, moved, answer);
    ask(&mut net);
    assert_eq!(net.sides[0].session.selected().map(|pair| pair.1), Some(moved));
    net.drain();
    let last = net.sides[0].events.last();
    assert!(
        matches!(last, Some(Event::SelectedPair { remote, .. }) if remote.contains("10.0.0.3 7000"))
    );
}

/// Longer than the selected pair may be silent before another takes its place.
const STALE: Duration = Duration::from_secs(4);

#[test]
fn credentials_have_the_lengths_of_the_original() {
    let net = Net::new(&CALL);
    let session = &net.sides[0].session;
    assert_eq!((session.ufrag().len(), session.pwd().len()), (4, 22));
    assert_eq!(session.local_candidates(), ["candidate:1 1 UDP 2015364095 10.0.0.1 8000 typ host"]);
}
