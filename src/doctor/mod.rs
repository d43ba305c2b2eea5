//! Looks at what a server would need with these settings, and says in words what to change.
//!
//! Nothing is left behind: ports are taken for a moment and given back, and so is the address that a
//! TURN server lends; a STUN server gets one question. What cannot be seen from this machine is said to be so: whether a port is open to the
//! world is known only there.

mod stun;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::Config;
use crate::config::modules::{External, TurnTransport};
use crate::metrics::{Resource, resource_limit};
use crate::transport::Refusal;
use crate::transport::interfaces::{self, Loopback};
use crate::web::Identity;

/// How long a server elsewhere may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Files that a server with some hundred connections has open.
const FEW_FILES: u64 = 4_096;
/// Bytes that the system should let a socket's buffers have: some milliseconds of a busy worker.
const BUFFER: u64 = 1 << 20;

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    Fine,
    /// The server runs, and somebody may have no joy of it.
    Warning,
    /// The server does not start, or nobody can use it.
    Trouble,
}

/// What was looked at, what was seen, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    pub severity: Severity,
    pub subject: &'static str,
    pub seen: String,
    /// Empty when there is nothing to do.
    pub advice: String,
}

impl Finding {
    fn fine(subject: &'static str, seen: impl Into<String>) -> Self {
        Self { severity: Severity::Fine, subject, seen: seen.into(), advice: String::new() }
    }

    fn warning(subject: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, subject, seen: seen.into(), advice: advice.into() }
    }

    fn trouble(subject: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Trouble, subject, seen: seen.into(), advice: advice.into() }
    }

    pub fn to_json(&self) -> Value {
        let severity = match self.severity {
            Severity::Fine => "fine",
            Severity::Warning => "warning",
            Severity::Trouble => "trouble",
        };
        json!({"advice": self.advice, "seen": self.seen, "severity": severity, "subject": self.subject})
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Fine => "fine    ",
            Severity::Warning => "warning ",
            Severity::Trouble => "TROUBLE ",
        };
        write!(f, "{mark} {}: {}", self.subject, self.seen)?;
        if !self.advice.is_empty() {
            write!(f, "\n          -> {}", self.advice)?;
        }
        Ok(())
    }
}

/// Looks at everything; takes some seconds when servers elsewhere do not answer.
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let running = control(config, &mut findings);
    certificate(config, &mut findings);
    for warning in config.warnings() {
        findings.push(Finding::warning("access", warning, "see the settings in the README"));
    }
    let addresses = media_addresses(config, &mut findings);
    if running {
        let seen = "not looked at, for the server that is running has them";
        findings.push(Finding::fine("media ports", seen));
    } else {
        media_ports(config, &addresses, &mut findings);
    }
    let reflexive = stun_server(config, &mut findings);
    turn_server(config, &mut findings);
    findings.push(reachability(config, &addresses, reflexive, in_container()));
    findings.extend(machine());
    findings
}

/// The control port; whether a server is running there.
fn control(config: &Config, findings: &mut Vec<Finding>) -> bool {
    const SUBJECT: &str = "control port";
    if !config.control.plain {
        findings.push(Finding::fine(SUBJECT, "ws:// is not spoken"));
        return false;
    }
    let ip = config.control.bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let address = SocketAddr::new(ip, config.control.port);
    match TcpListener::bind(address) {
        Ok(_) => findings.push(Finding::fine(SUBJECT, format!("{address} is free"))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if ask(address).is_ok_and(|reply| reply.contains("\"uptime\"")) {
                findings.push(Finding::fine(SUBJECT, format!("a server is running at {address}")));
                return true;
            }
            findings.push(Finding::trouble(
                SUBJECT,
                format!("{address} is taken by another program"),
                "stop that program, or choose another port with --port",
            ));
        }
        Err(error) => findings.push(Finding::trouble(
            SUBJECT,
            format!("{address} cannot be had: {error}"),
            match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 take a privilege (CAP_NET_BIND_SERVICE); choose a higher one"
                }
                _ => "name an address of this machine with --bind",
            },
        )),
    }
    false
}

