//! Candidate lines (RFC 8839 §5.1, RFC 6544 §4.5): ours as Kurento writes them, the peer's as browsers
//! do.

use std::net::{IpAddr, SocketAddr};

use crate::transport::{TransportError, path};

/// What a local candidate is, with the type preference that Kurento gives it (RFC 8445 §5.1.2.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Host,
    TcpActive,
    TcpPassive,
    ServerReflexive,
    Relay,
}

/// The port in the line of a candidate that nobody can connect to (RFC 6544 §4.5).
const DISCARD: u16 = 9;

/// A candidate of the peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RemoteLine {
    pub(super) priority: u32,
    /// The line as it came, with `candidate:` in front.
    pub(super) line: String,
    pub(super) target: Target,
    /// The user fragment that it belongs to, if it says so.
    pub(super) ufrag: Option<String>,
    /// How many restarts there were before it, if it says so.
    pub(super) generation: Option<u32>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// Marked by its path, see [`path`].
    Address(SocketAddr),
    /// A name of multicast DNS, which hides the address (draft-ietf-mmusic-mdns-ice-candidates).
    Name(String, u16),
}

/// The priority of a candidate on the local address after `at` others.
pub(super) fn local_priority(kind: Kind, at: u32) -> u32 {
    let first = match kind {
        Kind::Host => 120 << 24 | 0x20_03ff,
        Kind::TcpActive => 60 << 24 | 0x80_03ff,
        Kind::TcpPassive => 60 << 24 | 0x40_03ff,
        Kind::ServerReflexive => 100 << 24 | 0x20_03ff,
        Kind::Relay => 30 << 24 | 0x20_03ff,
    };
    // One step of the local preference.
    first - (at.min(64) << 8)
}

/// The line of a local candidate: `shown` is the address that peers are told, `base` ours behind it.
pub(super) fn local_line(
    kind: Kind,
    foundation: u32,
    priority: u32,
    shown: SocketAddr,
    base: SocketAddr,
) -> String {
    let (ip, port) = (shown.ip(), shown.port());
    let head = |transport| format!("candidate:{foundation} 1 {transport} {priority} {ip}");
    let related = || format!("raddr {} rport {}", base.ip(), base.port());
    match kind {
        Kind::Host => format!("{} {port} typ host", head("UDP")),
        Kind::TcpActive => format!("{} {DISCARD} typ host tcptype active", head("TCP")),
        Kind::TcpPassive => format!("{} {port} typ host tcptype passive", head("TCP")),
        Kind::ServerReflexive => format!("{} {port} typ srflx {}", head("UDP"), related()),
        Kind::Relay => format!("{} {port} typ relay {}", head("UDP"), related()),
    }
}

/// The line of an address that only the peer's checks told of.
pub(super) fn reflexive_line(addr: SocketAddr) -> String {
    let transport = if path::of(addr) == path::Path::Tcp { "TCP" } else { "UDP" };
    let addr = path::plain(addr);
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        "candidate:0 1 {transport} {REFLEXIVE_PRIORITY} {ip} {port} typ prflx raddr {ip} rport {port}"
    )
}

/// Type preference 110, component 1 (RFC 8445 §5.1.2).
pub(super) const REFLEXIVE_PRIORITY: u32 = (110 << 24) + (65_535 << 8) + 255;

/// Reads a line, with or without `a=` and `candidate:` in front. `None` for what leads nowhere: TCP
/// that waits for nobody, other names than `.local`, the component of RTCP, addresses nobody can be
/// reached at, and the empty line that ends the list.
///
/// # Errors
/// [`TransportError::Candidate`] if it is no candidate at all.
pub(super) fn parse(line: &str) -> Result<Option<RemoteLine>, TransportError> {
    let line = line.trim();
    let line = line.strip_prefix("a=").unwrap_or(line);
    let line = line.strip_prefix("candidate:").unwrap_or(line);
    if line.is_empty() || line == "end-of-candidates" {
        return Ok(None);
    }
    if line.len() > 1_000 {
        return Err(TransportError::Candidate("too long"));
    }
    let mut words = line.split_ascii_whitespace();
    let mut next = || words.next().ok_or(TransportError::Candidate("too short"));
    let (_foundation, component, transport) = (next()?, next()?, next()?);
    let (priority, address, port) = (next()?, next()?, next()?);
    if next()? != "typ" {
        return Err(TransportError::Candidate("no type"));
    }
    if !matches!(next()?, "host" | "srflx" | "prflx" | "relay") {
        return Err(TransportError::Candidate("unknown type"));
    }
    let component: u16 = component.parse().map_err(|_| TransportError::Candidate("component"))?;
    let priority: u32 = priority.parse().map_err(|_| TransportError::Candidate("priority"))?;
    let port: u16 = port.parse().map_err(|_| TransportError::Candidate("port"))?;
    let (mut waits, mut ufrag, mut generation) = (false, None, None);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match name {
            "tcptype" => waits = value == "passive",
            "ufrag" => ufrag = Some(value.to_owned()),
            "generation" => generation = value.parse().ok(),
            _ => {}
        }
    }
    let mark: fn(SocketAddr) -> SocketAddr = match transport {
        _ if transport.eq_ignore_ascii_case("udp") => std::convert::identity,
        _ if transport.eq_ignore_ascii_case("tcp") && waits => path::tcp,
        _ => return Ok(None),
    };
    if component != 1 || port == 0 {
        return Ok(None);
    }
    let target = match address.parse() {
        Ok(ip) if is_reachable(ip) => Target::Address(mark(SocketAddr::new(ip, port))),
        Err(_) if address.ends_with(".local") && !waits => Target::Name(address.to_owned(), port),
        _ => return Ok(None),
    };
    let (priority, line) = (priority.max(1), format!("candidate:{line}"));
    Ok(Some(RemoteLine { priority, line, target, ufrag, generation }))
}

