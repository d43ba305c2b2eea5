use super::*;
use crate::transport::certificate::KeyKind;

/// The kind of records of the handshake.
const HANDSHAKE: u8 = 22;

#[expect(clippy::disallowed_methods, reason = "simulated time needs some origin")]
fn origin() -> Instant {
    Instant::now()
}

struct Identity {
    certificate: Arc<Certificate>,
    fingerprints: Vec<Fingerprint>,
}

fn identity() -> Identity {
    let certificate = Arc::new(Certificate::generate(KeyKind::Ecdsa).expect("generates"));
    let own = Fingerprint::parse("sha-256", certificate.fingerprint()).expect("parses");
    Identity { certificate, fingerprints: vec![own] }
}

fn dtls(ours: &Identity, theirs: &Identity, role: DtlsRole) -> Dtls {
    Dtls::new(ours.certificate.clone(), role, theirs.fingerprints.clone()).expect("is made")
}

/// The bare library as the peer, with the profiles it knows.
fn bare(
    ours: &Identity,
    theirs: &Identity,
    role: DtlsRole,
    profiles: &[SrtpProtectionProfile],
) -> Endpoint {
    let fingerprints: Arc<[Fingerprint]> = theirs.fingerprints.clone().into();
    let config = config(&ours.certificate, &fingerprints, role, profiles).expect("builds");
    match role {
        DtlsRole::Server => Endpoint::new(PEER, TransportProtocol::UDP, Some(config)),
        DtlsRole::Client => {
            let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
            endpoint.connect(origin(), PEER, config, None).expect("connects");
            endpoint
        }
    }
}

/// Exchanges datagrams until neither side has any; true if the bare side finished.
fn exchange(now: Instant, ours: &mut Dtls, bare: &mut Endpoint) -> bool {
    let mut finished = false;
    loop {
        let mut quiet = true;
        while let Some(transmit) = bare.poll_transmit() {
            quiet = false;
            let _ = ours.handle_datagram(now, &transmit.message);
        }
        while let Some(datagram) = ours.poll_transmit() {
            quiet = false;
            for event in bare.read(now, PEER, None, datagram).unwrap_or_default() {
                finished |= matches!(event, EndpointEvent::HandshakeComplete);
            }
        }
        if quiet {
            return finished;
        }
    }
}

#[test]
fn the_profile_is_the_best_that_both_know() {
    use SrtpProtectionProfile::{
        Srtp_Aead_Aes_128_Gcm as Gcm128, Srtp_Aead_Aes_256_Gcm as Gcm256,
        Srtp_Aes128_Cm_Hmac_Sha1_80 as Cm,
    };
    let cases: [(&[SrtpProtectionProfile], Option<Profile>); 6] = [
        (&[Cm], Some(Profile::Aes128CmHmacSha1_80)),
        (&[Cm, Gcm256, Gcm128], Some(Profile::AeadAes128Gcm)),
        (&[Cm, Gcm256], Some(Profile::AeadAes256Gcm)),
        (&[Gcm128], Some(Profile::AeadAes128Gcm)),
        (&[SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32], None),
        (&[], None),
    ];
    let (us, them, now) = (identity(), identity(), origin());
    for (profiles, expected) in cases {
        let mut ours = dtls(&us, &them, DtlsRole::Server);
        let mut peer = bare(&them, &us, DtlsRole::Client, profiles);
        exchange(now, &mut ours, &mut peer);
        let profile = ours.take_keys().map(|(sender, _)| sender.profile());
        assert_eq!(profile, expected, "as server, for a client with {profiles:?}");
        let connected = ours.state() == DtlsState::Connected;
        assert_eq!(connected, expected.is_some());
        assert!(connected || ours.state() == DtlsState::Failed);
    }
    for (profiles, expected) in [
        (&[Cm][..], Profile::Aes128CmHmacSha1_80),
        (&[Cm, Gcm128, Gcm256], Profile::AeadAes128Gcm),
        (&[Gcm256], Profile::AeadAes256Gcm),
    ] {
        let mut ours = dtls(&us, &them, DtlsRole::Client);
        let mut peer = bare(&them, &us, DtlsRole::Server, profiles);
        ours.connect(now).expect("connects");
        assert!(exchange(now, &mut ours, &mut peer));
        let (sender, _) = ours.take_keys().expect("connected");
        assert_eq!(sender.profile(), expected, "as client, at a server with {profiles:?}");
    }
}

