//! A small STUN and TURN server on loopback (RFC 8489, RFC 8656): UDP and TCP, one user, channels and
//! indications. It knows as much as tests of a client need, and is strict about what it is sent.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};

pub const USER: &str = "user";
pub const PASSWORD: &str = "p:a@ss";
const REALM: &[u8] = b"rivero.test";
const NONCE: &[u8] = b"once";
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// How STUN answers say that they see whoever asks.
pub const SEEN: ([u8; 4], u16) = ([203, 0, 113, 9], 4_242);

type Reply = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Where it serves; its threads end with the process.
pub struct TurnServer {
    pub address: SocketAddr,
    /// Datagrams that were relayed, either way.
    pub relayed: Arc<AtomicUsize>,
    pub allocations: Arc<AtomicUsize>,
}

/// One client's lease.
struct Lease {
    socket: UdpSocket,
    channels: Mutex<HashMap<u16, SocketAddr>>,
}

#[derive(Clone)]
struct Shared {
    relayed: Arc<AtomicUsize>,
    allocations: Arc<AtomicUsize>,
}

impl TurnServer {
    pub fn start() -> Self {
        // The same port for both: others may have it for one of them.
        let (udp, tcp) = std::iter::repeat_with(|| {
            let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let tcp = TcpListener::bind(udp.local_addr().expect("bound"));
            tcp.ok().map(|tcp| (udp, tcp))
        })
        .take(100)
        .flatten()
        .next()
        .expect("a port that is free for both");
        let address = udp.local_addr().expect("bound");
        let shared = Shared { relayed: Arc::default(), allocations: Arc::default() };
        let (relayed, allocations) = (shared.relayed.clone(), shared.allocations.clone());
        let over_tcp = shared.clone();
        std::thread::spawn(move || serve_udp(&udp, &shared));
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let shared = over_tcp.clone();
                std::thread::spawn(move || serve_tcp(stream, &shared));
            }
        });
        Self { address, relayed, allocations }
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut bytes = [0; 2_048];
    while let Ok((len, from)) = socket.recv_from(&mut bytes) {
        let client = clients.entry(from).or_insert_with(|| {
            let socket = socket.try_clone().expect("a descriptor");
            Client::new(Arc::new(move |answer: &[u8]| drop(socket.send_to(answer, from))), shared)
        });
        client.handle(&bytes[..len]);
    }
}

fn serve_tcp(mut stream: TcpStream, shared: &Shared) {
    let writer = Mutex::new(stream.try_clone().expect("a descriptor"));
    let reply = move |answer: &[u8]| {
        let mut padded = answer.to_vec();
        padded.resize(answer.len().next_multiple_of(4), 0);
        let _ = writer.lock().expect("nobody panicked").write_all(&padded);
    };
    let mut client = Client::new(Arc::new(reply), shared);
    let mut head = [0; 4];
    while stream.read_exact(&mut head).is_ok() {
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let rest = if head[0] < 4 { 16 + len } else { len.next_multiple_of(4) };
        let mut message = vec![0; rest];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        let mut whole = [&head[..], &message].concat();
        whole.truncate(if head[0] < 4 { 20 + len } else { 4 + len });
        client.handle(&whole);
    }
}

struct Client {
    reply: Reply,
    shared: Shared,
    key: hmac::Key,
    lease: Option<Arc<Lease>>,
}

