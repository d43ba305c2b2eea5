//! Drives one session over one real socket, as a worker would.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rivero::transport::data_channel::Message;
use rivero::transport::demux::Demux;
use rivero::transport::udp::{Incoming, RecvBatch, SendBatch, UdpSocket};
use rivero::transport::webrtc::{Event, Output, Received, RemoteParameters, Session, Settings};
use rivero::transport::{Certificate, DtlsRole, Fingerprint, KeyKind};
use rtc::peer_connection::sdp::RTCSessionDescription;
use webrtc::peer_connection::PeerConnection;

/// The clock of tests with real sockets.
#[expect(clippy::disallowed_methods, reason = "real sockets live in real time")]
pub fn now() -> Instant {
    Instant::now()
}

pub struct Driver {
    pub session: Session,
    pub certificate: Arc<Certificate>,
    pub events: Vec<Event>,
    pub packets: Vec<Vec<u8>>,
    pub messages: Vec<(u16, Message)>,
    socket: UdpSocket,
    demux: Demux<u8>,
    received: RecvBatch,
    sending: SendBatch,
}

impl Driver {
    pub fn new(controlling: bool) -> Self {
        let certificate = Arc::new(Certificate::generate(KeyKind::Ecdsa).expect("generates"));
        let settings = Settings { certificate: certificate.clone(), controlling };
        let mut session = Session::new(now(), settings).expect("is made");
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
        session.add_local_candidate(socket.local_addr()).expect("fits");
        let mut demux = Demux::new();
        assert!(demux.insert(session.ufrag(), 1));
        Self {
            session,
            certificate,
            events: vec![],
            packets: vec![],
            messages: vec![],
            socket,
            demux,
            received: RecvBatch::new(),
            sending: SendBatch::new(),
        }
    }

    /// Serves the session until `done` or the deadline; true if it was done.
    pub fn run_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> bool {
        loop {
            self.flush();
            if done(self) {
                return true;
            }
            let due = self.session.poll_timeout().map_or(deadline, |due| due.min(deadline));
            wait_readable(&self.socket, due.saturating_duration_since(now()));
            if now() >= deadline {
                return false;
            }
            self.receive();
            self.session.handle_timeout(now());
        }
    }

    /// Sends an RTP packet over the selected pair.
    pub fn send(&mut self, header: &[u8], payload: &[u8], index: u64) {
        let (_, remote) = self.session.selected().expect("a pair is selected");
        let sender = self.session.srtp().expect("DTLS is connected");
        let len = sender.seal_rtp(header, payload, index, self.sending.slot()).expect("seals");
        self.sending.commit(len, remote);
        assert_eq!(self.sending.flush(&self.socket).sent, 1);
    }

    fn receive(&mut self) {
        self.socket.recv_batch(&mut self.received).expect("receives");
        let local = self.socket.local_addr();
        for Incoming { from, bytes, .. } in self.received.iter_mut() {
            if self.demux.find(local, from, bytes).is_none() {
                continue;
            }
            if let Received::Rtp(len) = self.session.handle_datagram(now(), local, from, bytes) {
                self.packets.push(bytes[..len].to_vec());
            }
        }
    }

    fn flush(&mut self) {
        self.session.flush(now());
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit { remote, bytes, .. } => {
                    if self.sending.is_full() {
                        self.sending.flush(&self.socket);
                    }
                    assert!(self.sending.push(&bytes, remote), "there is room after a flush");
                }
                Output::Bind { remote, proven } => {
                    self.demux.bind(remote, 1, proven);
                }
                Output::Event(event) => self.events.push(event),
                Output::Message { channel, message } => self.messages.push((channel, message)),
                Output::Live(remote) => self.demux.set_live(remote, 1),
                Output::Drained | Output::Dropped(_) => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        self.sending.flush(&self.socket);
    }
}

/// Blocks until the socket has a datagram, at most for `limit`.
fn wait_readable(socket: &UdpSocket, limit: Duration) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = limit.as_micros().div_ceil(1_000).min(60_000) as libc::c_int;
    // SAFETY: one descriptor, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, millis) };
}

/// The value of an attribute in a description.
pub fn value<'a>(sdp: &'a str, name: &str) -> &'a str {
    let line = sdp.lines().find_map(|line| line.strip_prefix(&format!("a={name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {sdp}")).trim()
}

/// An independent peer offers; the session begins in `role`, and `answer` writes what it is told, out of
/// its offer and the word for our role.
pub async fn negotiate(
    peer: &impl PeerConnection,
    driver: &mut Driver,
    role: DtlsRole,
    answer: impl Fn(&Driver, &str, &str) -> String,
) {
    let offer = peer.create_offer(None).await.expect("offers");
    peer.set_local_description(offer).await.expect("sets");
    let offer = peer.local_description().await.expect("is set").sdp;
    let (hash, text) = value(&offer, "fingerprint").split_once(' ').expect("two words");
    let remote = RemoteParameters {
        ufrag: value(&offer, "ice-ufrag").to_owned(),
        pwd: value(&offer, "ice-pwd").to_owned(),
        fingerprints: vec![Fingerprint::parse(hash, text).expect("parses")],
        role,
    };
    driver.session.start(now(), remote).expect("starts");
    let setup = if role == DtlsRole::Client { "active" } else { "passive" };
    let answer = RTCSessionDescription::answer(answer(driver, &offer, setup)).expect("parses");
    peer.set_remote_description(answer).await.expect("sets");
}
