//! DTLS 1.2 (RFC 6347) over the endpoint of `rtc`, for SRTP keys (RFC 5764) and for SCTP (RFC 8261).
//!
//! What surrounds the library here:
//! * As server, AES-GCM is made to happen although browsers list it behind AES-CM: the handshake is
//!   tried with GCM alone, and if the client knows none, tried anew with CM over the kept datagrams.
//! * A [`filter`] keeps away what a handshake has already consumed, for it would stop the library's
//!   retransmission timer, and what no handshake needs, for the library would hoard it.
//! * Retransmissions begin after half a round trip, as ICE measured it, or after 200 ms, and back off,
//!   where the library repeats at one interval and gives up early: so not all of them are the library's.
//!   But the first are, for its records have new numbers: a peer whose answer was lost does not look at
//!   records that it has seen.
//! * Without data channels the library is let go when the handshake is over; what remains is [`asleep`].
//! * The association hangs on a constant address, so a change of the ICE pair does not touch it.
//! * The peer is who its fingerprint says (RFC 8122); chains and names mean nothing here.

mod asleep;
mod filter;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::dtls::cipher_suite::CipherSuiteId;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, HandshakeConfig};
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;

use super::certificate::{Certificate, Fingerprint, trusted};
use super::srtp::{Keys, Profile, Receiver, Sender};
use super::{DropReason, TransportError};
use asleep::Asleep;
use filter::Filter;

/// Who begins the handshake (RFC 8842 §5.3: the active side is the client).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DtlsRole {
    Client,
    Server,
}

/// The association's state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DtlsState {
    New,
    Connecting,
    Connected,
    Closed,
    Failed,
}

/// Stands for the peer wherever the library wants an address.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9));
/// Before the first retransmission of a flight, while no round trip is known; else it is half of that, as
/// browsers repeat, and no less than the second of these: somebody waits for a picture, and a flight is small.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(200);
const SOONEST_RETRANSMISSION: Duration = Duration::from_millis(50);
/// Of these repetitions the library makes new records, and more than so many it does not bear; in all
/// others, what it sent last is sent as it was.
const BY_LIBRARY: [u32; 7] = [1, 2, 3, 4, 6, 9, 13];
/// Over a way that takes so long there and back a flight is sent twice at once: it is small, and waiting for
/// the repetition of one that was lost is long.
const FAR: Duration = Duration::from_millis(40);
/// So many repetitions follow each other after the same pause, before it becomes twice as long.
const SAME_PAUSE: u32 = 2;
const SLOWEST_RETRANSMISSION: Duration = Duration::from_secs(2);
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// How long the library stays after a handshake: until then the peer may repeat its last flight.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two records that an association is woken for.
const REST: Duration = Duration::from_millis(100);
/// What of a client's first flight is kept for another attempt.
const KEPT_LIMIT: usize = 16 * 1024;
/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// What a server accepts, one list after the other; of each the client's first choice is taken.
const SERVER_ATTEMPTS: [&[SrtpProtectionProfile]; 3] = [
    &[SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm],
    &[SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm],
    &[SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80],
];
/// What a client offers, best first.
const CLIENT_OFFER: &[SrtpProtectionProfile] = &[
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];
const CIPHER_SUITES: [CipherSuiteId; 4] = [
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_ChaCha20_Poly1305_Sha256,
];

/// One association, from the first flight to close_notify.
pub(super) struct Dtls {
    role: DtlsRole,
    certificate: Arc<Certificate>,
    fingerprints: Arc<[Fingerprint]>,
    /// None while it sleeps, and when all is over.
    endpoint: Option<Box<Endpoint>>,
    asleep: Option<Box<Asleep>>,
    woken_at: Option<Instant>,
    /// When it falls asleep for the first time.
    sleeps_at: Option<Instant>,
    filter: Filter,
    state: DtlsState,
    outgoing: VecDeque<BytesMut>,
    keys: Option<Box<(Sender, Receiver)>>,
    /// It carries data, so that it never sleeps.
    carries_data: bool,
    /// Whether an association without SRTP will do.
    data_only: bool,
    /// What the peer sent over the association.
    incoming: VecDeque<BytesMut>,
    /// The server's place in [`SERVER_ATTEMPTS`], and the datagrams for the next one.
    attempt: usize,
    kept: Vec<BytesMut>,
    /// Before the first retransmission of a flight.
    first: Duration,
    far: bool,
    /// The present flight, and how often it was repeated.
    flight: Vec<BytesMut>,
    repeated: u32,
    retransmit_at: Option<Instant>,
    give_up_at: Option<Instant>,
}

