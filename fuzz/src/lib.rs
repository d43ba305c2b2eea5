//! What several targets share: the local side of a negotiation, and a session whose peer has passed
//! its connectivity check.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use rivero::config::Secret;
use rivero::config::modules::TurnServer;
use rivero::rtp::{Codec, Kind};
use rivero::sdp::{Capabilities, Credentials, Extras, Local};
use rivero::transport::webrtc::{Received, RemoteParameters, Session, Settings};
use rivero::transport::{Certificate, DtlsRole, Fingerprint, KeyKind, Servers};

const COOKIE: u32 = 0x2112_a442;
static CERTIFICATE: LazyLock<Arc<Certificate>> =
    LazyLock::new(|| Arc::new(Certificate::generate(KeyKind::Ecdsa).expect("a certificate")));

pub fn capabilities() -> Capabilities {
    let of = |kind| Codec::ALL.into_iter().filter(|codec| codec.kind() == kind).collect();
    Capabilities {
        audio: of(Kind::Audio),
        video: of(Kind::Video),
        data: true,
        audio_lines: 1,
        video_lines: 1,
        extras: Extras { encodings: 3, estimates: true, ..Extras::FORWARDED },
    }
}

pub fn local() -> Local {
    Local {
        session_id: 3_900_000_000,
        cname: "fuzz".to_owned(),
        fingerprint: "AB:CD".to_owned(),
        credentials: vec![Credentials { ufrag: "abcd".to_owned(), pwd: "p".repeat(22) }],
        ssrcs: (1..=64).collect(),
        rtx_ssrcs: (101..=164).collect(),
    }
}

pub fn now() -> Instant {
    Instant::now()
}

/// A session that asks a TURN server for an address.
pub fn leased() -> Session {
    let settings = Settings { certificate: Arc::clone(&CERTIFICATE), controlling: false };
    let mut session = Session::new(now(), settings).expect("a session");
    let turn = TurnServer {
        user: "user".to_owned(),
        password: Secret::new("password"),
        host: "192.0.2.3".to_owned(),
        port: 3_478,
        transport: None,
    };
    session.gather(now(), Servers { stun: None, turn: Some(turn) });
    session.handle_link_open(now());
    session
}

/// The datagrams that an input stands for: each a length in two bytes, then that many bytes or
/// what is left of them.
pub fn datagrams(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (datagram, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
        bytes = rest;
        Some(datagram)
    })
}

/// A session and the one peer it talks to.
pub struct Exchange {
    now: Instant,
    local: SocketAddr,
    remote: SocketAddr,
    session: Session,
}

impl Exchange {
    /// The peer has passed a connectivity check and may go on with DTLS.
    pub fn validated() -> Self {
        let now = Instant::now();
        let local = SocketAddr::from(([192, 0, 2, 1], 5000));
        let remote = SocketAddr::from(([192, 0, 2, 2], 6000));
        let settings = Settings { certificate: Arc::clone(&CERTIFICATE), controlling: false };
        let mut session = Session::new(now, settings).expect("a session");
        session.add_local_candidate(local).expect("a local candidate");
        let parameters = RemoteParameters {
            ufrag: "peer".to_owned(),
            pwd: "q".repeat(22),
            fingerprints: Fingerprint::parse("sha-256", &["AB"; 32].join(":"))
                .into_iter()
                .collect(),
            role: DtlsRole::Server,
        };
        session.start(now, parameters).expect("a first start");
        let mut exchange = Self { now, local, remote, session };
        let check = connectivity_check(exchange.session.ufrag(), exchange.session.pwd());
        let received = exchange.receive(&check);
        assert!(matches!(received, Received::Nothing), "the check was refused: {received:?}");
        exchange
    }

    pub fn receive(&mut self, datagram: &[u8]) -> Received {
        let mut bytes = datagram.to_vec();
        let received = self.session.handle_datagram(self.now, self.local, self.remote, &mut bytes);
        while self.session.poll_output().is_some() {}
        if let Some(at) = self.session.poll_timeout() {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
        }
        received
    }
}

/// A STUN Binding request that nominates its pair (RFC 8445 §7.2, RFC 8489 §14.5 and §14.7).
fn connectivity_check(ufrag: &str, pwd: &str) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0];
    message.extend(COOKIE.to_be_bytes());
    message.extend([5; 12]);
    attribute(&mut message, 0x0006, format!("{ufrag}:peer").as_bytes());
    attribute(&mut message, 0x0024, &[110, 0, 1, 255]);
    attribute(&mut message, 0x802a, &[3; 8]);
    attribute(&mut message, 0x0025, &[]);
    // Each of the two covers what stands before it, with a length that already counts it.
    set_length(&mut message, 24);
    let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes());
    let integrity = sign(&key, &message);
    attribute(&mut message, 0x0008, integrity.as_ref());
    set_length(&mut message, 8);
    let fingerprint = crc32(&message) ^ 0x5354_554e;
    attribute(&mut message, 0x8028, &fingerprint.to_be_bytes());
    set_length(&mut message, 0);
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - 20 + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 }
        })
    })
}

#[cfg(test)]
mod tests {
    use rivero::transport::DropReason;

    use super::*;

    #[test]
    fn what_the_peer_says_next_is_listened_to() {
        let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0];
        let received = Exchange::validated().receive(&alert);
        assert!(!matches!(received, Received::Dropped(DropReason::UnvalidatedAddress)));
    }
}