/// Asks `/health` of a server in the simplest way there is; the whole response.
///
/// # Errors
/// When nothing answers there.
pub fn ask(mut address: SocketAddr) -> io::Result<String> {
    // A server that listens everywhere is asked at home.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.take(64 * 1_024).read_to_string(&mut response)?;
    Ok(response)
}

fn certificate(config: &Config, findings: &mut Vec<Finding>) {
    const SUBJECT: &str = "certificate";
    let secure = &config.control.secure;
    match (&secure.port, &secure.certificate) {
        (None, _) => {
            let seen = "wss:// is not spoken; browsers give pages of other machines no camera";
            findings.push(Finding::fine(SUBJECT, seen));
        }
        (Some(_), None) => findings.push(Finding::trouble(
            SUBJECT,
            "wss:// is wanted, and no certificate is named",
            "name a PEM file that holds chain and private key with --certificate",
        )),
        (Some(_), Some(file)) => findings.push(match Identity::load(file) {
            Ok(_) => Finding::fine(SUBJECT, format!("{} can be used", file.display())),
            Err(error) => Finding::trouble(
                SUBJECT,
                error.to_string(),
                "the file has to hold the certificate, what is between it and its root, and the \
                 private key without a password",
            ),
        }),
    }
}

fn media_addresses(config: &Config, findings: &mut Vec<Finding>) -> Vec<IpAddr> {
    const SUBJECT: &str = "media addresses";
    let mut addresses = config.media.addresses.clone();
    if addresses.is_empty() {
        match interfaces::list(Loopback::Always) {
            Ok(list) => addresses.extend(list.into_iter().map(|interface| interface.addr)),
            Err(error) => {
                let advice = "name them with --media-address";
                findings.push(Finding::trouble(
                    SUBJECT,
                    format!("the system does not tell its addresses: {error}"),
                    advice,
                ));
            }
        }
    }
    let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    findings.push(if addresses.iter().all(IpAddr::is_loopback) {
        Finding::warning(
            SUBJECT,
            format!("only {}", names.join(", ")),
            "only browsers on this machine can send and receive media",
        )
    } else {
        Finding::fine(SUBJECT, names.join(", "))
    });
    addresses
}

fn media_ports(config: &Config, addresses: &[IpAddr], findings: &mut Vec<Finding>) {
    const SUBJECT: &str = "media ports";
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = config.media.workers.unwrap_or(cores);
    let first = config.media.port;
    let rtp = &config.modules.rtp;
    if first == 0 && !rtp.is_any() {
        let free = |port: &u16| addresses.iter().all(|ip| UdpSocket::bind((*ip, *port)).is_ok());
        let found = (rtp.min_port..=rtp.max_port).filter(free).take(workers).count();
        let range = format!("UDP {} to {}", rtp.min_port, rtp.max_port);
        findings.push(if found < workers {
            Finding::trouble(
                SUBJECT,
                format!("{range}, {found} of them free for {workers} media threads"),
                "widen the range from minPort to maxPort, or set fewer --workers",
            )
        } else {
            Finding::fine(SUBJECT, format!("{range}, enough of them free at all addresses"))
        });
        return;
    }
    let mut refused = Vec::new();
    for address in addresses {
        for worker in 0..workers {
            let port = if first == 0 { 0 } else { first.saturating_add(worker as u16) };
            if let Err(error) = UdpSocket::bind((*address, port)) {
                refused.push(format!("{address} UDP {port}: {error}"));
            }
        }
    }
    let range = match first {
        0 => "free UDP ports of the system's choice".to_owned(),
        first => format!("UDP {first} to {}", first.saturating_add(workers as u16 - 1)),
    };
    findings.push(match &refused[..] {
        [] if first == 0 => Finding::warning(
            SUBJECT,
            range,
            "a firewall or a container cannot open ports that are not known before: fix the first \
             one with --media-port, or set a range from minPort to maxPort",
        ),
        [] => Finding::fine(SUBJECT, format!("{range}, free at all addresses")),
        refused => Finding::trouble(
            SUBJECT,
            refused.join("; "),
            "choose another first port with --media-port, or other addresses with --media-address",
        ),
    });
}