/// Cuts the handshake message of a one-record datagram into two datagrams.
fn fragment(datagram: &[u8], at: usize) -> [Vec<u8>; 2] {
    let (header, body) = datagram.split_at(13);
    let (message, content) = body.split_at(12);
    let piece = |number: u8, offset: usize, part: &[u8]| {
        let mut piece = header.to_vec();
        // Far enough from the records that follow, yet within the replay window.
        piece[10] += number;
        piece[11..13].copy_from_slice(&(12 + part.len() as u16).to_be_bytes());
        piece.extend(&message[..6]);
        piece.extend(&(offset as u32).to_be_bytes()[1..]);
        piece.extend(&(part.len() as u32).to_be_bytes()[1..]);
        piece.extend(part);
        piece
    };
    [piece(0, 0, &content[..at]), piece(40, at, &content[at..])]
}

#[test]
fn a_client_hello_in_two_datagrams_is_understood() {
    let (us, them, now) = (identity(), identity(), origin());
    for known in [SERVER_ATTEMPTS[0], SERVER_ATTEMPTS[2]] {
        for reversed in [false, true] {
            let mut ours = dtls(&us, &them, DtlsRole::Server);
            let mut peer = bare(&them, &us, DtlsRole::Client, known);
            let hello = peer.poll_transmit().expect("begins").message;
            let mut pieces = fragment(&hello, 70);
            if reversed {
                pieces.reverse();
            }
            for piece in pieces {
                ours.handle_datagram(now, &piece).expect("is admitted");
            }
            exchange(now, &mut ours, &mut peer);
            assert_eq!(ours.state(), DtlsState::Connected);
        }
    }
}

#[test]
fn a_client_without_certificate_is_refused() {
    let (us, them, now) = (identity(), identity(), origin());
    let mut ours = dtls(&us, &them, DtlsRole::Server);
    let naked = ConfigBuilder::default()
        .with_crypto_provider(them.certificate.provider.clone())
        .with_srtp_protection_profiles(CLIENT_OFFER.to_vec())
        .with_insecure_skip_verify(true)
        .build(true, None)
        .expect("builds");
    let mut peer = Endpoint::new(PEER, TransportProtocol::UDP, None);
    peer.connect(now, PEER, Arc::new(naked), None).expect("connects");
    exchange(now, &mut ours, &mut peer);
    assert_eq!(ours.state(), DtlsState::Failed);
    assert!(ours.take_keys().is_none());
}

#[test]
fn another_certificate_is_refused_in_both_roles() {
    let (us, them, stranger, now) = (identity(), identity(), identity(), origin());
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let other = match role {
            DtlsRole::Server => DtlsRole::Client,
            DtlsRole::Client => DtlsRole::Server,
        };
        let mut ours = dtls(&us, &them, role);
        let mut peer = bare(&stranger, &us, other, CLIENT_OFFER);
        if role == DtlsRole::Client {
            ours.connect(now).expect("connects");
        }
        exchange(now, &mut ours, &mut peer);
        assert_eq!(ours.state(), DtlsState::Failed, "{role:?}");
        assert!(ours.take_keys().is_none());
    }
}

#[test]
fn retransmissions_back_off_and_end() {
    let (us, them, began) = (identity(), identity(), origin());
    let mut ours = dtls(&us, &them, DtlsRole::Client);
    ours.connect(began).expect("connects");
    let mut sent = vec![];
    let mut now = began;
    loop {
        while ours.poll_transmit().is_some() {
            sent.push((now - began).as_millis());
        }
        let Some(due) = ours.poll_timeout() else {
            break;
        };
        assert!(due > now, "a timer in the past spins");
        now = due;
        ours.handle_timeout(now);
    }
    assert_eq!(sent[..9], [0, 200, 400, 800, 1_200, 2_000, 2_800, 4_400, 6_000]);
    assert!(sent[8..].windows(2).all(|two| two[1] - two[0] == 2_000), "{sent:?}");
    assert_eq!(sent.last(), Some(&28_000), "as long as a handshake may take");
    assert_eq!(ours.state(), DtlsState::Failed);
}

