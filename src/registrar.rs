//! Announces the server to a registrar: `{"jsonrpc":"2.0","method":"register","params":{"ws":URL}}` over
//! a WebSocket, once each time it opens, and again whenever the connection is lost.
//!
//! [`Patience`] says when to try again. The rest of the file is shell. What the registrar says is
//! not heard, and its certificate is not looked at, for the original does neither.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::clock::Clock;
use crate::config::{ControlConfig, PrivateUrl};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// For the way to an open WebSocket, and for taking leave.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(1);

/// When to dial: at once, then after waits that double up to a bound, and from the start again once
/// it went well.
#[derive(Debug)]
pub struct Patience {
    wait: Duration,
    dial_at: Option<Instant>,
}

/// What became of dialling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Input {
    Opened,
    /// It could not be opened, or was open and is gone.
    Lost,
}

impl Patience {
    pub fn new(now: Instant) -> Self {
        Self { wait: FIRST_WAIT, dial_at: Some(now) }
    }

    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Opened => {
                self.wait = FIRST_WAIT;
                self.dial_at = None;
            }
            Input::Lost => {
                self.dial_at = Some(now + self.wait);
                self.wait = LONGEST_WAIT.min(self.wait * 2);
            }
        }
    }

    /// When to dial; never while it is open.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.dial_at
    }
}

/// The URL that the server announces: that with TLS where there is one.
pub fn own_url(
    config: &ControlConfig,
    plain: Option<SocketAddr>,
    secure: Option<SocketAddr>,
) -> String {
    let (scheme, address) = match secure {
        Some(address) => ("wss", Some(address)),
        None => ("ws", plain),
    };
    let port = address.map_or(config.port, |address| address.port());
    format!("{scheme}://{}:{port}/{}", config.registrar.local_address, config.path)
}

/// Keeps the server announced as `own` at `place` until `stop` turns true.
pub async fn run(place: PrivateUrl, own: String, clock: Clock, mut stop: watch::Receiver<bool>) {
    let mut patience = Patience::new(clock.now());
    let register =
        json!({"jsonrpc": "2.0", "method": "register", "params": {"ws": own}}).to_string();
    while let Some(at) = patience.poll_timeout() {
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let opened = tokio::select! {
            opened = tokio::time::timeout(CONNECT_TIMEOUT, open(place.expose())) => opened,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
            Ok(socket) => {
                patience.handle_input(clock.now(), Input::Opened);
                match converse(&place, socket, &register, &mut stop).await {
                    Ok(()) if *stop.borrow() => return,
                    Ok(()) => tracing::info!(%place, "the registrar closed the connection"),
                    Err(error) => tracing::warn!(%place, %error, "no word with the registrar"),
                }
            }
            Err(error) => tracing::debug!(%place, %error, "the registrar cannot be reached"),
        }
        patience.handle_input(clock.now(), Input::Lost);
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn open(place: &str) -> Result<WebSocketStream<Box<dyn Stream>>, WsError> {
    Ok(client_async(place, dial(place).await?).await?.0)
}

/// A connection to the host that a URL names, over TLS if it says so.
async fn dial(place: &str) -> io::Result<Box<dyn Stream>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    let url: Uri = place.parse().map_err(|_| invalid("not a URL"))?;
    let secure = match url.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err(invalid("neither ws:// nor wss://")),
    };
    let host = url.host().ok_or_else(|| invalid("no host in the URL"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    if !secure {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// Registers, and listens until one side has enough.
async fn converse(
    place: &PrivateUrl,
    mut socket: WebSocketStream<Box<dyn Stream>>,
    register: &str,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), WsError> {
    socket.send(Message::text(register)).await?;
    tracing::info!(%place, "registered");
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    let frame = CloseFrame { code: CloseCode::Away, reason: "terminating".into() };
    let goodbye = async {
        socket.close(Some(frame)).await?;
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
        Ok(())
    };
    tokio::time::timeout(LINGER, goodbye).await.unwrap_or(Ok(()))
}

/// Takes every certificate, as the original does; that who shows it has its key is checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_and_start_again_after_success() {
        let mut now = Clock::start().now();
        let mut patience = Patience::new(now);
        assert_eq!(patience.poll_timeout(), Some(now));
        let mut waits = Vec::new();
        for round in 0..10 {
            if round == 9 {
                patience.handle_input(now, Input::Opened);
                assert_eq!(patience.poll_timeout(), None);
            }
            patience.handle_input(now, Input::Lost);
            let next = patience.poll_timeout().expect("it tries again");
            waits.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 100]);
    }

    #[test]
    fn the_url_is_that_with_tls_where_there_is_one() {
        let config = ControlConfig::default();
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(own_url(&config, at(8888), None), "ws://localhost:8888/kurento");
        assert_eq!(own_url(&config, at(8888), at(8433)), "wss://localhost:8433/kurento");
    }
}