/// Asks the STUN server under which address it sees this machine.
fn stun_server(config: &Config, findings: &mut Vec<Finding>) -> Option<IpAddr> {
    const SUBJECT: &str = "STUN server";
    let webrtc = &config.modules.webrtc;
    let host = webrtc.stun_address.as_deref()?;
    let server = format!("{host}:{}", webrtc.stun_port);
    match stun::resolve(host, webrtc.stun_port).and_then(|address| stun::binding(address, PATIENCE))
    {
        Ok(seen) => {
            let text = format!("{server} sees this machine at {seen}");
            findings.push(Finding::fine(SUBJECT, text));
            Some(seen.ip())
        }
        Err(error) => {
            findings.push(Finding::trouble(
                SUBJECT,
                format!("{server} does not answer: {error}"),
                "check name and port, and whether UDP may leave this network",
            ));
            None
        }
    }
}

fn turn_server(config: &Config, findings: &mut Vec<Finding>) {
    const SUBJECT: &str = "TURN server";
    let Some(turn) = &config.modules.webrtc.turn else { return };
    let transport = turn.transport.unwrap_or(TurnTransport::Udp);
    let server = format!("{}:{} over {}", turn.host, turn.port, name(transport));
    let now = Clock::start().now();
    let answer = stun::resolve(&turn.host, turn.port)
        .and_then(|address| stun::lease(now, address, turn, PATIENCE));
    findings.push(match answer {
        Ok(Ok(lent)) => Finding::fine(SUBJECT, format!("{server} lends addresses, as {}", lent.ip())),
        Ok(Err(Refusal { code, because })) => Finding::trouble(
            SUBJECT,
            format!("{server} lends no address: {because} (error {code})"),
            match code {
                401 => "correct user and password of turnURL",
                _ => "check that it is a TURN server (RFC 8656) with long-term credentials",
            },
        ),
        Err(error)
            if transport == TurnTransport::Tls && error.kind() == io::ErrorKind::InvalidData =>
        Finding::trouble(
            SUBJECT,
            format!("{server} is refused: {error}"),
            "its certificate has to be issued for the name in turnURL, by somebody whom this machine \
             trusts, or whose certificate is in the file that SSL_CERT_FILE names",
        ),
        Err(error) => Finding::trouble(
            SUBJECT,
            format!("{server} does not answer: {error}"),
            "check name, port and transport, and whether this network lets them through",
        ),
    });
}

const fn name(transport: TurnTransport) -> &'static str {
    match transport {
        TurnTransport::Udp => "UDP",
        TurnTransport::Tcp => "TCP",
        TurnTransport::Tls => "TLS",
    }
}

/// Who can reach the addresses that are announced.
fn reachability(
    config: &Config,
    addresses: &[IpAddr],
    reflexive: Option<IpAddr>,
    in_container: bool,
) -> Finding {
    const SUBJECT: &str = "reachability";
    let webrtc = &config.modules.webrtc;
    let external = [webrtc.external_ipv4, webrtc.external_ipv6].into_iter().flatten().next();
    match (external, reflexive) {
        (Some(External::Address(set)), Some(seen))
            if set.is_ipv4() == seen.is_ipv4() && set != seen =>
        {
            return Finding::warning(
                SUBJECT,
                format!("{set} is announced, and the STUN server sees {seen}"),
                "correct externalIPv4 or externalIPv6, unless peers come another way than that server",
            );
        }
        (Some(External::Address(set)), _) => {
            return Finding::fine(
                SUBJECT,
                format!("{set} is announced; whether it leads here is known only outside"),
            );
        }
        (Some(External::Auto), _) | (None, _) => {}
    }
    if addresses.iter().copied().any(is_public) {
        return Finding::fine(SUBJECT, "a public address is among the announced ones");
    }
    if reflexive.is_some() || webrtc.turn.is_some() {
        return Finding::fine(SUBJECT, "private addresses only, with a server beyond them");
    }
    let (seen, advice) = if in_container {
        (
            "addresses of a container only, which no browser elsewhere can reach",
            "fix the ports with --media-port, publish them (-p 9000:9000/udp -p 9000:9000/tcp), and say \
             under which address: KMS_EXTERNAL_IPV4=…",
        )
    } else {
        (
            "private addresses only, which browsers in other networks cannot reach",
            "if there are any, set KMS_EXTERNAL_IPV4 to the address that leads here, or name a STUN \
             or TURN server",
        )
    };
    Finding::warning(SUBJECT, seen, advice)
}