fn is_reachable(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(addr: &str) -> Target {
        Target::Address(addr.parse().expect("an address"))
    }

    #[test]
    fn lines_of_browsers_are_read() {
        let lines = [
            "candidate:842163049 1 udp 1677729535 192.0.2.7 46154 typ srflx raddr 10.0.0.9 rport 46154 \
             generation 0 ufrag EEtu network-id 3 network-cost 10",
            "a=candidate:842163049 1 UDP 1677729535 192.0.2.7 46154 typ host",
            "842163049 1 udp 1677729535 192.0.2.7 46154 typ host generation 0",
            "  candidate:842163049 1 udp 1677729535 192.0.2.7 46154 typ host\r\n",
        ];
        for line in lines {
            let remote = parse(line).expect(line).expect(line);
            assert_eq!(remote.target, at("192.0.2.7:46154"));
            assert_eq!(remote.priority, 1_677_729_535);
            assert_eq!(remote.ufrag.as_deref(), line.contains("EEtu").then_some("EEtu"));
            assert_eq!(remote.generation, line.contains("generation").then_some(0));
            assert!(remote.line.starts_with("candidate:842163049 1 "));
        }
        let ipv6 = parse("candidate:1 1 UDP 5 2001:db8::7 9 typ host").expect("reads");
        assert_eq!(ipv6.expect("leads somewhere").target, at("[2001:db8::7]:9"));
        let line =
            "candidate:1 1 tcp 1518280447 192.0.2.7 443 typ host tcptype passive generation 0";
        let Target::Address(tcp) = parse(line).expect("reads").expect("waits for us").target else {
            panic!("an address");
        };
        assert_eq!(tcp, path::tcp("192.0.2.7:443".parse().expect("an address")));
        let hidden = parse("candidate:1 1 udp 2113937151 0ae5b5b6.local 51733 typ host");
        let expected = Target::Name("0ae5b5b6.local".to_owned(), 51_733);
        assert_eq!(hidden.expect("reads").expect("leads somewhere").target, expected);
    }

    #[test]
    fn candidates_that_lead_nowhere_are_no_error() {
        let lines = [
            "",
            "a=end-of-candidates",
            "candidate:1 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active generation 0",
            "candidate:1 1 tcp 1518280447 0ae5b5b6.local 9 typ host tcptype passive",
            "candidate:1 1 udp 2113937151 www.example.com 51733 typ host",
            "candidate:1 2 udp 2113937151 192.0.2.7 51733 typ host",
            "candidate:1 1 udp 2113937151 0.0.0.0 51733 typ host",
            "candidate:1 1 udp 2113937151 224.0.0.1 51733 typ host",
            "candidate:1 1 udp 2113937151 255.255.255.255 51733 typ host",
            "candidate:1 1 udp 2113937151 192.0.2.7 0 typ host",
        ];
        for line in lines {
            assert_eq!(parse(line).expect(line), None, "{line}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let lines = [
            "candidate",
            "1 1 udp 1 192.0.2.7 1",
            "1 1 udp 1 192.0.2.7 1 typ",
            "1 1 udp 1 192.0.2.7 1 type host",
            "1 1 udp 1 192.0.2.7 1 typ magic",
            "1 x udp 1 192.0.2.7 1 typ host",
            "1 1 udp -1 192.0.2.7 1 typ host",
            "1 1 udp 1 192.0.2.7 70000 typ host",
        ];
        for line in lines {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn our_lines_are_those_of_the_original() {
        let addr = "127.0.0.1:8000".parse().expect("address");
        let line =
            |kind, foundation| local_line(kind, foundation, local_priority(kind, 0), addr, addr);
        assert_eq!(line(Kind::Host, 1), "candidate:1 1 UDP 2015364095 127.0.0.1 8000 typ host");
        assert_eq!(
            line(Kind::TcpActive, 2),
            "candidate:2 1 TCP 1015022591 127.0.0.1 9 typ host tcptype active"
        );
        assert_eq!(
            line(Kind::TcpPassive, 3),
            "candidate:3 1 TCP 1010828287 127.0.0.1 8000 typ host tcptype passive"
        );
        assert!(line(Kind::Relay, 4).ends_with("typ relay raddr 127.0.0.1 rport 8000"));
        assert!(local_priority(Kind::Host, 15) < local_priority(Kind::Host, 14));
        for kind in [Kind::Host, Kind::TcpPassive, Kind::ServerReflexive, Kind::Relay] {
            assert!(parse(&line(kind, 1)).expect("reads").is_some(), "{kind:?}");
        }
        assert_eq!(parse(&line(Kind::TcpActive, 1)).expect("reads"), None);
        assert!(parse(&reflexive_line(addr)).expect("reads").is_some());
    }

    proptest! {
        #[test]
        fn no_text_is_a_trap(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
