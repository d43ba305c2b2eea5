use super::*;
use crate::rtp::rtcp::write_receiver_report;

const FORMAT: u8 = 96;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn pair() -> Pair {
    Pair { rtp: address("192.0.2.1:5000"), rtcp: address("192.0.2.1:5001") }
}

/// A peer that says where it receives.
fn declared() -> Remote {
    Remote {
        address: Some(address("192.0.2.9:0").ip()),
        rtp: Some(address("192.0.2.9:7000")),
        rtcp: Some(address("192.0.2.9:7001")),
        awaited: None,
        learns: false,
        keys: None,
        formats: vec![0, FORMAT],
    }
}

fn learning() -> Remote {
    Remote { learns: true, ..declared() }
}

fn key(first: u8) -> Key {
    let profile = Profile::Aes128CmHmacSha1_80;
    Key { profile, material: (first..first + 30).collect(), lifetime: None }
}

fn started(remote: Remote) -> Session {
    let mut session = Session::new(pair());
    session.start(remote).expect("keys fit");
    session
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
fn now() -> Instant {
    Instant::now()
}

fn packet(format: u8, sequence: u16) -> Vec<u8> {
    let [high, low] = sequence.to_be_bytes();
    vec![0x80, format, high, low, 0, 0, 0, 9, 0, 0, 0, 5, 1, 2, 3, 4]
}

fn report() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_receiver_report(&mut bytes, 5, &[]);
    bytes
}

fn media(session: &mut Session, at: Instant, from: &str, bytes: &[u8]) -> Received {
    session.handle_datagram(at, pair().rtp, address(from), &mut bytes.to_vec())
}

fn control(session: &mut Session, at: Instant, from: &str, bytes: &[u8]) -> Received {
    session.handle_datagram(at, pair().rtcp, address(from), &mut bytes.to_vec())
}

const UNEXPECTED: Received = Received::Dropped(DropReason::UnexpectedSender);

#[test]
fn a_peer_sends_from_any_port_of_its_address_and_nobody_else_does() {
    let (mut session, at) = (started(declared()), now());
    assert_eq!(media(&mut session, at, "203.0.113.5:7000", &packet(FORMAT, 1)), UNEXPECTED);
    assert_eq!(control(&mut session, at, "203.0.113.5:7001", &report()), UNEXPECTED);
    let from = "192.0.2.9:41234";
    assert_eq!(media(&mut session, at, from, &packet(FORMAT, 1)), Received::Rtp(16));
    assert_eq!(media(&mut session, at, "192.0.2.9:41235", &packet(FORMAT, 2)), UNEXPECTED);
    assert_eq!(media(&mut session, at, from, &packet(FORMAT, 2)), Received::Rtp(16));
    assert_eq!(session.rtp_path(), Some((pair().rtp, address("192.0.2.9:7000"))));
    assert_eq!(session.rtcp_path(), Some((pair().rtcp, address("192.0.2.9:7001"))));
}

#[test]
fn another_sender_of_the_address_takes_over_after_a_silence() {
    let (mut session, at) = (started(declared()), now());
    media(&mut session, at, "192.0.2.9:4000", &packet(FORMAT, 1));
    let soon = at + SILENCE - Duration::from_millis(1);
    assert_eq!(media(&mut session, soon, "192.0.2.9:4001", &packet(FORMAT, 1)), UNEXPECTED);
    let late = at + SILENCE;
    let taken = media(&mut session, late, "192.0.2.9:4001", &packet(FORMAT, 1));
    assert_eq!(taken, Received::Rtp(16));
    assert_eq!(media(&mut session, late, "192.0.2.9:4000", &packet(FORMAT, 2)), UNEXPECTED);
}

#[test]
fn a_port_is_not_held_by_what_is_no_media() {
    let (mut session, at) = (started(declared()), now());
    let from = "192.0.2.9:4000";
    let malformed = Received::Dropped(DropReason::RtpMalformed);
    assert_eq!(media(&mut session, at, from, &packet(97, 1)), malformed);
    assert_eq!(media(&mut session, at, from, &[0x80, FORMAT, 0, 1]), malformed);
    let unknown = Received::Dropped(DropReason::UnknownProtocol);
    for bytes in [&[][..], &[0; 20], &[0x16, 254, 253], &[0x40; 30], &report()] {
        assert_eq!(media(&mut session, at, from, bytes), unknown);
    }
    let cut = Received::Dropped(DropReason::RtcpMalformed);
    let bye = [0x81, 203, 0, 1, 0, 0, 0, 5];
    for bytes in [&[0x80, 201, 0, 1][..], &[0x80, 201, 0, 9, 0, 0, 0, 5], &bye] {
        assert_eq!(control(&mut session, at, from, bytes), cut);
    }
    assert_eq!(media(&mut session, at, "192.0.2.9:4001", &packet(FORMAT, 1)), Received::Rtp(16));
    assert_eq!(control(&mut session, at, "192.0.2.9:4001", &report()), Received::Rtcp(8));
}