/// Whether the whole internet can send there.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

fn in_container() -> bool {
    Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists()
}

/// What the system allows.
fn machine() -> Vec<Finding> {
    let files = match resource_limit(Resource::Files) {
        Some(limit) if limit < FEW_FILES => Finding::warning(
            "open files",
            format!("{limit} are allowed, and every connection takes one"),
            "raise the limit: LimitNOFILE= of a service, ulimit -n of a shell",
        ),
        Some(limit) => Finding::fine("open files", format!("{limit} are allowed")),
        None => Finding::fine("open files", "not limited"),
    };
    let buffers = ["rmem_max", "wmem_max"].map(|name| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}"));
        (name, text.ok().and_then(|text| text.trim().parse::<u64>().ok()))
    });
    let small: Vec<_> = buffers
        .iter()
        .filter_map(|(name, bytes)| bytes.filter(|bytes| *bytes < BUFFER).map(|it| (name, it)))
        .map(|(name, bytes)| format!("net.core.{name} is {bytes}"))
        .collect();
    let buffers = if small.is_empty() {
        Finding::fine("socket buffers", "large enough")
    } else {
        Finding::warning(
            "socket buffers",
            small.join(", "),
            format!(
                "under load packets fall out: sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}"
            ),
        )
    };
    vec![files, buffers]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        addresses: &[&str],
        external: Option<&str>,
        reflexive: Option<&str>,
        in_container: bool,
    ) -> (Severity, String) {
        let ip = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let mut config = Config::default();
        config.modules.webrtc.external_ipv4 =
            external.as_ref().map(|text| External::Address(ip(text)));
        let addresses: Vec<_> = addresses.iter().map(ip).collect();
        let finding = reachability(&config, &addresses, reflexive.as_ref().map(ip), in_container);
        (finding.severity, format!("{} {}", finding.seen, finding.advice))
    }

    #[test]
    fn only_private_addresses_are_worth_a_warning_and_a_container_gets_other_advice() {
        let (severity, text) = judged(&["10.0.0.1", "127.0.0.1"], None, None, false);
        assert!(severity == Severity::Warning && text.contains("KMS_EXTERNAL_IPV4"), "{text}");
        let (severity, text) = judged(&["172.17.0.2"], None, None, true);
        assert!(severity == Severity::Warning && text.contains("publish"), "{text}");
        for fine in [&["203.0.113.4"][..], &["10.0.0.1", "2001:db8::1"]] {
            assert_eq!(judged(fine, None, None, false).0, Severity::Fine, "{fine:?}");
        }
        assert_eq!(judged(&["100.64.3.4"], None, None, false).0, Severity::Warning);
        assert_eq!(judged(&["10.0.0.1"], None, Some("203.0.113.9"), false).0, Severity::Fine);
    }

    #[test]
    fn an_announced_address_that_others_do_not_see_is_worth_a_warning() {
        let seen = |external, reflexive| judged(&["10.0.0.1"], Some(external), reflexive, false).0;
        assert_eq!(seen("203.0.113.9", Some("203.0.113.9")), Severity::Fine);
        assert_eq!(seen("203.0.113.9", None), Severity::Fine);
        assert_eq!(seen("203.0.113.9", Some("198.51.100.1")), Severity::Warning);
    }

    #[test]
    fn a_finding_says_what_to_do() {
        let finding = Finding::trouble("control port", "taken", "choose another");
        assert_eq!(
            finding.to_string(),
            "TROUBLE  control port: taken\n          -> choose another"
        );
        assert_eq!(Finding::fine("a", "b").to_string(), "fine     a: b");
        assert_eq!(finding.to_json()["severity"], "trouble");
    }
}
