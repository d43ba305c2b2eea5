//! The agent by itself: floods, roles, consent and relays, on a simulated clock.

use super::checks::MAX_CHECKS;
use super::consent::{FAILURE, KEEPALIVE, STALE_PAIR};
use super::nomination::SIMULTANEOUS;
use super::pairs::MAX_PAIRS;
use super::remote::{MAX_LEARNT, MAX_REMOTE_CANDIDATES};
use super::*;
use crate::config::modules::{TurnServer, TurnTransport};
use crate::config::value::Secret;
use crate::transport::stun::Builder;
use rtc::crypto::providers::AwsLcRsProvider;

#[expect(clippy::disallowed_methods, reason = "simulated time needs some origin")]
fn origin() -> Instant {
    Instant::now()
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

const OURS: &str = "10.0.0.1:8000";
const THEIRS: &str = "10.0.0.2:9000";

fn agent(now: Instant, controlling: bool) -> Ice {
    let provider = Arc::new(AwsLcRsProvider::new());
    let mut ice = Ice::new(now, controlling, provider).expect("randomness");
    ice.add_local(at(OURS), None).expect("room");
    ice.start(now, "peer", "password of the peer");
    ice
}

/// A request of the peer with its credentials and whatever else.
fn request(ice: &Ice, extra: impl Fn(Builder) -> Builder) -> BytesMut {
    let builder = Builder::new(stun::BINDING_REQUEST, &stun::new_transaction())
        .attribute(stun::USERNAME, format!("{}:peer", ice.ufrag()).as_bytes());
    extra(builder).integrity(&stun::key(ice.pwd().as_bytes())).fingerprint()
}

/// The peer answers all checks that wait; how many there were.
fn answer_all(ice: &mut Ice, now: Instant) -> usize {
    let mut answered = 0;
    while let Some((local, remote, bytes)) = ice.poll_transmit() {
        if stun::binding_class(&bytes) == Some(Class::Request) {
            let transaction = stun::transaction(&bytes).expect("a message");
            let answer = Builder::new(stun::BINDING_SUCCESS, &transaction)
                .xor_address(stun::XOR_MAPPED_ADDRESS, path::plain(local))
                .integrity(&stun::key(b"password of the peer"))
                .fingerprint();
            ice.handle_stun(now, local, remote, &answer).expect("is awaited");
            answered += 1;
        }
    }
    answered
}

fn states(ice: &mut Ice) -> Vec<IceState> {
    let state = |event| match event {
        IceEvent::State(state) => Some(state),
        _ => None,
    };
    std::iter::from_fn(|| ice.poll_event()).filter_map(state).collect()
}

/// Connects by the checks of a controlling agent.
fn connected(now: Instant) -> Ice {
    let mut ice = agent(now, true);
    ice.add_remote(now, "candidate:1 1 udp 99 10.0.0.2 9000 typ host").expect("a candidate");
    ice.handle_timeout(now);
    while answer_all(&mut ice, now) > 0 {}
    assert_eq!(ice.selected(), Some((at(OURS), at(THEIRS))));
    states(&mut ice);
    ice
}

#[test]
fn requests_alone_do_not_keep_the_consent() {
    let mut now = origin();
    let mut ice = connected(now);
    let start = now;
    let (mut silent_after, mut failed_after) = (None, None);
    while now < start + Duration::from_secs(40) {
        now += Duration::from_millis(100);
        let alive = request(&ice, |builder| builder);
        ice.handle_stun(now, at(OURS), at(THEIRS), &alive).expect("is the peer's");
        ice.handle_timeout(now);
        while ice.poll_transmit().is_some() {}
        for state in states(&mut ice) {
            match state {
                IceState::Disconnected => silent_after = Some(now - start),
                IceState::Failed => failed_after = Some(now - start),
                other => panic!("{other:?} though nobody answers"),
            }
        }
    }
    assert_eq!(silent_after, Some(SILENCE), "a way that carries in one direction only is none");
    let failed_after = failed_after.expect("nobody answers");
    assert!(failed_after <= FAILURE + Duration::from_millis(100), "{failed_after:?}");
    assert_eq!(ice.selected(), None, "media stops");
    // It comes back with the first answer.
    let alive = request(&ice, |builder| builder);
    ice.handle_stun(now, at(OURS), at(THEIRS), &alive).expect("is the peer's");
    assert!(answer_all(&mut ice, now) > 0, "a check follows");
    assert_eq!(states(&mut ice), [IceState::Connected, IceState::Ready]);
}

#[test]
fn silence_is_told_early_and_ended_by_thirty_seconds() {
    let mut now = origin();
    let mut ice = connected(now);
    let start = now;
    let mut told = Vec::new();
    while let Some(next) = ice.poll_timeout() {
        now = next;
        ice.handle_timeout(now);
        while ice.poll_transmit().is_some() {}
        told.extend(states(&mut ice).into_iter().map(|state| (state, now - start)));
    }
    let expected = [(IceState::Disconnected, SILENCE), (IceState::Failed, FAILURE)];
    assert_eq!(told, expected);
}

#[test]
fn both_sides_in_one_role_settle_it() {
    for controlling in [true, false] {
        for theirs in [0, u64::MAX] {
            let now = origin();
            let mut ice = agent(now, controlling);
            ice.tie_breaker = 7;
            let kind = if controlling { stun::ICE_CONTROLLING } else { stun::ICE_CONTROLLED };
            let message = request(&ice, |one| one.attribute(kind, &theirs.to_be_bytes()));
            ice.handle_stun(now, at(OURS), at(THEIRS), &message).expect("is the peer's");
            let keeps = (7 >= theirs) == controlling;
            assert_eq!(ice.controlling, controlling == keeps);
            let (_, _, answer) = ice.poll_transmit().expect("an answer");
            assert_eq!(stun::error_code(&answer), keeps.then_some(487));
        }
    }
}

#[test]
fn a_thousand_attributes_are_read_and_nothing_is_believed_without_the_key() {
    let now = origin();
    let mut ice = agent(now, false);
    let many = |mut builder: Builder| {
        for _ in 0..1_000 {
            builder = builder.attribute(0x7f00, &[]);
        }
        builder
    };
    let message = request(&ice, many);
    ice.handle_stun(now, at(OURS), at(THEIRS), &message).expect("is long and right");
    assert!(ice.is_validated(at(OURS), at(THEIRS)));
    let mut forged = message.clone();
    forged[10] ^= 1;
    for number in 0..1_000_u16 {
        let stranger = SocketAddr::from(([10, 9, 9, 9], number + 1));
        let refused = ice.handle_stun(now, at(OURS), stranger, &forged);
        assert_eq!(refused, Err(DropReason::StunIntegrity));
    }
    assert_eq!((ice.remotes.len(), ice.pairs.iter().len()), (1, 1));
}

#[test]
fn addresses_that_a_peer_claims_are_bounded_and_the_last_ones_count() {
    let now = origin();
    let mut ice = connected(now);
    for number in 1..=1_000_u16 {
        let message = request(&ice, |builder| builder);
        let claimed = SocketAddr::from(([10, 9, 9, 9], number));
        ice.handle_stun(now, at(OURS), claimed, &message).expect("is the peer's");
        assert!(ice.is_validated(at(OURS), claimed));
        while ice.poll_transmit().is_some() {}
    }
    assert!(ice.remotes.len() <= MAX_LEARNT + 2 && ice.pairs.iter().len() <= MAX_PAIRS);
    assert!(ice.checks.len() <= MAX_CHECKS);
    assert_eq!(ice.selected(), Some((at(OURS), at(THEIRS))));
}

#[test]
fn names_are_looked_up_and_become_candidates() {
    let now = origin();
    let mut ice = agent(now, true);
    let line = "candidate:1 1 udp 99 abc.local 9000 typ host";
    for _ in 0..3 {
        ice.add_remote(now, line).expect("a candidate");
    }
    let asked: Vec<_> = std::iter::from_fn(|| ice.poll_event())
        .filter(|event| matches!(event, IceEvent::Resolve { .. }))
        .collect();
    let name = "abc.local".to_owned();
    assert_eq!(asked, [IceEvent::Resolve { number: gather::FIRST_NAME, name }]);
    ice.handle_resolved(now, gather::FIRST_NAME + 5, Some(at(THEIRS).ip()));
    ice.handle_resolved(now, gather::FIRST_NAME, None);
    assert!(ice.remotes.is_empty());
    ice.handle_resolved(now, gather::FIRST_NAME, Some(at(THEIRS).ip()));
    assert_eq!(ice.remotes[0].addr, at(THEIRS));
    for number in 0..200 {
        let line = format!("candidate:1 1 udp 99 n{number}.local 9000 typ host");
        assert_eq!(ice.add_remote(now, &line).is_ok(), number < MAX_REMOTE_CANDIDATES - 1);
    }
}

#[test]
fn a_peer_that_moved_is_followed_by_the_side_that_controls() {
    let mut now = origin();
    let mut ice = connected(now);
    let moved = at("10.0.0.3:7000");
    now += STALE_PAIR;
    let message = request(&ice, |builder| builder);
    ice.handle_stun(now, at(OURS), moved, &message).expect("is the peer's");
    while answer_all(&mut ice, now) > 0 {}
    ice.handle_timeout(now + KEEPALIVE);
    // The old address does not answer any more.
    while let Some((local, remote, bytes)) = ice.poll_transmit() {
        if remote == moved && stun::binding_class(&bytes) == Some(Class::Request) {
            let transaction = stun::transaction(&bytes).expect("a message");
            let answer = Builder::new(stun::BINDING_SUCCESS, &transaction)
                .integrity(&stun::key(b"password of the peer"))
                .fingerprint();
            ice.handle_stun(now, local, remote, &answer).expect("is awaited");
        }
    }
    assert_eq!(ice.selected(), Some((at(OURS), moved)));
}

#[test]
fn of_equally_good_pairs_the_one_that_was_nominated_last_is_used_at_once() {
    let start = origin();
    let mut ice = agent(start, false);
    let mut nominate = |now: Instant, from: &str, priority: u32| {
        let message = request(&ice, |builder| {
            let told = builder.attribute(stun::PRIORITY, &priority.to_be_bytes());
            told.attribute(stun::USE_CANDIDATE, &[])
        });
        ice.handle_stun(now, at(OURS), at(from), &message).expect("is the peer's");
        while answer_all(&mut ice, now) > 0 {}
        ice.selected()
    };
    assert_eq!(nominate(start, THEIRS, 100), Some((at(OURS), at(THEIRS))));
    // Its router has another address now, and another port.
    let moved = Some((at(OURS), at("10.0.0.3:7000")));
    assert_eq!(nominate(start, "10.0.0.3:7000", 100), moved);
    assert_eq!(
        nominate(start, "10.0.0.4:7000", 50),
        moved,
        "of those of one moment it is the worse"
    );
}

/// The controlling peer nominates the pair with one of its addresses; which one is used then.
fn nominate(ice: &mut Ice, now: Instant, from: &str, priority: u32) -> Option<u16> {
    let message = request(ice, |builder| {
        let told = builder.attribute(stun::PRIORITY, &priority.to_be_bytes());
        told.attribute(stun::USE_CANDIDATE, &[])
    });
    ice.handle_stun(now, at(OURS), at(from), &message).expect("is the peer's");
    while answer_all(ice, now) > 0 {}
    ice.selected().map(|(_, remote)| remote.port())
}

const GOOD: &str = "10.0.0.2:1";
const WORSE: &str = "10.0.0.2:2";

#[test]
fn a_peer_that_nominates_a_worse_pair_is_followed_although_the_better_one_lives() {
    let start = origin();
    let mut ice = agent(start, false);
    assert_eq!(nominate(&mut ice, start, GOOD, 100), Some(1));
    // Both are alive; it is a network that costs less, perhaps.
    let later = start + SIMULTANEOUS;
    assert_eq!(nominate(&mut ice, later, WORSE, 50), Some(2));
    assert_eq!(nominate(&mut ice, later + KEEPALIVE, GOOD, 100), Some(1), "and back again");
}

#[test]
fn a_nomination_that_came_too_soon_is_followed_when_the_other_is_not_repeated() {
    let start = origin();
    let mut ice = agent(start, false);
    assert_eq!(nominate(&mut ice, start, GOOD, 100), Some(1));
    let soon = start + Duration::from_millis(300);
    assert_eq!(nominate(&mut ice, soon, WORSE, 50), Some(1));
    let mut now = soon;
    while now < start + SIMULTANEOUS + KEEPALIVE {
        now = ice.poll_timeout().expect("the consent is kept");
        ice.handle_timeout(now);
        answer_all(&mut ice, now);
    }
    assert_eq!(ice.selected(), Some((at(OURS), at(WORSE))));
}

#[test]
fn a_peer_that_nominates_all_pairs_all_the_time_does_not_make_media_jump() {
    let start = origin();
    let mut ice = agent(start, false);
    let mut used = Vec::new();
    for round in 0..40 {
        let now = start + round * Duration::from_millis(500);
        ice.handle_timeout(now);
        answer_all(&mut ice, now);
        used.push(nominate(&mut ice, now, WORSE, 50));
        used.push(nominate(&mut ice, now, GOOD, 100));
    }
    assert_eq!(used.remove(0), Some(2), "the first is better than none");
    used.dedup();
    assert_eq!(used, [Some(1)]);
}

/// A relay's server, message by message.
struct Server {
    key: stun::Key,
    nonce: Vec<u8>,
    /// It lends addresses of IPv6 only, to those who ask for one.
    ipv6: bool,
    asked: Vec<u16>,
}

const LENT: &str = "203.0.113.5:50000";

impl Server {
    fn new() -> Self {
        let provider = AwsLcRsProvider::new();
        let hash = provider
            .crypto()
            .hash(rtc::crypto::HashAlgorithm::Md5, b"me:realm:secret")
            .expect("hashes");
        let (key, nonce) = (stun::key(hash.as_ref()), b"one".to_vec());
        Self { key, nonce, ipv6: false, asked: Vec::new() }
    }

    fn answer(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        let (kind, transaction) = (stun::kind(bytes)?, stun::transaction(bytes)?);
        if kind & 0x0110 == 0x0010 {
            // Indications get no answer.
            return None;
        }
        self.asked.push(kind);
        let fresh = stun::attribute(bytes, 0x0015) == Some(&self.nonce[..]);
        if stun::verify(bytes, &self.key).is_none() || !fresh {
            let code = if stun::attribute(bytes, 0x0015).is_some() { 438 } else { 401 };
            let answer = Builder::new(kind | 0x0110, &transaction).error(code, "no");
            let answer = answer.attribute(0x0014, b"realm").attribute(0x0015, &self.nonce);
            return Some(answer.finish());
        }
        if self.ipv6 && kind == 0x0003 && stun::attribute(bytes, 0x0017) != Some(&[2, 0, 0, 0]) {
            let answer = Builder::new(kind | 0x0110, &transaction).error(440, "no");
            return Some(answer.integrity(&self.key).finish());
        }
        let lent = if self.ipv6 { "[2001:db8::5]:50000" } else { LENT };
        let answer = Builder::new(kind | 0x0100, &transaction)
            // A server may say that it has none of the other family.
            .xor_address(0x0016, at("0.0.0.0:0"))
            .xor_address(0x0016, at(lent))
            .attribute(0x000d, &600_u32.to_be_bytes());
        Some(answer.integrity(&self.key).finish())
    }
}

/// Lets agent and server talk until nothing is left to say; what else was told.
fn talk(ice: &mut Ice, server: &mut Server, now: Instant) -> Vec<IceEvent> {
    let mut rest = Vec::new();
    while let Some(event) = ice.poll_event() {
        match event {
            IceEvent::Link(LinkOutput::Open { .. }) => ice.handle_link_open(now),
            IceEvent::Link(LinkOutput::Send(bytes)) => {
                if let Some(answer) = server.answer(&bytes) {
                    assert_eq!(ice.handle_link(now, &answer), Ok(None));
                }
            }
            other => rest.push(other),
        }
    }
    rest
}

fn lease(now: Instant) -> (Ice, Server, Vec<IceEvent>) {
    lease_from(now, Server::new())
}

fn lease_from(now: Instant, mut server: Server) -> (Ice, Server, Vec<IceEvent>) {
    let mut ice = agent(now, true);
    let turn = TurnServer {
        user: "me".to_owned(),
        password: Secret::new("secret"),
        host: "198.51.100.1".to_owned(),
        port: 3_478,
        transport: Some(TurnTransport::Udp),
    };
    ice.gather(now, Servers { stun: None, turn: Some(turn) });
    let told = talk(&mut ice, &mut server, now);
    (ice, server, told)
}

#[test]
fn a_relay_is_leased_with_the_password_and_kept() {
    let mut now = origin();
    let (mut ice, mut server, told) = lease(now);
    let line =
        "candidate:2 1 UDP 505414655 203.0.113.5 50000 typ relay raddr 203.0.113.5 rport 50000";
    assert!(told.contains(&IceEvent::Candidate(line.to_owned())), "{told:?}");
    assert_eq!(told.last(), Some(&IceEvent::GatheringDone));
    assert_eq!(server.asked, [0x0003; 2], "the second with credentials");

    // An hour; the server changes its nonce meanwhile.
    let end = now + Duration::from_secs(3_600);
    server.nonce = b"two".to_vec();
    ice.gathering.send_relayed(now, at(THEIRS), b"hello");
    ice.drain_gathering(now);
    talk(&mut ice, &mut server, now);
    while let Some(next) = ice.poll_timeout().filter(|next| *next < end) {
        now = next;
        ice.handle_timeout(now);
        talk(&mut ice, &mut server, now);
    }
    let count = |kind| server.asked.iter().filter(|asked| **asked == kind).count();
    assert!((11..=13).contains(&count(0x0004)), "{} refreshes", count(0x0004));
    assert!((15..=17).contains(&count(0x0009)), "{} bindings of the channel", count(0x0009));
    assert_eq!(ice.relayed(), Some(at(LENT)));

    // What goes to the peer goes over its channel now, and what comes over it is the peer's.
    let mut slot = *b"----hello...";
    assert_eq!(ice.wrap(at(THEIRS), &mut slot, 5), Some(0..9));
    assert_eq!(slot[..9], *b"\x40\x00\x00\x05hello");
    assert_eq!(ice.handle_link(now, &slot[..9]), Ok(Some((at(THEIRS), 4..9))));
    assert_eq!(ice.handle_link(now, b"\x40\x01\x00\x05hello"), Err(DropReason::StunUnexpected));
    assert_eq!(ice.handle_link(now, b"\x40\x00\x00\x09hello"), Err(DropReason::StunUnexpected));

    ice.close();
    let mut last = std::iter::from_fn(|| ice.poll_event());
    let Some(IceEvent::Link(LinkOutput::Send(goodbye))) = last.next() else { panic!("says so") };
    assert_eq!(stun::attribute(&goodbye, 0x000d), Some(&[0; 4][..]), "gives the address back");
    assert_eq!(last.next(), Some(IceEvent::Link(LinkOutput::Close)));
}

#[test]
fn a_relay_without_ipv4_is_asked_for_an_address_of_ipv6() {
    let (ice, server, told) = lease_from(origin(), Server { ipv6: true, ..Server::new() });
    assert_eq!(ice.relayed(), Some(at("[2001:db8::5]:50000")));
    assert_eq!(server.asked, [0x0003; 3], "with credentials, and then with the family");
    let line = |event: &&IceEvent| matches!(event, IceEvent::Candidate(line) if line.contains(" 2001:db8::5 50000 typ relay "));
    assert_eq!(told.iter().filter(line).count(), 1, "{told:?}");
}

#[test]
fn a_wrong_password_ends_in_no_relay() {
    let now = origin();
    let (mut ice, mut server) = (agent(now, true), Server::new());
    server.key = stun::key(b"another");
    let turn = TurnServer {
        user: "me".to_owned(),
        password: Secret::new("wrong"),
        host: "198.51.100.1".to_owned(),
        port: 3_478,
        transport: None,
    };
    ice.gather(now, Servers { stun: None, turn: Some(turn) });
    let told = talk(&mut ice, &mut server, now);
    assert!(told.contains(&IceEvent::GatheringDone), "{told:?}");
    assert!(server.asked.len() <= 5, "and asks no further: {:?}", server.asked);
    assert_eq!(ice.relayed(), None);
}