#[test]
fn a_flight_over_a_long_way_leaves_twice() {
    let (us, them, now) = (identity(), identity(), origin());
    for (ms, times) in [(39, 1), (40, 2)] {
        let mut ours = dtls(&us, &them, DtlsRole::Client);
        ours.set_round_trip(Some(Duration::from_millis(ms)));
        ours.connect(now).expect("connects");
        let sent: Vec<_> = std::iter::from_fn(|| ours.poll_transmit()).collect();
        assert_eq!(sent.len(), times);
        assert_eq!(sent.first(), sent.last());
        // A peer makes of it what it makes of one.
        let mut ours = dtls(&us, &them, DtlsRole::Client);
        ours.set_round_trip(Some(Duration::from_millis(ms)));
        let mut peer = bare(&them, &us, DtlsRole::Server, CLIENT_OFFER);
        ours.connect(now).expect("connects");
        assert!(exchange(now, &mut ours, &mut peer));
        assert_eq!(ours.state(), DtlsState::Connected);
    }
}

#[test]
fn a_client_does_not_answer_a_last_flight_that_comes_again() {
    let (us, them, now) = (identity(), identity(), origin());
    let mut ours = dtls(&us, &them, DtlsRole::Client);
    let mut peer = bare(&them, &us, DtlsRole::Server, CLIENT_OFFER);
    ours.connect(now).expect("connects");
    let mut finished = false;
    while !finished {
        while let Some(transmit) = peer.poll_transmit() {
            ours.handle_datagram(now, &transmit.message).expect("is wanted");
        }
        while let Some(datagram) = ours.poll_transmit() {
            for event in peer.read(now, PEER, None, datagram).expect("reads") {
                finished |= matches!(event, EndpointEvent::HandshakeComplete);
            }
        }
    }
    // The server's last flight is late, so it is asked for and comes once more.
    let mut late = vec![];
    for _ in 0..2 {
        late.extend(std::iter::from_fn(|| peer.poll_transmit()));
        ours.handle_timeout(ours.poll_timeout().expect("repeats"));
        while let Some(datagram) = ours.poll_transmit() {
            peer.read(now, PEER, None, datagram).expect("reads");
        }
    }
    let (wanted, repeated) = late.split_at(late.len() / 2);
    assert!(!repeated.is_empty());
    for transmit in wanted {
        ours.handle_datagram(now, &transmit.message).expect("is wanted");
    }
    assert_eq!(ours.state(), DtlsState::Connected);
    for transmit in repeated {
        let refused = ours.handle_datagram(now, &transmit.message);
        assert_eq!(refused, Err(DropReason::DtlsRepeated));
    }
    assert_eq!(ours.poll_transmit(), None);
}

/// Epoch and number of each record in a datagram.
fn records(mut datagram: &[u8]) -> Vec<[u8; 8]> {
    let mut numbers = vec![];
    while let Some((header, rest)) = datagram.split_at_checked(13) {
        numbers.push(header[3..11].try_into().expect("eight bytes"));
        datagram = &rest[usize::from(u16::from_be_bytes([header[11], header[12]]))..];
    }
    numbers
}

#[test]
fn a_repetition_is_no_replay_to_a_peer_whose_answer_was_lost() {
    let (us, them, now) = (identity(), identity(), origin());
    let mut ours = dtls(&us, &them, DtlsRole::Client);
    let mut peer = bare(&them, &us, DtlsRole::Server, CLIENT_OFFER);
    ours.connect(now).expect("connects");
    let mut seen = vec![];
    // The first flights; all that the peer says last is lost.
    for answered in [true, true, false] {
        let mut finished = false;
        while let Some(datagram) = ours.poll_transmit() {
            seen.extend(records(&datagram));
            for event in peer.read(now, PEER, None, datagram).expect("reads") {
                finished |= matches!(event, EndpointEvent::HandshakeComplete);
            }
        }
        assert_eq!(finished, !answered);
        while let Some(transmit) = peer.poll_transmit() {
            if answered {
                ours.handle_datagram(now, &transmit.message).expect("is admitted");
            }
        }
    }
    for _ in 0..3 {
        let now = ours.poll_timeout().expect("waits for the answer");
        ours.handle_timeout(now);
        let again: Vec<_> = std::iter::from_fn(|| ours.poll_transmit()).collect();
        assert!(!again.is_empty());
        for number in again.iter().flat_map(|datagram| records(datagram)) {
            assert!(!seen.contains(&number), "{number:?} again");
            seen.push(number);
        }
    }
}