#[test]
fn a_learnt_peer_is_sent_to_where_it_sent_from_and_holds_the_port_for_good() {
    let (mut session, at) = (started(learning()), now());
    assert_eq!((session.rtp_path(), session.rtcp_path()), (None, None));
    assert_eq!(media(&mut session, at, "203.0.113.5:9", &packet(FORMAT, 1)), UNEXPECTED);
    assert_eq!(session.poll_event(), None, "a stranger is not learnt");
    media(&mut session, at, "192.0.2.9:40000", &packet(FORMAT, 1));
    assert_eq!(session.poll_event(), Some(Event::Learnt(Channel::Rtp)));
    assert_eq!(session.rtp_path(), Some((pair().rtp, address("192.0.2.9:40000"))));
    assert_eq!(session.rtcp_path(), None);
    control(&mut session, at, "192.0.2.9:40007", &report());
    assert_eq!(session.poll_event(), Some(Event::Learnt(Channel::Rtcp)));
    assert_eq!(session.rtcp_path(), Some((pair().rtcp, address("192.0.2.9:40007"))));
    let later = at + Duration::from_secs(3_600);
    assert_eq!(media(&mut session, later, "192.0.2.9:40001", &packet(FORMAT, 2)), UNEXPECTED);
    assert_eq!(session.rtp_path(), Some((pair().rtp, address("192.0.2.9:40000"))));
    assert!(!session.has_events());
}

#[test]
fn a_peer_without_an_address_is_whoever_comes_first() {
    let mut session = started(Remote { address: None, ..learning() });
    let at = now();
    assert_eq!(media(&mut session, at, "203.0.113.5:9", &packet(FORMAT, 1)), Received::Rtp(16));
    assert_eq!(media(&mut session, at, "192.0.2.9:9", &packet(FORMAT, 2)), UNEXPECTED);
}

#[test]
fn a_peer_on_this_machine_may_be_seen_at_any_of_its_addresses() {
    let local = Some(address("127.0.0.1:0").ip());
    for from in ["127.0.0.1:9", "127.0.0.7:9", "192.0.2.1:9"] {
        let mut session = started(Remote { address: local, ..declared() });
        assert_eq!(media(&mut session, now(), from, &packet(FORMAT, 1)), Received::Rtp(16));
    }
    let mut session = started(Remote { address: local, ..declared() });
    assert_eq!(media(&mut session, now(), "192.0.2.2:9", &packet(FORMAT, 1)), UNEXPECTED);
}

#[test]
fn nothing_is_taken_or_sent_before_the_descriptions_are_exchanged() {
    let mut session = Session::new(pair());
    let received = media(&mut session, now(), "192.0.2.9:7000", &packet(FORMAT, 1));
    assert_eq!(received, Received::Dropped(DropReason::NotStarted));
    assert_eq!(session.write_rtp(&packet(FORMAT, 1)[..12], b"x", 1, &mut [0; 100]), None);
}

/// Two sessions that share keys, each the peer of the other.
fn sealed() -> (Session, Session) {
    let remote = |ours, theirs| Remote { keys: Some((key(ours), key(theirs))), ..learning() };
    (started(remote(1, 101)), started(remote(101, 1)))
}

#[test]
fn what_is_sealed_proves_itself_wherever_it_comes_from() {
    let ((mut ours, mut theirs), at) = (sealed(), now());
    let mut out = [0; 200];
    let plain = packet(FORMAT, 7);
    let len = theirs.write_rtp(&plain[..12], &plain[12..], 7, &mut out).expect("seals");
    let forged = Received::Dropped(DropReason::SrtpAuthentication);
    assert_eq!(media(&mut ours, at, "192.0.2.9:9", &[plain.clone(), vec![0; 10]].concat()), forged);
    assert_eq!(ours.rtp_path(), None, "a forger is not learnt");
    let mut bytes = out[..len].to_vec();
    let from = address("203.0.113.77:1234");
    assert_eq!(ours.handle_datagram(at, pair().rtp, from, &mut bytes), Received::Rtp(16));
    assert_eq!(bytes[..16], plain[..]);
    assert_eq!(ours.rtp_path(), Some((pair().rtp, from)));
    let replayed = media(&mut ours, at, "203.0.113.77:1234", &out[..len]);
    assert_eq!(replayed, Received::Dropped(DropReason::SrtpReplay));
    let len = theirs.write_rtcp(&report(), &mut out).expect("seals");
    assert_eq!(control(&mut ours, at, "203.0.113.77:9", &out[..len]), Received::Rtcp(8));
}

