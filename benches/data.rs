//! What data channels carry between two sessions on loopback, each on a thread with a socket of its
//! own: the rate of one channel with long messages, and of fifty with short ones.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rivero::transport::data_channel::{ChannelOptions, DataChannels, DataSettings, Message};
use rivero::transport::udp::{Incoming, RecvBatch, SendBatch, UdpSocket};
use rivero::transport::webrtc::{Output, RemoteParameters, Session, Settings};
use rivero::transport::{Certificate, DtlsRole, Fingerprint, KeyKind, MAX_MESSAGE, Reliability};

struct Side {
    session: Session,
    socket: UdpSocket,
    received: RecvBatch,
    sending: SendBatch,
    messages: u64,
    bytes: u64,
}

#[expect(clippy::disallowed_methods, reason = "real sockets live in real time")]
fn now() -> Instant {
    Instant::now()
}

impl Side {
    fn new(certificate: &Arc<Certificate>, controlling: bool) -> Self {
        let settings = Settings { certificate: certificate.clone(), controlling };
        let mut session = Session::new(now(), settings).expect("a session");
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
        session.add_local_candidate(socket.local_addr()).expect("room for one");
        let (received, sending) = (RecvBatch::new(), SendBatch::new());
        Self { session, socket, received, sending, messages: 0, bytes: 0 }
    }

    fn start(
        &mut self,
        certificate: &Certificate,
        other: (String, String, String),
        role: DtlsRole,
    ) {
        let (ufrag, pwd, candidate) = other;
        let fingerprint = Fingerprint::parse("sha-256", certificate.fingerprint());
        let fingerprints = fingerprint.into_iter().collect();
        let settings =
            DataSettings { local_port: 5_000, remote_port: 5_000, max_message: Some(MAX_MESSAGE) };
        self.session.carry_data(settings, true);
        let remote = RemoteParameters { ufrag, pwd, fingerprints, role };
        self.session.start(now(), remote).expect("starts");
        self.session.add_remote_candidate(now(), &candidate).expect("a candidate");
    }

    fn parameters(&self) -> (String, String, String) {
        let candidate = self.session.local_candidates().remove(0);
        (self.session.ufrag().to_owned(), self.session.pwd().to_owned(), candidate)
    }

    /// Lives for as long as there is something to do, and waits a moment for more.
    fn step(&mut self) {
        self.session.flush(now());
        self.send();
        let mut poll =
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which outlives the call.
        unsafe { libc::poll(&raw mut poll, 1, 1) };
        let local = self.socket.local_addr();
        while self.socket.recv_batch(&mut self.received).is_ok_and(|count| count > 0) {
            let at = now();
            for Incoming { from, bytes, .. } in self.received.iter_mut() {
                self.session.handle_datagram(at, local, from, bytes);
            }
            self.send();
        }
        if self.session.poll_timeout().is_some_and(|due| due <= now()) {
            self.session.handle_timeout(now());
        }
    }

    fn send(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit { remote, bytes, .. } => {
                    if self.sending.is_full() {
                        self.sending.flush(&self.socket);
                    }
                    self.sending.push(&bytes, remote);
                }
                Output::Message { message, .. } => {
                    self.messages += 1;
                    self.bytes += message.bytes.len() as u64;
                }
                _ => {}
            }
        }
        self.sending.flush(&self.socket);
    }

    fn is_connected(&self) -> bool {
        self.session.data().is_some_and(DataChannels::is_connected)
    }
}

/// Sends messages of `size` bytes over `channels` for a while, at most `rate` of them in a second.
fn run(name: &str, channels: usize, size: usize, rate: Option<u64>) {
    const TIME: Duration = Duration::from_secs(5);
    let certificate = Arc::new(Certificate::generate(KeyKind::Ecdsa).expect("a certificate"));
    let [mut one, mut two] = [true, false].map(|first| Side::new(&certificate, first));
    let (of_one, of_two) = (one.parameters(), two.parameters());
    one.start(&certificate, of_two, DtlsRole::Client);
    two.start(&certificate, of_one, DtlsRole::Server);
    let over = Arc::new(AtomicBool::new(false));
    let came = Arc::new(AtomicU64::new(0));
    let (ready, connected) = mpsc::channel();
    let receiver = std::thread::spawn({
        let (over, came) = (over.clone(), came.clone());
        move || {
            let mut told = false;
            while !over.load(Ordering::Relaxed) {
                two.step();
                came.store(two.messages, Ordering::Relaxed);
                if !told && two.is_connected() {
                    told = true;
                    // The other end waits.
                    let _ = ready.send(());
                }
            }
            (two.messages, two.bytes, thread_time())
        }
    });
    while !one.is_connected() || connected.try_recv().is_err() {
        one.step();
    }
    let ids: Vec<u16> = (0..channels)
        .map(|number| {
            let options = ChannelOptions {
                label: number.to_string(),
                protocol: String::new(),
                ordered: true,
                reliability: Reliability::Reliable,
            };
            one.session.open_channel(now(), options).expect("a channel")
        })
        .collect();
    let message = Message { is_text: false, bytes: Bytes::from(vec![7; size]) };
    let (start, before) = (now(), thread_time());
    let mut sent = 0_u64;
    while start.elapsed() < TIME {
        let due =
            rate.map_or(u64::MAX, |rate| (start.elapsed().as_secs_f64() * rate as f64) as u64);
        while sent < due && !one.session.is_full() {
            let channel = ids[sent as usize % ids.len()];
            one.session.send_message(now(), channel, &message).expect("room");
            sent += 1;
        }
        one.step();
    }
    let time = start.elapsed().as_secs_f64();
    let cpu = (thread_time() - before).as_secs_f64();
    let arrived = came.load(Ordering::Relaxed);
    over.store(true, Ordering::Relaxed);
    let (_, _, receiving) = receiver.join().expect("ends well");
    let bits = arrived as f64 * size as f64 * 8.0 / time / 1e6;
    println!(
        "{name}: {arrived} of {sent} messages in {time:.1} s, {bits:.1} Mbit/s, {:.0} messages/s; \
         processor: sender {:.0} %, receiver {:.0} %",
        arrived as f64 / time,
        cpu / time * 100.0,
        receiving.as_secs_f64() / time * 100.0,
    );
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes into the structure it is given and keeps nothing of it.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() {
    run("one channel, 64 KiB", 1, 64 * 1024, None);
    run("one channel, 256 KiB", 1, MAX_MESSAGE, None);
    run("one channel, 1 KiB", 1, 1024, None);
    run("fifty channels, 100 bytes, 10 000 a second", 50, 100, Some(10_000));
    run("fifty channels, 100 bytes, as many as can be", 50, 100, None);
}
