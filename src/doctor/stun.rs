//! Shell: a question to a STUN server (RFC 8489), and an address borrowed from a TURN server (RFC 8656)
//! and given back.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::config::modules::{TurnServer, TurnTransport};
use crate::transport::tcp::{MAX_FRAME, tls_config};
use crate::transport::{Refusal, Trial};

const COOKIE: u32 = 0x2112_a442;
const BINDING: u16 = 0x0001;
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const HEADER: usize = 20;
/// Times that a question is sent over UDP.
const TRIES: u32 = 3;

/// Messages of one conversation with a TURN server.
const MAX_MESSAGES: usize = 16;

/// # Errors
/// When the name has no address.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs()?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    addresses.next().ok_or_else(missing)
}

/// The address under which the server sees us.
///
/// # Errors
/// When it does not answer in time, or with something else.
pub fn binding(server: SocketAddr, patience: Duration) -> io::Result<SocketAddr> {
    let id = transaction();
    let reply = over_udp(server, &request(BINDING, &id, &[]), &id, patience)?;
    mapped(&reply, &id).ok_or_else(|| io::Error::other("the answer names no address"))
}

/// What the TURN server says when it is asked for an address.
///
/// # Errors
/// When it does not answer in time, with something else, or with a certificate that nobody vouches for.
pub fn lease(
    now: Instant,
    at: SocketAddr,
    server: &TurnServer,
    patience: Duration,
) -> io::Result<Result<SocketAddr, Refusal>> {
    let mut way = Way::open(at, server, patience)?;
    let mut trial = Trial::new(now, server.clone());
    for _ in 0..MAX_MESSAGES {
        let mut asked = None;
        while let Some(message) = trial.poll_transmit() {
            way.send(&message)?;
            asked = Some(message);
        }
        let answer = way.receive(asked.as_deref().unwrap_or_default())?;
        if let Some(said) = trial.handle_message(now, &answer) {
            while let Some(message) = trial.poll_transmit() {
                way.send(&message)?;
            }
            return Ok(said);
        }
    }
    Err(strange())
}

/// A way to a TURN server.
enum Way {
    Datagrams(UdpSocket),
    Stream(TcpStream),
    Sealed(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Way {
    fn open(at: SocketAddr, server: &TurnServer, patience: Duration) -> io::Result<Self> {
        let stream = || {
            let stream = TcpStream::connect_timeout(&at, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            io::Result::Ok(stream)
        };
        match server.transport.unwrap_or(TurnTransport::Udp) {
            TurnTransport::Udp => {
                let socket = UdpSocket::bind((any(at), 0))?;
                socket.connect(at)?;
                socket.set_read_timeout(Some(patience / TRIES))?;
                Ok(Self::Datagrams(socket))
            }
            TurnTransport::Tcp => stream().map(Self::Stream),
            TurnTransport::Tls => {
                let roots = rustls_native_certs::load_native_certs().certs;
                let config = tls_config(roots.into_iter()).map_err(io::Error::other)?;
                let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
                let client = ClientConnection::new(config, name).map_err(io::Error::other)?;
                Ok(Self::Sealed(Box::new(StreamOwned::new(client, stream()?))))
            }
        }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Datagrams(socket) => socket.send(message).map(|_| ()),
            Self::Stream(stream) => stream.write_all(message),
            Self::Sealed(stream) => stream.write_all(message).and_then(|()| stream.flush()),
        }
    }

    /// The next message; over UDP the question is asked again if none comes.
    fn receive(&mut self, asked: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Datagrams(socket) => {
                let mut buffer = [0; MAX_FRAME];
                for _ in 1..TRIES {
                    match socket.recv(&mut buffer) {
                        Err(error) if is_silence(&error) => socket.send(asked).map(|_| ())?,
                        other => return other.map(|length| buffer[..length].to_vec()),
                    }
                }
                let length = socket.recv(&mut buffer).map_err(|error| match error {
                    error if is_silence(&error) => nothing(),
                    error => error,
                })?;
                Ok(buffer[..length].to_vec())
            }
            Self::Stream(stream) => message(stream),
            Self::Sealed(stream) => message(stream),
        }
    }
}

/// One message of a stream.
fn message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    let read = |stream: &mut _, part: &mut [u8]| match Read::read_exact(stream, part) {
        Err(error) if is_silence(&error) => Err(nothing()),
        other => other,
    };
    read(stream, &mut bytes)?;
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if bytes[4..8] != COOKIE.to_be_bytes() || length > MAX_FRAME {
        return Err(strange());
    }
    bytes.resize(HEADER + length, 0);
    read(stream, &mut bytes[HEADER..])?;
    Ok(bytes)
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn nothing() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "nothing came back")
}

/// Every address of the family that `server` has.
fn any(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not STUN")
}

