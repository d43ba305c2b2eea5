use std::time::Duration;

use rivero::transport::webrtc::{Event, RemoteParameters};
use rivero::transport::{DtlsRole, DtlsState, Fingerprint};

use super::driver::{Driver, now};

fn parameters(of: &Driver, role: DtlsRole) -> RemoteParameters {
    let fingerprint = Fingerprint::parse("sha-256", of.certificate.fingerprint()).expect("parses");
    RemoteParameters {
        ufrag: of.session.ufrag().to_owned(),
        pwd: of.session.pwd().to_owned(),
        fingerprints: vec![fingerprint],
        role,
    }
}

#[test]
fn two_sessions_connect_over_loopback_sockets() {
    let (mut offerer, mut answerer) = (Driver::new(true), Driver::new(false));
    let began = now();
    let deadline = began + Duration::from_secs(20);
    let to_offerer = parameters(&answerer, DtlsRole::Server);
    let to_answerer = parameters(&offerer, DtlsRole::Client);
    for line in answerer.session.local_candidates() {
        offerer.session.add_remote_candidate(began, &line).expect("reads");
    }
    offerer.session.start(began, to_offerer).expect("starts");
    answerer.session.start(began, to_answerer).expect("starts");
    let connected = |driver: &Driver| driver.events.contains(&Event::Dtls(DtlsState::Connected));
    let other = std::thread::spawn(move || {
        assert!(answerer.run_until(deadline, connected), "{:?}", answerer.events);
        assert!(answerer.run_until(deadline, |driver| !driver.packets.is_empty()));
        answerer.packets.remove(0)
    });
    assert!(offerer.run_until(deadline, connected), "{:?}", offerer.events);
    let header = [0x80, 96, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7];
    for sequence in 1..=10_u8 {
        let mut header = header;
        header[3] = sequence;
        offerer.send(&header, b"frame", u64::from(sequence));
        // The other side may still be busy with the last flight; media before it is dropped.
        offerer.run_until(now() + Duration::from_millis(20), |_| false);
    }
    let packet = other.join().expect("the answerer saw a packet");
    assert_eq!(packet[12..], b"frame"[..]);
}
