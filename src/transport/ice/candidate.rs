//! Candidate lines (RFC 8839 §5.1): ours as Kurento writes them, the peer's as browsers do.

use std::net::{IpAddr, SocketAddr};

use crate::transport::TransportError;

/// The priority of the first host candidate.
const FIRST_PRIORITY: u32 = 2_015_364_095;
/// One step of the local preference (RFC 8445 §5.1.2.1).
const STEP: u32 = 1 << 8;

/// A candidate of the peer.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct RemoteLine {
    pub(super) addr: SocketAddr,
    pub(super) priority: u32,
    pub(super) foundation: String,
    /// The line as it came, with `candidate:` in front.
    pub(super) line: String,
}

/// The priority of the host candidate after `at` others.
pub(super) fn local_priority(at: u32) -> u32 {
    FIRST_PRIORITY - at * STEP
}

pub(super) fn host_line(foundation: &str, priority: u32, addr: SocketAddr) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!("candidate:{foundation} 1 UDP {priority} {ip} {port} typ host")
}

/// The line of an address that only the peer's checks told of.
pub(super) fn reflexive_line(addr: SocketAddr) -> String {
    /// Type preference 110, component 1 (RFC 8445 §5.1.2).
    const PRIORITY: u32 = (110 << 24) + (65_535 << 8) + 255;
    let (ip, port) = (addr.ip(), addr.port());
    format!("candidate:0 1 UDP {PRIORITY} {ip} {port} typ prflx raddr {ip} rport {port}")
}

/// Reads a line, with or without `a=` and `candidate:` in front. `None` for what leads nowhere: TCP,
/// names (`.local` among them), the component of RTCP, addresses nobody can be reached at, and the
/// empty line that ends the list.
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
    let (foundation, component, transport) = (next()?, next()?, next()?);
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
    if component != 1 || !transport.eq_ignore_ascii_case("udp") || port == 0 {
        return Ok(None);
    }
    let reachable = address.parse().ok().filter(|&ip: &IpAddr| is_reachable(ip));
    Ok(reachable.map(|ip| RemoteLine {
        addr: SocketAddr::new(ip, port),
        // Zero would make the agent compute one of its own.
        priority: priority.max(1),
        foundation: foundation.to_owned(),
        line: format!("candidate:{line}"),
    }))
}

fn is_reachable(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            assert_eq!(remote.addr.to_string(), "192.0.2.7:46154");
            assert_eq!(remote.priority, 1_677_729_535);
            assert!(remote.line.starts_with("candidate:842163049 1 "));
        }
        let ipv6 = parse("candidate:1 1 UDP 5 2001:db8::7 9 typ host").expect("reads");
        assert_eq!(ipv6.expect("leads somewhere").addr.to_string(), "[2001:db8::7]:9");
    }

    #[test]
    fn candidates_that_lead_nowhere_are_no_error() {
        let lines = [
            "",
            "a=end-of-candidates",
            "candidate:1 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active generation 0",
            "candidate:1 1 udp 2113937151 0ae5b5b6-a6ee-4aa1-9f5a-3b0a5c3c4c3c.local 51733 typ host",
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
        let addr = "10.0.0.1:8000".parse().expect("address");
        let line = host_line("1", local_priority(0), addr);
        assert_eq!(line, "candidate:1 1 UDP 2015364095 10.0.0.1 8000 typ host");
        assert!(local_priority(15) < local_priority(14));
        assert!(parse(&line).expect("reads").is_some());
        assert!(parse(&reflexive_line(addr)).expect("reads").is_some());
    }

    proptest! {
        #[test]
        fn no_text_is_a_trap(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