#[test]
fn sealed_nonsense_of_a_newcomer_is_refused_by_name() {
    let ((mut ours, mut theirs), at) = (sealed(), now());
    let mut out = [0; 200];
    let short_nack = [0x81, 205, 0, 2, 0, 0, 0, 5, 0, 0, 0, 6];
    let len = theirs.write_rtcp(&short_nack, &mut out).expect("seals");
    let received = control(&mut ours, at, "192.0.2.9:9", &out[..len]);
    assert_eq!(received, Received::Dropped(DropReason::RtcpMalformed));
    assert_eq!(ours.rtcp_path(), None);
}

#[test]
fn the_end_of_a_key_is_told_once_and_before_it_comes() {
    let mut declared_key = key(101);
    declared_key.lifetime = Some(80);
    let mut ours = started(Remote { keys: Some((key(1), declared_key)), ..learning() });
    let (_, mut theirs) = sealed();
    let at = now();
    let mut out = [0; 200];
    let mut told = Vec::new();
    for sequence in 1..=80 {
        let plain = packet(FORMAT, sequence);
        let index = u64::from(sequence);
        let len = theirs.write_rtp(&plain[..12], &plain[12..], index, &mut out).expect("seals");
        assert_eq!(media(&mut ours, at, "192.0.2.9:9", &out[..len]), Received::Rtp(16));
        while let Some(event) = ours.poll_event() {
            told.push((sequence, event));
        }
    }
    assert_eq!(told, [(1, Event::Learnt(Channel::Rtp)), (70, Event::KeySoftLimit)]);
}

#[test]
fn the_end_of_our_own_key_is_told_too() {
    let (mut ours, _) = sealed();
    let index = (1 << 48) - (1 << 15);
    let plain = packet(FORMAT, index as u16);
    ours.write_rtp(&plain[..12], &plain[12..], index, &mut [0; 200]).expect("seals");
    assert_eq!(ours.poll_event(), Some(Event::KeySoftLimit));
    assert_eq!(ours.poll_event(), None);
}

#[test]
fn a_packet_that_does_not_fit_is_not_sent() {
    let mut session = started(declared());
    let plain = packet(FORMAT, 1);
    for room in 0..16 {
        let mut out = vec![0; room];
        assert_eq!(session.write_rtp(&plain[..12], &plain[12..], 1, &mut out), None);
    }
    assert_eq!(session.write_rtp(&plain[..12], &plain[12..], 1, &mut [0; 16]), Some(16));
    assert_eq!(session.write_rtcp(&report(), &mut [0; 7]), None);
}

#[test]
fn a_peer_whose_name_is_looked_up_is_nowhere_until_it_is_known() {
    let named = Remote {
        address: None,
        rtp: None,
        rtcp: None,
        awaited: Some((7_000, Some(7_001))),
        ..declared()
    };
    let (mut session, at) = (started(named), now());
    assert_eq!(media(&mut session, at, "192.0.2.9:4000", &packet(FORMAT, 1)), UNEXPECTED);
    session.handle_resolved(Some(address("192.0.2.9:0").ip()));
    let told: Vec<_> = std::iter::from_fn(|| session.poll_event()).collect();
    assert_eq!(told, [Event::Learnt(Channel::Rtp), Event::Learnt(Channel::Rtcp)]);
    assert_eq!(session.rtp_path(), Some((pair().rtp, address("192.0.2.9:7000"))));
    assert_eq!(session.rtcp_path(), Some((pair().rtcp, address("192.0.2.9:7001"))));
    assert_eq!(media(&mut session, at, "203.0.113.5:7000", &packet(FORMAT, 1)), UNEXPECTED);
    let from = "192.0.2.9:4000";
    assert_eq!(media(&mut session, at, from, &packet(FORMAT, 1)), Received::Rtp(16));
    session.handle_resolved(Some(address("203.0.113.5:0").ip()));
    assert_eq!(session.rtp_path(), Some((pair().rtp, address("192.0.2.9:7000"))), "asked once");
}

#[test]
fn a_name_that_nobody_knows_or_that_means_everybody_is_sent_nothing() {
    for answer in [None, Some("0.0.0.0:0"), Some("224.0.0.1:0")] {
        let named = Remote {
            address: None,
            rtp: None,
            rtcp: None,
            awaited: Some((7_000, None)),
            ..declared()
        };
        let (mut session, at) = (started(named), now());
        session.handle_resolved(answer.map(|text| address(text).ip()));
        assert_eq!((session.rtp_path(), session.poll_event()), (None, None));
        let from = "192.0.2.9:4000";
        assert_eq!(media(&mut session, at, from, &packet(FORMAT, 1)), Received::Rtp(16));
    }
}
