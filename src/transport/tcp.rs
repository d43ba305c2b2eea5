//! Shell: non-blocking TCP connections that carry datagrams: those of ICE (RFC 6544) in the frames of
//! RFC 4571, those to a TURN server as RFC 8656 §12.5 has them, in the clear or in TLS.
//!
//! What waits to be sent is bounded, and a frame that no longer fits is dropped, as a router would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::udp;

/// Bytes that may wait for a peer that does not read.
const MAX_WAITING: usize = 256 * 1024;
/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: libc::c_int = 4_096;
/// Bytes taken from a connection before others get their turn.
const READ_TURN: usize = 64 * 1024;
/// The longest frame that is taken.
pub const MAX_FRAME: usize = 2_048;

/// What TURN servers are checked with: the system's certificates, as [`rustls_native_certs`] finds them,
/// or others. Slow enough not to be done by a thread that moves media.
///
/// # Errors
/// When the crypto library refuses its own defaults.
pub fn tls_config(
    roots: impl Iterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, tokio_rustls::rustls::Error> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(store).with_no_client_auth()))
}

/// How messages are told apart in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// Two bytes of length before each (RFC 4571).
    Rfc4571,
    /// Each says its length (RFC 8656 §12.5).
    Turn,
}

/// What the beginning of a stream holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    /// A message at `body`, and `used` bytes with what surrounds it.
    Whole { body: Range<usize>, used: usize },
    /// Not all of it has arrived.
    Part,
    /// No message begins like this, or it is too long.
    Broken,
}

impl Framing {
    /// Looks for a message at the beginning of `bytes`.
    pub fn next(self, bytes: &[u8]) -> Frame {
        let word = |at: usize| {
            let pair = bytes.get(at..at + 2)?;
            Some(usize::from(u16::from_be_bytes([pair[0], pair[1]])))
        };
        let (start, len, pad) = match (self, bytes.first()) {
            (_, None) => return Frame::Part,
            (Self::Rfc4571, _) => match word(0) {
                Some(len) => (2, len, 0),
                None => return Frame::Part,
            },
            (Self::Turn, Some(first)) => {
                let Some(len) = word(2) else { return Frame::Part };
                match first {
                    0..=3 => (0, 20 + len, 0),
                    0x40..=0x4f => (0, 4 + len, len.next_multiple_of(4) - len),
                    _ => return Frame::Broken,
                }
            }
        };
        if len > MAX_FRAME {
            return Frame::Broken;
        }
        let used = start + len + pad;
        if bytes.len() < used {
            Frame::Part
        } else {
            Frame::Whole { body: start..start + len, used }
        }
    }
}

/// A listening socket at a concrete address.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
}