impl Dtls {
    /// A server listens at once; a client begins at [`Dtls::connect`].
    pub(super) fn new(
        certificate: Arc<Certificate>,
        role: DtlsRole,
        fingerprints: Vec<Fingerprint>,
    ) -> Result<Self, TransportError> {
        let fingerprints: Arc<[Fingerprint]> = fingerprints.into();
        let endpoint = match role {
            DtlsRole::Client => Endpoint::new(PEER, TransportProtocol::UDP, None),
            DtlsRole::Server => server(&certificate, &fingerprints, SERVER_ATTEMPTS[0])?,
        };
        Ok(Self {
            role,
            certificate,
            fingerprints,
            endpoint: Some(Box::new(endpoint)),
            asleep: None,
            woken_at: None,
            sleeps_at: None,
            filter: Filter::default(),
            state: DtlsState::New,
            outgoing: VecDeque::new(),
            keys: None,
            carries_data: false,
            data_only: false,
            incoming: VecDeque::new(),
            attempt: 0,
            kept: Vec::new(),
            first: FIRST_RETRANSMISSION,
            far: false,
            flight: Vec::new(),
            repeated: 0,
            retransmit_at: None,
            give_up_at: None,
        })
    }

    /// How long an answer takes at least, if that is known.
    pub(super) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip {
            let before = self.pause();
            self.far = round_trip >= FAR;
            self.first = (round_trip / 2).clamp(SOONEST_RETRANSMISSION, SLOWEST_RETRANSMISSION);
            // It may become known while a flight is under way.
            let sooner = before.saturating_sub(self.pause());
            self.retransmit_at = self.retransmit_at.map(|at| at - sooner);
        }
    }

    /// How long the present flight is waited for before it is repeated.
    fn pause(&self) -> Duration {
        (self.first * (1 << (self.repeated / SAME_PAUSE).min(8))).min(SLOWEST_RETRANSMISSION)
    }

    /// Data channels go over the association. If they are `alone`, without media, peers need not know SRTP.
    pub(super) fn carry_data(&mut self, alone: bool) {
        self.carries_data = true;
        self.data_only = alone;
    }

    pub(super) fn state(&self) -> DtlsState {
        self.state
    }

    /// The path to the peer works: a client sends its first flight.
    pub(super) fn connect(&mut self, now: Instant) -> Result<(), TransportError> {
        if self.state != DtlsState::New {
            return Ok(());
        }
        self.begin(now);
        if self.role == DtlsRole::Client
            && let Some(endpoint) = &mut self.endpoint
        {
            let config = config(&self.certificate, &self.fingerprints, self.role, CLIENT_OFFER)?;
            endpoint
                .connect(now, PEER, config, None)
                .map_err(|error| TransportError::Dtls(error.to_string()))?;
            self.send_flight(now);
        }
        Ok(())
    }

    /// Takes a datagram from the peer.
    pub(super) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
        match self.state {
            DtlsState::Closed | DtlsState::Failed => return Err(DropReason::DtlsClosed),
            DtlsState::New if self.role == DtlsRole::Server => self.begin(now),
            // A client that has not spoken expects nothing.
            DtlsState::New => return Err(DropReason::DtlsMalformed),
            DtlsState::Connecting | DtlsState::Connected => {}
        }
        let datagram = self.filter.pass(bytes)?;
        let (repeated, others) = filter::repeats(&datagram);
        let has_all = self.state == DtlsState::Connected && self.role == DtlsRole::Client;
        if has_all && repeated && !others {
            // The server's last flight once more. The library would answer, and the server answer that.
            return Err(DropReason::DtlsRepeated);
        }
        let answers = self.role == DtlsRole::Server
            && self.state == DtlsState::Connecting
            && self.attempt + 1 < SERVER_ATTEMPTS.len();
        if answers {
            let size: usize = self.kept.iter().map(BytesMut::len).sum();
            if size + datagram.len() > KEPT_LIMIT {
                return Err(DropReason::DtlsFlood);
            }
            self.kept.push(datagram.clone());
        }
        if self.asleep.is_some() && !self.stir(now, &datagram)? {
            return Ok(());
        }
        let sealed = self.state == DtlsState::Connected;
        let said = self.outgoing.len();
        let news = self.read(now, datagram);
        // The library is silent about what it cannot open.
        let opened = news || self.state != DtlsState::Connected || self.outgoing.len() > said;
        self.rest(now);
        match sealed && !opened {
            true if repeated && !others => Err(DropReason::DtlsRepeated),
            true => Err(DropReason::DtlsAuthentication),
            false => Ok(()),
        }
    }

    /// Whether the present flight is on its way again.
    pub(super) fn is_repeating(&self) -> bool {
        self.repeated > 0
    }

    pub(super) fn poll_transmit(&mut self) -> Option<BytesMut> {
        let datagram = self.outgoing.pop_front();
        if self.outgoing.is_empty() {
            self.outgoing = VecDeque::new();
        }
        datagram
    }

    /// What the peer sent over the association, datagram by datagram.
    pub(super) fn poll_data(&mut self) -> Option<BytesMut> {
        self.incoming.pop_front()
    }

    /// Sends a datagram over the association, if there is one.
    pub(super) fn send(&mut self, now: Instant, bytes: &[u8]) {
        if let (DtlsState::Connected, Some(endpoint)) = (self.state, &mut self.endpoint) {
            if let Err(error) = endpoint.write(now, PEER, bytes) {
                tracing::debug!(%error, "nothing sent over DTLS");
            }
            self.take_transmits();
        }
    }

    /// The keys of a finished handshake, once.
    pub(super) fn take_keys(&mut self) -> Option<(Sender, Receiver)> {
        self.keys.take().map(|keys| *keys)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            DtlsState::Connecting => self.retransmit_at.into_iter().chain(self.give_up_at).min(),
            DtlsState::Connected => self.sleeps_at,
            _ => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.state == DtlsState::Connected {
            self.rest(now);
        }
        if self.state != DtlsState::Connecting {
            return;
        }
        if self.give_up_at.is_some_and(|due| due <= now) {
            self.state = DtlsState::Failed;
            self.rest(now);
            return;
        }
        if self.retransmit_at.is_none_or(|due| now < due) {
            return;
        }
        self.repeated += 1;
        self.retransmit_at = Some(now + self.pause());
        // The library's own timer runs ahead of the back-off kept here, or does not run at all.
        let due = self.endpoint.as_ref().and_then(|endpoint| endpoint.poll_timeout(&PEER));
        if let Some(due) = due.filter(|_| BY_LIBRARY.contains(&self.repeated))
            && let Some(endpoint) = &mut self.endpoint
        {
            let result = endpoint.handle_timeout(PEER, now.max(due));
            if let Err(error) = result {
                self.take_transmits();
                self.fail(&error);
                self.rest(now);
                return;
            }
            if self.take_transmits() {
                return;
            }
        }
        self.outgoing.extend(self.flight.iter().cloned());
    }

    /// Says goodbye.
    pub(super) fn close(&mut self, now: Instant) {
        if matches!(self.state, DtlsState::Connecting | DtlsState::Connected) {
            self.wake(now);
            if let Some(endpoint) = &mut self.endpoint {
                endpoint.stop(now, PEER);
            }
            self.take_transmits();
        }
        self.state = DtlsState::Closed;
        self.rest(now);
    }

    /// Looks at a datagram for an association that sleeps; whether it was woken to read it.
    fn stir(&mut self, now: Instant, datagram: &[u8]) -> Result<bool, DropReason> {
        let (repeated, others) = filter::repeats(datagram);
        if let Some(asleep) = self.asleep.as_mut().filter(|_| repeated) {
            let flight = asleep.repeat();
            if flight.is_empty() && !others {
                return Err(DropReason::DtlsRepeated);
            }
            self.outgoing.extend(flight.iter().cloned());
        }
        if !others {
            return Ok(false);
        }
        // It costs as much as twenty records, and what is not authentic costs as much.
        if self.woken_at.is_some_and(|at| now.saturating_duration_since(at) < REST) {
            return Err(DropReason::DtlsFlood);
        }
        self.woken_at = Some(now);
        self.wake(now);
        Ok(self.endpoint.is_some())
    }

    fn wake(&mut self, now: Instant) {
        let Some(asleep) = &self.asleep else { return };
        let config = config(&self.certificate, &self.fingerprints, self.role, CLIENT_OFFER).ok();
        let woken = config.and_then(|config| asleep.wake(now, &self.certificate, config));
        self.endpoint = woken.map(Box::new);
    }

    /// Lets go of what is needed no more.
    fn rest(&mut self, now: Instant) {
        match self.state {
            DtlsState::New | DtlsState::Connecting => {}
            DtlsState::Closed | DtlsState::Failed => {
                self.endpoint = None;
                self.asleep = None;
                self.kept = Vec::new();
                self.flight = Vec::new();
            }
            DtlsState::Connected if self.carries_data => {}
            DtlsState::Connected if self.sleeps_at.is_some_and(|at| now < at) => {}
            DtlsState::Connected => {
                self.sleeps_at = None;
                let Some(endpoint) = &self.endpoint else { return };
                // The server's flight is the last: a client has no answer to wait for.
                let flight = std::mem::take(&mut self.flight);
                let flight = if self.role == DtlsRole::Server { &flight[..] } else { &[] };
                let asleep = match self.asleep.take() {
                    Some(asleep) => (*asleep).renewed(endpoint),
                    None => Asleep::of(endpoint, flight),
                };
                if let Some(asleep) = asleep {
                    self.asleep = Some(Box::new(asleep));
                    self.endpoint = None;
                    self.incoming.shrink_to_fit();
                }
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        self.state = DtlsState::Connecting;
        self.give_up_at = Some(now + HANDSHAKE_LIMIT);
    }

    /// Whether the library made anything of it.
    fn read(&mut self, now: Instant, datagram: BytesMut) -> bool {
        let mut news = false;
        let Some(endpoint) = &mut self.endpoint else { return false };
        match endpoint.read(now, PEER, None, datagram) {
            Ok(events) => {
                self.send_flight(now);
                news = !events.is_empty();
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            self.complete();
                            self.sleeps_at = (!self.carries_data).then(|| now + SETTLED);
                        }
                        EndpointEvent::PeerClosed => self.state = DtlsState::Closed,
                        EndpointEvent::ApplicationData(data) => self.incoming.push_back(data),
                        _ => {}
                    }
                }
            }
            Err(Error::ErrServerNoMatchingSrtpProfile)
                if self.attempt + 1 < SERVER_ATTEMPTS.len() =>
            {
                self.attempt_next(now);
            }
            Err(error) => {
                // What is queued is the alert that tells the peer why.
                self.take_transmits();
                self.fail(&error);
            }
        }
        news
    }

    /// Begins the handshake anew with the next profiles; the alert of the last attempt stays unsent.
    fn attempt_next(&mut self, now: Instant) {
        self.attempt += 1;
        match server(&self.certificate, &self.fingerprints, SERVER_ATTEMPTS[self.attempt]) {
            Ok(endpoint) => self.endpoint = Some(Box::new(endpoint)),
            Err(_) => {
                self.state = DtlsState::Failed;
                return;
            }
        }
        let datagrams = if self.attempt + 1 < SERVER_ATTEMPTS.len() {
            self.kept.clone()
        } else {
            std::mem::take(&mut self.kept)
        };
        let attempt = self.attempt;
        for datagram in datagrams {
            // A further attempt has replayed all of them.
            if self.attempt == attempt && self.state == DtlsState::Connecting {
                self.read(now, datagram);
            }
        }
    }

    fn complete(&mut self) {
        self.keys = self.export().map(Box::new);
        self.kept = Vec::new();
        if self.carries_data {
            self.flight = Vec::new();
        }
        self.filter.complete();
        let will_do = self.keys.is_some() || (self.data_only && self.is_trusted());
        self.state = if will_do { DtlsState::Connected } else { DtlsState::Failed };
        self.retransmit_at = None;
        self.give_up_at = None;
    }

    /// The closure saw the certificate already; that it was asked at all is the library's promise.
    fn is_trusted(&self) -> bool {
        let state = self.endpoint.as_ref().and_then(|one| one.get_connection_state(PEER));
        let shown = state.and_then(|state| state.peer_certificates.first());
        shown.is_some_and(|shown| trusted(&self.fingerprints, shown))
    }

    fn export(&self) -> Option<(Sender, Receiver)> {
        if !self.is_trusted() {
            return None;
        }
        let state = self.endpoint.as_ref()?.get_connection_state(PEER)?;
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Profile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => Profile::AeadAes256Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Profile::Aes128CmHmacSha1_80,
            _ => return None,
        };
        let material =
            state.export_keying_material(EXPORTER_LABEL, &[], profile.exporter_len()).ok()?;
        let keys = Keys::from_exporter(profile, material.as_ref()).ok()?;
        keys.into_pair(self.role == DtlsRole::Client).ok()
    }

    fn fail(&mut self, error: &Error) {
        tracing::debug!(%error, "DTLS failed");
        self.state = match error {
            Error::ErrAlertFatalOrClose if self.state == DtlsState::Connected => DtlsState::Closed,
            _ => DtlsState::Failed,
        };
        self.retransmit_at = None;
    }

    /// Takes what an input made the library send. A flight of a handshake is retransmitted from now on.
    fn send_flight(&mut self, now: Instant) {
        let before = self.outgoing.len();
        if self.take_transmits() && self.state == DtlsState::Connecting {
            self.flight.clear();
            self.flight.extend(self.outgoing.iter().skip(before).cloned());
            if self.far {
                self.outgoing.extend(self.flight.iter().cloned());
            }
            self.repeated = 0;
            self.retransmit_at = Some(now + self.pause());
            if self.role == DtlsRole::Server {
                // The client's profiles were matched: no other attempt will be needed.
                self.kept = Vec::new();
                self.attempt = SERVER_ATTEMPTS.len();
            }
        }
    }

    fn take_transmits(&mut self) -> bool {
        let before = self.outgoing.len();
        let Some(endpoint) = &mut self.endpoint else { return false };
        while let Some(transmit) = endpoint.poll_transmit() {
            self.outgoing.push_back(transmit.message);
        }
        self.outgoing.len() > before
    }
}