impl Client {
    fn new(reply: Reply, shared: &Shared) -> Self {
        let text = [USER.as_bytes(), b":", REALM, b":", PASSWORD.as_bytes()].concat();
        let provider = AwsLcRsProvider::new();
        let hash = provider.crypto().hash(HashAlgorithm::Md5, &text).expect("hashes");
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hash.as_ref());
        Self { reply, shared: shared.clone(), key, lease: None }
    }

    fn handle(&mut self, bytes: &[u8]) {
        if bytes[0] >= 0x40 {
            let channel = u16::from_be_bytes([bytes[0], bytes[1]]);
            let Some(lease) = &self.lease else { return };
            let peer = lease.channels.lock().expect("nobody panicked").get(&channel).copied();
            if let Some(peer) = peer {
                self.shared.relayed.fetch_add(1, Ordering::SeqCst);
                let _ = lease.socket.send_to(&bytes[4..], peer);
            }
            return;
        }
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        let transaction: [u8; 12] = bytes[8..20].try_into().expect("a header");
        let attribute = |wanted| attributes(bytes).into_iter().find(|(kind, ..)| *kind == wanted);
        match kind {
            0x0001 => {
                let seen = xor(SocketAddr::from(SEEN));
                (self.reply)(&message(0x0101, &transaction, &[(0x0020, &seen)], None));
            }
            // Whoever has no channel yet may say something to a peer whose permission it has.
            0x0016 => {
                let (Some((_, _, peer)), Some((_, _, data))) = (attribute(0x12), attribute(0x13))
                else {
                    return;
                };
                let Some(lease) = &self.lease else { return };
                let peer = unxor(peer);
                let permitted = lease.channels.lock().expect("nobody panicked");
                if permitted.values().any(|known| known.ip() == peer.ip()) {
                    self.shared.relayed.fetch_add(1, Ordering::SeqCst);
                    let _ = lease.socket.send_to(data, peer);
                }
            }
            0x0003 | 0x0004 | 0x0009 => {
                let Some((_, at, tag)) = attribute(0x0008) else {
                    let error = [&[0, 0, 4, 1][..], b"Unauthorized"].concat();
                    let parts = [(0x0009, &error[..]), (0x0014, REALM), (0x0015, NONCE)];
                    (self.reply)(&message(kind | 0x0110, &transaction, &parts, None));
                    return;
                };
                let mut covered = bytes[..at].to_vec();
                covered[2..4].copy_from_slice(&((at + 24 - 20) as u16).to_be_bytes());
                hmac::verify(&self.key, &covered, tag).expect("the password is right");
                assert_eq!(attribute(0x0006).map(|one| one.2), Some(USER.as_bytes()));
                self.grant(kind, &transaction, bytes);
            }
            other => panic!("a client does not send {other:#x}"),
        }
    }

    fn grant(&mut self, kind: u16, transaction: &[u8; 12], bytes: &[u8]) {
        let attribute = |wanted| {
            let found = attributes(bytes).into_iter().find(|(kind, ..)| *kind == wanted);
            found.map(|(_, _, value)| value)
        };
        let lifetime = 600_u32.to_be_bytes();
        let answer = match kind {
            0x0003 => {
                assert_eq!(attribute(0x0019), Some(&[17, 0, 0, 0][..]), "UDP is asked for");
                let lease = self.lease.get_or_insert_with(|| {
                    self.shared.allocations.fetch_add(1, Ordering::SeqCst);
                    lease(&self.reply, &self.shared)
                });
                let address = xor(lease.socket.local_addr().expect("bound"));
                let parts = [(0x0016, &address[..]), (0x000d, &lifetime)];
                message(kind | 0x0100, transaction, &parts, Some(&self.key))
            }
            0x0004 => {
                if attribute(0x000d) == Some(&[0; 4][..]) && self.lease.take().is_some() {
                    self.shared.allocations.fetch_sub(1, Ordering::SeqCst);
                }
                message(kind | 0x0100, transaction, &[(0x000d, &lifetime)], Some(&self.key))
            }
            _ => {
                let number = attribute(0x000c).expect("a channel's number");
                let channel = u16::from_be_bytes([number[0], number[1]]);
                let peer = unxor(attribute(0x0012).expect("a peer"));
                let lease = self.lease.as_ref().expect("a lease comes first");
                lease.channels.lock().expect("nobody panicked").insert(channel, peer);
                message(kind | 0x0100, transaction, &[], Some(&self.key))
            }
        };
        (self.reply)(&answer);
    }
}

/// Lends an address, and brings what arrives there to the client.
fn lease(reply: &Reply, shared: &Shared) -> Arc<Lease> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let lease = Arc::new(Lease { socket, channels: Mutex::default() });
    let (own, reply, relayed) = (lease.clone(), reply.clone(), shared.relayed.clone());
    std::thread::spawn(move || {
        let mut bytes = [0; 2_048];
        while let Ok((len, from)) = own.socket.recv_from(&mut bytes) {
            let channels = own.channels.lock().expect("nobody panicked").clone();
            let bound = channels.iter().find(|(_, peer)| **peer == from);
            let permitted = channels.values().any(|peer| peer.ip() == from.ip());
            let head = |number: u16| [number.to_be_bytes(), (len as u16).to_be_bytes()].concat();
            relayed.fetch_add(1, Ordering::SeqCst);
            match bound {
                Some((number, _)) => reply(&[&head(*number)[..], &bytes[..len]].concat()),
                None if permitted => {
                    let parts = [(0x0012, &xor(from)[..]), (0x0013, &bytes[..len])];
                    reply(&message(0x0017, &[9; 12], &parts, None));
                }
                None => {}
            }
        }
    });
    lease
}

/// Kind, place and value of each attribute.
fn attributes(bytes: &[u8]) -> Vec<(u16, usize, &[u8])> {
    let (mut at, mut found) = (20, Vec::new());
    while at + 4 <= bytes.len() {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let len = usize::from(word(at + 2));
        found.push((word(at), at, &bytes[at + 4..at + 4 + len]));
        at += 4 + len.next_multiple_of(4);
    }
    found
}

fn message(
    kind: u16,
    transaction: &[u8; 12],
    parts: &[(u16, &[u8])],
    key: Option<&hmac::Key>,
) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(COOKIE);
    bytes.extend(transaction);
    for (kind, value) in parts {
        bytes.extend(kind.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let len = |bytes: &[u8], more: usize| ((bytes.len() - 20 + more) as u16).to_be_bytes();
    if let Some(key) = key {
        let covered = len(&bytes, 24);
        bytes[2..4].copy_from_slice(&covered);
        let tag = hmac::sign(key, &bytes);
        bytes.extend([0x00, 0x08, 0, 20]);
        bytes.extend(tag.as_ref());
    }
    let all = len(&bytes, 0);
    bytes[2..4].copy_from_slice(&all);
    bytes
}

fn xor(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("IPv4 is enough here") };
    let port = address.port() ^ 0x2112;
    let ip = address.ip().octets();
    let mut value = vec![0, 1];
    value.extend(port.to_be_bytes());
    value.extend(ip.iter().zip(COOKIE).map(|(a, b)| a ^ b));
    value
}

fn unxor(value: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([value[2], value[3]]) ^ 0x2112;
    let ip: [u8; 4] = std::array::from_fn(|at| value[4 + at] ^ COOKIE[at]);
    SocketAddr::from((ip, port))
}