/// Two sides that finished the handshake, and ours in `role`.
fn connected(role: DtlsRole) -> (Dtls, Endpoint) {
    let (us, them, now) = (identity(), identity(), origin());
    let mut ours = dtls(&us, &them, role);
    let mut peer = match role {
        DtlsRole::Server => bare(&them, &us, DtlsRole::Client, CLIENT_OFFER),
        DtlsRole::Client => bare(&them, &us, DtlsRole::Server, CLIENT_OFFER),
    };
    ours.connect(now).expect("connects");
    assert!(exchange(now, &mut ours, &mut peer));
    assert_eq!(ours.state(), DtlsState::Connected);
    assert!(ours.asleep.is_none());
    let due = ours.poll_timeout().expect("it falls asleep");
    ours.handle_timeout(due);
    assert_eq!(ours.poll_timeout(), None);
    (ours, peer)
}

#[test]
fn what_sleeps_hears_a_goodbye_and_says_it() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let now = origin();
        let (mut ours, mut peer) = connected(role);
        assert!(ours.endpoint.is_none() && ours.asleep.is_some(), "it sleeps");
        assert!(ours.take_keys().is_some());
        peer.stop(now, PEER);
        let goodbye = peer.poll_transmit().expect("says goodbye").message;
        assert_eq!(ours.handle_datagram(now, &goodbye), Ok(()));
        assert_eq!(ours.state(), DtlsState::Closed);
        assert!(ours.poll_transmit().is_some(), "it is answered");

        let (mut ours, mut peer) = connected(role);
        ours.close(now);
        let goodbye = ours.poll_transmit().expect("says goodbye");
        let events = peer.read(now, PEER, None, goodbye).expect("is authentic");
        assert!(matches!(events[..], [EndpointEvent::PeerClosed]));
    }
}

#[test]
fn what_carries_data_stays_awake() {
    let (us, them, now) = (identity(), identity(), origin());
    let mut ours = dtls(&us, &them, DtlsRole::Server);
    ours.carry_data(false);
    let mut peer = bare(&them, &us, DtlsRole::Client, CLIENT_OFFER);
    exchange(now, &mut ours, &mut peer);
    peer.write(now, PEER, b"hello").expect("writes");
    exchange(now, &mut ours, &mut peer);
    assert_eq!(ours.poll_data().as_deref(), Some(&b"hello"[..]));
}

#[test]
fn a_last_flight_that_was_lost_is_sent_again_although_all_else_is_gone() {
    let (us, them, mut now) = (identity(), identity(), origin());
    let mut ours = dtls(&us, &them, DtlsRole::Server);
    let mut peer = bare(&them, &us, DtlsRole::Client, CLIENT_OFFER);
    while ours.state() != DtlsState::Connected {
        while let Some(transmit) = peer.poll_transmit() {
            ours.handle_datagram(now, &transmit.message).expect("is wanted");
        }
        if ours.state() != DtlsState::Connected {
            while let Some(datagram) = ours.poll_transmit() {
                peer.read(now, PEER, None, datagram).expect("is wanted");
            }
        }
    }
    ours.handle_timeout(now + SETTLED);
    assert!(ours.asleep.is_some());
    // The last flight is lost, and so is the first repetition of it.
    while ours.poll_transmit().is_some() {}
    for repetition in 0..2 {
        now += Duration::from_secs(5);
        peer.handle_timeout(PEER, now).expect("repeats its flight");
        while let Some(transmit) = peer.poll_transmit() {
            let _ = ours.handle_datagram(now, &transmit.message);
        }
        if repetition == 0 {
            while ours.poll_transmit().is_some() {}
        }
    }
    assert!(exchange(now, &mut ours, &mut peer), "the peer finished");
    // Whoever asks for ever is answered a few times.
    let asks = [&[HANDSHAKE, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 4][..], &[0; 4]].concat();
    let answers = (0..100).filter(|_| ours.handle_datagram(now, &asks).is_ok()).count();
    assert!((1..10).contains(&answers), "{answers}");
}

#[test]
fn forged_records_wake_it_seldom_and_end_nothing() {
    let (mut ours, mut peer) = connected(DtlsRole::Client);
    let mut now = origin() + Duration::from_secs(1);
    let forged = [&[21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 26][..], &[7; 26]].concat();
    assert_eq!(ours.handle_datagram(now, &forged), Err(DropReason::DtlsAuthentication));
    assert_eq!(ours.handle_datagram(now, &forged), Err(DropReason::DtlsFlood));
    assert!(ours.asleep.is_some() && ours.endpoint.is_none());
    now += REST;
    peer.stop(now, PEER);
    let goodbye = peer.poll_transmit().expect("says goodbye").message;
    assert_eq!(ours.handle_datagram(now, &goodbye), Ok(()));
    assert_eq!(ours.state(), DtlsState::Closed);
}
