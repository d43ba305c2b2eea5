//! The control ports: which addresses they are bound to, and the certificate of the one with TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

use super::tls::{self, Identity};
use crate::config::ControlConfig;

/// A port that connections come to.
pub struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
}

impl Listener {
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// What could be opened: at least one port, that without TLS first.
pub struct Listeners {
    pub list: Vec<Listener>,
    /// The certificate of the port with TLS, if there is one.
    pub identity: Option<Arc<Identity>>,
}

/// Opens the control ports. One that cannot be had is told in the log, as long as there is another.
///
/// # Errors
/// When there is none, or the certificate cannot be used.
pub fn listen(config: &ControlConfig) -> io::Result<Listeners> {
    let mut list = Vec::new();
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no port to listen on");
    let mut open =
        |port: u16, tls: Option<TlsAcceptor>, list: &mut Vec<Listener>| match bind(config, port) {
            Ok(socket) => list.push(Listener { socket, tls }),
            Err(error) => {
                let place = config.bind.map_or("every address".to_owned(), |ip| ip.to_string());
                tracing::error!(port, address = place, %error, "cannot listen");
                let text = format!("control at {place}, port {port}: {error}");
                failure = io::Error::new(error.kind(), text);
            }
        };
    if config.plain {
        open(config.port, None, &mut list);
    }
    let mut identity = None;
    if let (Some(port), Some(file)) = (config.secure.port, &config.secure.certificate) {
        let loaded = Arc::new(Identity::load(file).map_err(io::Error::other)?);
        let acceptor = tls::server_config(loaded.clone()).map_err(io::Error::other)?;
        identity = Some(loaded);
        open(port, Some(acceptor.into()), &mut list);
    }
    if list.is_empty() { Err(failure) } else { Ok(Listeners { list, identity }) }
}

/// Without an address: all of both families where the system has both, those of IPv4 else.
fn bind(config: &ControlConfig, port: u16) -> io::Result<TcpListener> {
    let at = |address: IpAddr| bind_at(SocketAddr::new(address, port), config.backlog);
    match config.bind {
        Some(address) => at(address),
        None if config.ipv6 => {
            at(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| at(Ipv4Addr::UNSPECIFIED.into()))
        }
        None => at(Ipv4Addr::UNSPECIFIED.into()),
    }
}

fn bind_at(address: SocketAddr, backlog: Option<u32>) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        both_families(&socket)?;
    }
    notice_absence(&socket)?;
    socket.bind(address)?;
    // The system cuts it to what it allows.
    socket.listen(backlog.unwrap_or(libc::SOMAXCONN.unsigned_abs()).clamp(1, i32::MAX as u32))
}

/// Has connections end whose peer vanished without a word, so that somebody else finds the place
/// and the session free. Accepted sockets inherit it.
fn notice_absence(socket: &TcpSocket) -> io::Result<()> {
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        // Seconds of silence until the first probe, and between probes.
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 30),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 10),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
        // Milliseconds in which what was sent is acknowledged (RFC 5482).
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 60_000),
    ] {
        set(socket, level, option, value)?;
    }
    Ok(())
}

/// Has a socket for IPv6 take IPv4 too, whatever the system's default is (RFC 3493 §5.3).
fn both_families(socket: &TcpSocket) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)
}

fn set(socket: &TcpSocket, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `socket` is, and the option is an int that lives
    // through the call.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_notice_when_their_peer_is_gone() {
        let config = ControlConfig { port: 0, ..ControlConfig::default() };
        let opened = listen(&config).expect("a free port");
        let listener = &opened.list[0];
        let address = listener.address().expect("it is bound");
        let (accepted, peer) = tokio::join!(listener.socket.accept(), TcpStream::connect(address));
        let (accepted, _peer) = (accepted.expect("a connection").0, peer.expect("a connection"));
        let value = |level, option| {
            let mut value: libc::c_int = 0;
            let mut length = size_of_val(&value) as libc::socklen_t;
            // SAFETY: the descriptor is open, and both places live through the call.
            let status = unsafe {
                libc::getsockopt(
                    accepted.as_raw_fd(),
                    level,
                    option,
                    (&raw mut value).cast(),
                    &raw mut length,
                )
            };
            assert_eq!(status, 0);
            value
        };
        assert_eq!(value(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        let of_tcp =
            [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT, libc::TCP_USER_TIMEOUT];
        let values = of_tcp.map(|option| value(libc::IPPROTO_TCP, option));
        assert_eq!(values, [30, 10, 3, 60_000]);
    }
}