/// Twelve bytes that nobody else sends at the moment.
fn transaction() -> [u8; 12] {
    let mut id = [0; 12];
    id.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..12]);
    id
}

fn request(method: u16, id: &[u8; 12], attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + attributes.len());
    bytes.extend(method.to_be_bytes());
    bytes.extend((attributes.len() as u16).to_be_bytes());
    bytes.extend(COOKIE.to_be_bytes());
    bytes.extend(id);
    bytes.extend(attributes);
    bytes
}

fn over_udp(
    server: SocketAddr,
    request: &[u8],
    id: &[u8; 12],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((any(server), 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience / TRIES))?;
    let mut buffer = [0; 1_500];
    for _ in 0..TRIES {
        socket.send(request)?;
        match socket.recv(&mut buffer) {
            Ok(length) if is_reply(&buffer[..length], id) => return Ok(buffer[..length].to_vec()),
            Ok(_) => return Err(strange()),
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(nothing())
}

/// Whether it is a success or an error for this transaction.
fn is_reply(bytes: &[u8], id: &[u8; 12]) -> bool {
    bytes.len() >= HEADER
        && bytes[0] == 0x01
        && bytes[4..8] == COOKIE.to_be_bytes()
        && bytes[8..20] == *id
}

/// Type and value of each attribute, as far as they fit.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let head = rest.get(..4)?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(4..4 + length)?;
        rest = rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn mapped(reply: &[u8], id: &[u8; 12]) -> Option<SocketAddr> {
    let find = |wanted| attributes(reply).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (value, hidden) = match find(XOR_MAPPED_ADDRESS) {
        Some(value) => (value, true),
        None => (find(MAPPED_ADDRESS)?, false),
    };
    let mut mask = [0; 16];
    if hidden {
        mask[..4].copy_from_slice(&COOKIE.to_be_bytes());
        mask[4..].copy_from_slice(id);
    }
    let port = u16::from_be_bytes([value.get(2)? ^ mask[0], value.get(3)? ^ mask[1]]);
    let bytes: Vec<u8> = value[4..].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    let ip = match (value[1], bytes.len()) {
        (1, 4) => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        (2, 16) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 12] = [7; 12];

    /// A response with these attributes.
    fn response(class: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = request(0, &ID, &body);
        bytes[0] = 0x01;
        bytes[1] = class;
        bytes
    }

    #[test]
    fn addresses_are_read_hidden_and_plain_and_of_both_families() {
        // 192.0.2.1:32853 as RFC 5769 §2.2 hides it.
        let hidden =
            response(1, &[(XOR_MAPPED_ADDRESS, &[0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43])]);
        assert_eq!(mapped(&hidden, &ID), "192.0.2.1:32853".parse().ok());
        let plain = response(1, &[(MAPPED_ADDRESS, &[0, 1, 0x80, 0x55, 192, 0, 2, 1])]);
        assert_eq!(mapped(&plain, &ID), "192.0.2.1:32853".parse().ok());
        let mut six = vec![0, 2, 0, 0];
        six.extend(COOKIE.to_be_bytes());
        six.extend(ID);
        let six = response(1, &[(XOR_MAPPED_ADDRESS, &six)]);
        assert_eq!(mapped(&six, &ID).map(|it| it.ip()), "::".parse().ok());
    }

    #[test]
    fn what_lies_about_its_length_names_no_address() {
        for value in [&[][..], &[0, 1], &[0, 1, 2, 3, 4], &[0, 2, 0, 0, 1, 2, 3, 4], &[9; 40]] {
            assert_eq!(mapped(&response(1, &[(XOR_MAPPED_ADDRESS, value)]), &ID), None);
        }
        let mut cut = response(1, &[(XOR_MAPPED_ADDRESS, &[0; 8])]);
        cut.truncate(HEADER + 6);
        assert_eq!(mapped(&cut, &ID), None);
        assert_eq!(mapped(&[], &ID), None);
    }

    #[test]
    fn answers_to_others_are_none() {
        let answer = response(1, &[]);
        assert!(is_reply(&answer, &ID) && !is_reply(&answer, &[8; 12]));
    }

    #[test]
    fn what_is_no_message_of_a_stream_is_refused_before_it_is_waited_for() {
        let answer = response(1, &[(MAPPED_ADDRESS, &[0, 1, 0x80, 0x55, 192, 0, 2, 1])]);
        assert_eq!(message(&mut &answer[..]).expect("a message"), answer);
        assert!(message(&mut &answer[..answer.len() - 1]).is_err());
        assert!(message(&mut &b"HTTP/1.1 400 Bad Request"[..]).is_err());
        let mut long = answer.clone();
        long[2] = 0xff;
        assert_eq!(message(&mut &long[..]).expect_err("too long").kind(), strange().kind());
    }
}
