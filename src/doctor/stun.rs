//! Shell: one question to a STUN or TURN server (RFC 8489, RFC 8656), without being anybody.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

const COOKIE: u32 = 0x2112_a442;
const BINDING: u16 = 0x0001;
const ALLOCATE: u16 = 0x0003;
const MAPPED_ADDRESS: u16 = 0x0001;
const ERROR_CODE: u16 = 0x0009;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const HEADER: usize = 20;
/// Times that a question is sent over UDP.
const TRIES: u32 = 3;

/// What a TURN server said to somebody it does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allocation {
    /// 401, as it should.
    AsksForCredentials,
    /// Another error, or 0 for an allocation that it gave away.
    Other(u16),
    /// It was only connected to.
    NotAsked,
}

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

/// # Errors
/// As [`binding`].
pub fn allocation_over_udp(server: SocketAddr, patience: Duration) -> io::Result<Allocation> {
    let id = transaction();
    over_udp(server, &allocate(&id), &id, patience).map(|reply| judge(&reply))
}

/// # Errors
/// As [`binding`].
pub fn allocation_over_tcp(server: SocketAddr, patience: Duration) -> io::Result<Allocation> {
    let id = transaction();
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&allocate(&id))?;
    let mut reply = vec![0; HEADER];
    stream.read_exact(&mut reply)?;
    let length = usize::from(u16::from_be_bytes([reply[2], reply[3]]));
    reply.resize(HEADER + length, 0);
    stream.read_exact(&mut reply[HEADER..])?;
    if is_reply(&reply, &id) { Ok(judge(&reply)) } else { Err(strange()) }
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

fn allocate(id: &[u8; 12]) -> Vec<u8> {
    const UDP: u8 = 17;
    let [high, low] = REQUESTED_TRANSPORT.to_be_bytes();
    request(ALLOCATE, id, &[high, low, 0, 4, UDP, 0, 0, 0])
}

fn over_udp(
    server: SocketAddr,
    request: &[u8],
    id: &[u8; 12],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience / TRIES))?;
    let mut buffer = [0; 1_500];
    for _ in 0..TRIES {
        socket.send(request)?;
        match socket.recv(&mut buffer) {
            Ok(length) if is_reply(&buffer[..length], id) => return Ok(buffer[..length].to_vec()),
            Ok(_) => return Err(strange()),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came back"))
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

fn judge(reply: &[u8]) -> Allocation {
    let error = attributes(reply).find(|(kind, _)| *kind == ERROR_CODE);
    let code = error.and_then(|(_, value)| {
        let class = u16::from(value.get(2)? & 7);
        Some(class * 100 + u16::from(*value.get(3)?))
    });
    match code {
        Some(401) => Allocation::AsksForCredentials,
        code => Allocation::Other(code.unwrap_or(0)),
    }
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
    fn a_server_that_asks_who_we_are_is_told_from_others() {
        let error = |class, number| response(0x13, &[(ERROR_CODE, &[0, 0, class, number])]);
        assert_eq!(judge(&error(4, 1)), Allocation::AsksForCredentials);
        assert_eq!(judge(&error(4, 3)), Allocation::Other(403));
        assert_eq!(judge(&response(0x13, &[(ERROR_CODE, &[0])])), Allocation::Other(0));
        assert!(is_reply(&error(4, 1), &ID) && !is_reply(&error(4, 1), &[8; 12]));
    }
}