impl Listener {
    /// # Errors
    /// What the system says.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(addr)?;
        socket.set_nonblocking(true)?;
        // A longer queue than usual, so that a flood does not keep others waiting for a second try.
        // SAFETY: no pointers; the socket listens already, and goes on if this is refused.
        unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) };
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// A connection that waits to be accepted; none if there is no other.
    ///
    /// # Errors
    /// What the system says: above all, that there are no descriptors left.
    pub fn accept(&self) -> io::Result<Option<(Stream, SocketAddr)>> {
        loop {
            match self.socket.accept() {
                Ok((socket, remote)) => {
                    socket.set_nonblocking(true)?;
                    return Ok(Some((Stream::new(socket, Framing::Rfc4571, false), remote)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => match error.raw_os_error() {
                    // It was gone before it was accepted, or something interrupted.
                    Some(libc::ECONNABORTED | libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    framing: Framing,
    /// The handshake of TCP is not over.
    connecting: bool,
    tls: Option<Box<ClientConnection>>,
    inbox: Vec<u8>,
    /// How much of the inbox was handed out.
    read: usize,
    outbox: Vec<u8>,
    /// How much of the outbox has left.
    sent: usize,
    /// Frames that did not fit.
    pub dropped: u64,
}

/// What was received is no sequence of frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no frame begins like this")]
pub struct Nonsense;

/// What a connection is after it was served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    Open,
    /// The peer ended it, or it broke.
    Closed,
}

impl Stream {
    fn new(socket: TcpStream, framing: Framing, connecting: bool) -> Self {
        // Frames are datagrams: none should wait for the next.
        let _ = socket.set_nodelay(true);
        Self {
            socket,
            framing,
            connecting,
            tls: None,
            inbox: Vec::new(),
            read: 0,
            outbox: Vec::new(),
            sent: 0,
            dropped: 0,
        }
    }

    /// Begins to connect; whether that works shows when the socket becomes writable.
    ///
    /// # Errors
    /// What the system says at once, or that `name` can be in no certificate.
    pub fn connect(
        to: SocketAddr,
        framing: Framing,
        tls: Option<(&Arc<ClientConfig>, &str)>,
    ) -> io::Result<Self> {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::socket(family, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (raw, len) = udp::to_raw(to);
        // SAFETY: `raw` is a socket address of at least `len` bytes.
        if unsafe { libc::connect(fd.as_raw_fd(), (&raw const raw).cast(), len) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINPROGRESS) {
                return Err(error);
            }
        }
        let mut stream = Self::new(TcpStream::from(fd), framing, true);
        if let Some((config, name)) = tls {
            let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
            let client = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
            stream.tls = Some(Box::new(client));
        }
        Ok(stream)
    }

    /// Whether the handshake of TCP is still going on.
    pub fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Whether something waits for the socket to become writable.
    pub fn is_waiting(&self) -> bool {
        self.connecting || self.sent < self.outbox.len()
    }

    /// Takes what has arrived, up to a fair share.
    pub fn receive(&mut self) -> Health {
        self.inbox.drain(..self.read);
        self.read = 0;
        let mut taken = 0;
        let mut chunk = [0; 16 * 1024];
        while taken < READ_TURN {
            let len = match self.socket.read(&mut chunk) {
                Ok(0) => return Health::Closed,
                Ok(len) => len,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => break,
                    io::ErrorKind::Interrupted => continue,
                    _ => return Health::Closed,
                },
            };
            taken += len;
            if self.tls.is_none() {
                self.inbox.extend_from_slice(&chunk[..len]);
            } else if let Err(error) = self.decipher(&chunk[..len]) {
                tracing::warn!(%error, "a server's TLS is refused");
                return Health::Closed;
            }
        }
        Health::Open
    }

    fn decipher(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let start = self.inbox.len();
            self.inbox.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut self.inbox[start..])?;
        }
        tls.write_tls(&mut self.outbox)?;
        Ok(())
    }

    /// The next whole message that was received; it stays until the next one is asked for.
    ///
    /// # Errors
    /// [`Nonsense`], and then the connection is of no use any more.
    pub fn next_message(&mut self) -> Result<Option<&mut [u8]>, Nonsense> {
        match self.framing.next(&self.inbox[self.read..]) {
            Frame::Whole { body, used } => {
                let range = self.read + body.start..self.read + body.end;
                self.read += used;
                Ok(Some(&mut self.inbox[range]))
            }
            Frame::Part => Ok(None),
            Frame::Broken => Err(Nonsense),
        }
    }

    /// Takes a message that is to be sent; false if it was dropped.
    pub fn queue(&mut self, message: &[u8]) -> bool {
        if self.outbox.len() - self.sent + message.len() > MAX_WAITING {
            self.dropped += 1;
            return false;
        }
        if self.outbox.len() > MAX_WAITING {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
        let Ok(len) = u16::try_from(message.len()) else { return false };
        let pad = match self.framing {
            Framing::Rfc4571 => 0,
            Framing::Turn => message.len().next_multiple_of(4) - message.len(),
        };
        if let Some(tls) = &mut self.tls {
            let mut whole = message.to_vec();
            whole.resize(message.len() + pad, 0);
            // Before the handshake is over, it keeps what it is given.
            let sent = tls.writer().write_all(&whole);
            return sent.and_then(|()| tls.write_tls(&mut self.outbox)).is_ok();
        }
        if self.framing == Framing::Rfc4571 {
            self.outbox.extend_from_slice(&len.to_be_bytes());
        }
        self.outbox.extend_from_slice(message);
        self.outbox.resize(self.outbox.len() + pad, 0);
        true
    }

    /// Sends what waits, as far as the system takes it.
    pub fn flush(&mut self) -> Health {
        if self.connecting {
            return Health::Open;
        }
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                if tls.write_tls(&mut self.outbox).is_err() {
                    return Health::Closed;
                }
            }
        }
        while self.sent < self.outbox.len() {
            match self.socket.write(&self.outbox[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Health::Open,
                    io::ErrorKind::Interrupted => {}
                    _ => return Health::Closed,
                },
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Health::Open
    }

    /// The socket became writable: a connection that was being opened is open, or failed.
    pub fn writable(&mut self) -> Health {
        if self.connecting {
            match self.socket.take_error() {
                Ok(None) => self.connecting = false,
                _ => return Health::Closed,
            }
        }
        self.flush()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_whole_or_not_at_all() {
        let framed = [0, 3, 7, 8, 9, 0, 0];
        assert_eq!(Framing::Rfc4571.next(&framed), Frame::Whole { body: 2..5, used: 5 });
        assert_eq!(Framing::Rfc4571.next(&framed[5..]), Frame::Whole { body: 2..2, used: 2 });
        for len in 0..5 {
            assert_eq!(Framing::Rfc4571.next(&framed[..len]), Frame::Part);
        }
        assert_eq!(Framing::Rfc4571.next(&[0xff, 0xff, 1]), Frame::Broken);
        let channel = [0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0];
        assert_eq!(Framing::Turn.next(&channel), Frame::Whole { body: 0..9, used: 12 });
        assert_eq!(Framing::Turn.next(&channel[..11]), Frame::Part);
        assert_eq!(Framing::Turn.next(&[0; 20]), Frame::Whole { body: 0..20, used: 20 });
        assert_eq!(Framing::Turn.next(b"HTTP/1.1"), Frame::Broken, "as long as no message is");
        assert_eq!(Framing::Turn.next(&[0x80, 0, 0, 0]), Frame::Broken);
    }

    #[test]
    fn a_peer_that_does_not_read_loses_frames_and_holds_no_memory() {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
        let _peer = TcpStream::connect(listener.local_addr()).expect("connects");
        let (mut stream, _) = listener.accept().expect("accepts").expect("waits");
        assert!(listener.accept().expect("accepts").is_none());
        let frame = [7; 1_200];
        while stream.queue(&frame) {
            assert_eq!(stream.flush(), Health::Open);
        }
        assert!(stream.dropped == 1 && stream.is_waiting());
        assert!(stream.outbox.len() - stream.sent <= MAX_WAITING);
    }

    #[test]
    fn roots_of_trust_need_no_file() {
        assert!(tls_config(std::iter::empty()).is_ok());
    }

    #[test]
    fn frames_pass_through_tls_and_strangers_certificates_are_refused() {
        use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
        use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

        let key = rcgen::KeyPair::generate().expect("generates");
        let params = rcgen::CertificateParams::new(vec!["turn.test".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("signs").der().clone();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| {
                config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key)
            })
            .expect("a configuration");
        let server = Arc::new(server);
        let message = [0x40, 0, 0, 6, 1, 2, 3, 4, 5, 6];
        for (trusted, name) in [(true, "turn.test"), (true, "other.test"), (false, "turn.test")] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
            let at = listener.local_addr().expect("bound");
            let server = server.clone();
            let peer = std::thread::spawn(move || {
                let (socket, _) = listener.accept().expect("accepts");
                let tls = ServerConnection::new(server).expect("a connection");
                let mut stream = StreamOwned::new(tls, socket);
                let mut bytes = [0; 12];
                let read = stream.read_exact(&mut bytes).map(|()| bytes);
                read.and_then(|bytes| stream.write_all(&bytes).and_then(|()| stream.flush()))
            });
            let roots = trusted.then(|| certificate.clone());
            let config = tls_config(roots.into_iter()).expect("a configuration");
            let mut ours =
                Stream::connect(at, Framing::Turn, Some((&config, name))).expect("begins");
            assert!(ours.queue(&message));
            let mut health = ours.writable();
            let mut echo = None;
            while health == Health::Open && echo.is_none() {
                let mut poll =
                    libc::pollfd { fd: ours.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one descriptor, which outlives the call.
                assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1, "in time");
                health = ours.receive();
                echo = ours.next_message().expect("frames").map(|message| message.to_vec());
                ours.flush();
            }
            let good = trusted && name == "turn.test";
            assert_eq!(echo, good.then(|| message.to_vec()));
            drop(ours);
            assert_eq!(peer.join().expect("does not panic").is_ok(), good);
        }
    }

    #[test]
    fn what_is_queued_arrives_in_frames() {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
        let mut ours =
            Stream::connect(listener.local_addr(), Framing::Rfc4571, None).expect("begins");
        assert!(ours.is_connecting() && ours.queue(b"first") && ours.queue(b"second"));
        // On loopback the connection is open before `connect` returns.
        assert_eq!(ours.writable(), Health::Open);
        let (mut theirs, _) = listener.accept().expect("accepts").expect("waits");
        assert_eq!(theirs.receive(), Health::Open);
        assert_eq!(theirs.next_message(), Ok(Some(&mut b"first".to_vec()[..])));
        assert_eq!(theirs.next_message(), Ok(Some(&mut b"second".to_vec()[..])));
        assert_eq!(theirs.next_message(), Ok(None));
        drop(ours);
        assert_eq!(theirs.receive(), Health::Closed);
    }
}