fn server(
    certificate: &Certificate,
    fingerprints: &Arc<[Fingerprint]>,
    profiles: &[SrtpProtectionProfile],
) -> Result<Endpoint, TransportError> {
    let config = config(certificate, fingerprints, DtlsRole::Server, profiles)?;
    Ok(Endpoint::new(PEER, TransportProtocol::UDP, Some(config)))
}

fn config(
    certificate: &Certificate,
    fingerprints: &Arc<[Fingerprint]>,
    role: DtlsRole,
    profiles: &[SrtpProtectionProfile],
) -> Result<Arc<HandshakeConfig>, TransportError> {
    let fingerprints = fingerprints.clone();
    let verify = move |shown: &[Vec<u8>], _: &[_]| match shown.first() {
        Some(der) if trusted(&fingerprints, der) => Ok(()),
        _ => Err(Error::Other("the certificate has none of the announced fingerprints".to_owned())),
    };
    ConfigBuilder::default()
        .with_crypto_provider(certificate.provider.clone())
        .with_certificates(vec![certificate.identity.clone()])
        .with_cipher_suites(CIPHER_SUITES.to_vec())
        .with_srtp_protection_profiles(profiles.to_vec())
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        // Certificates are self-signed: authorities have no say, the closure below has.
        .with_insecure_skip_verify(true)
        .with_verify_peer_certificate(Some(Arc::new(verify)))
        .with_flight_interval(FIRST_RETRANSMISSION)
        .with_server_name("localhost".to_owned())
        .build(role == DtlsRole::Client, None)
        .map(Arc::new)
        .map_err(|error| TransportError::Dtls(error.to_string()))
}

#[cfg(test)]
mod tests;
