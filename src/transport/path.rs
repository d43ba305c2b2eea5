//! What kind of path an address belongs to.
//!
//! The address of a UDP socket is the kernel's own. One of a TCP connection or of a relay could be equal
//! to it and mean something else, so within the server such addresses carry a mark, and two that differ
//! in the mark differ. The mark sits in the zone of an IPv6 address, where the kernel has the small
//! numbers of interfaces, and where no address that is announced has anything at all.
//!
//! Connections that a session opens have no port of ours before they are open. They are told apart by
//! the session: many of them may go to one address, as to that of another server.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

const TCP: u32 = 1 << 31;
const RELAY: u32 = 1 << 30;
/// The address below is one of IPv4, in its IPv6-mapped form.
const IPV4: u32 = 1 << 29;

/// How datagrams travel between two addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Path {
    Udp,
    /// Framed over a connection (RFC 4571).
    Tcp,
    /// Over a TURN server (RFC 8656): the address is one of the server's.
    Relay,
}

/// The kind of path that an address belongs to.
pub fn of(addr: SocketAddr) -> Path {
    match mark_of(addr) {
        TCP => Path::Tcp,
        RELAY => Path::Relay,
        _ => Path::Udp,
    }
}

/// An address of the network as one of a TCP connection.
pub fn tcp(addr: SocketAddr) -> SocketAddr {
    mark(addr, TCP)
}

/// The local end of connections that a session opens from this address.
pub fn outward(ip: IpAddr, session: [u8; 4]) -> SocketAddr {
    match tcp(SocketAddr::new(ip, 0)) {
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(u32::from_be_bytes(session));
            v6.into()
        }
        v4 => v4,
    }
}

/// Which session opens connections from this local end, if it is one of [`outward`].
pub fn opener(local: SocketAddr) -> Option<[u8; 4]> {
    match local {
        SocketAddr::V6(v6) if of(local) == Path::Tcp && v6.port() == 0 => {
            Some(v6.flowinfo().to_be_bytes())
        }
        _ => None,
    }
}

/// An address of the network as one that a relay lends.
pub fn relay(addr: SocketAddr) -> SocketAddr {
    mark(addr, RELAY)
}

/// The address as the network knows it.
pub fn plain(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if mark_of(addr) != 0 => {
            let ipv4 = v6.ip().to_ipv4_mapped().filter(|_| v6.scope_id() & IPV4 != 0);
            let ip = ipv4.map_or(IpAddr::V6(*v6.ip()), IpAddr::V4);
            SocketAddr::new(ip, v6.port())
        }
        _ => addr,
    }
}

fn mark_of(addr: SocketAddr) -> u32 {
    match addr {
        SocketAddr::V6(addr) => addr.scope_id() & (TCP | RELAY),
        SocketAddr::V4(_) => 0,
    }
}

fn mark(addr: SocketAddr, mark: u32) -> SocketAddr {
    let (ip, family) = match plain(addr).ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), IPV4),
        IpAddr::V6(ip) => (ip, 0),
    };
    SocketAddrV6::new(ip, addr.port(), 0, mark | family).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_paths_apart_and_can_be_taken_off() {
        for text in ["192.0.2.7:9", "[2001:db8::7]:9", "[::ffff:192.0.2.7]:9"] {
            let addr: SocketAddr = text.parse().expect("an address");
            let all = [addr, tcp(addr), relay(addr)];
            assert_eq!(all.map(of), [Path::Udp, Path::Tcp, Path::Relay]);
            assert_eq!(all.map(plain), [addr; 3]);
            assert_eq!(tcp(relay(addr)), tcp(addr));
        }
        let [a, b] = ["192.0.2.7:9", "[::ffff:192.0.2.7]:9"].map(|text| text.parse().expect("one"));
        assert_ne!(tcp(a), tcp(b));
    }

    #[test]
    fn connections_know_the_session_that_opened_them() {
        let ip: IpAddr = "192.0.2.7".parse().expect("an address");
        let [one, other] = [*b"abcd", *b"abce"].map(|session| outward(ip, session));
        assert_ne!(one, other);
        assert_eq!((of(one), plain(one)), (Path::Tcp, SocketAddr::new(ip, 0)));
        assert_eq!((opener(one), opener(other)), (Some(*b"abcd"), Some(*b"abce")));
        assert_eq!(opener(tcp(SocketAddr::new(ip, 9))), None);
        assert_eq!(opener(SocketAddr::new(ip, 0)), None);
    }
}
