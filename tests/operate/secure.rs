//! The same over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rcgen::{CertifiedKey, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Message;

use super::process::{Folder, Program, last_number, rivero};
use crate::support::client::{Client, get};
use crate::support::server::TestServer;

fn certificate() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate")
}

fn pem(pair: &CertifiedKey<KeyPair>) -> String {
    pair.cert.pem() + &pair.signing_key.serialize_pem()
}

/// A connection that trusts `root` alone.
async fn connect(address: SocketAddr, root: &CertificateDer<'static>) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.expect("the certificate is trusted")
}

async fn ping(stream: TlsStream<TcpStream>) -> String {
    let opened = tokio_tungstenite::client_async("wss://localhost/kurento", stream).await;
    let (mut socket, _) = opened.expect("the handshake succeeds");
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    socket.send(Message::text(request)).await.expect("the connection is open");
    let reply = socket.next().await.expect("an answer").expect("an answer");
    reply.into_text().expect("a text").to_string()
}

#[tokio::test]
async fn both_ports_are_open_at_once_and_the_page_comes_over_tls_too() {
    let (folder, pair) = (Folder::new(), certificate());
    let file = folder.write("both.pem", &pem(&pair));
    let server = TestServer::with(|config| {
        config.control.secure.port = Some(0);
        config.control.secure.certificate = Some(file.into());
    })
    .await;
    let root = pair.cert.der().clone();
    let pong = r#"{"id":1,"jsonrpc":"2.0","result":{"value":"pong"}}"#;
    assert_eq!(ping(connect(server.secure_address(), &root).await).await, pong);
    let mut plain = Client::connect(server.address).await;
    assert_eq!(plain.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await, pong);

    let mut stream = connect(server.secure_address(), &root).await;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("the connection is open");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("a page");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<html"), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn who_is_slow_with_tls_is_cut() {
    let (folder, pair) = (Folder::new(), certificate());
    let file = folder.write("both.pem", &pem(&pair));
    let server = TestServer::with(|config| {
        config.control.secure.port = Some(0);
        config.control.secure.certificate = Some(file.into());
        config.limits.handshake = Duration::from_millis(50);
        // One that says nothing must not keep its turn.
        config.limits.tls_handshakes = 1;
    })
    .await;
    let mut silent = TcpStream::connect(server.secure_address()).await.expect("it listens");
    let mut byte = [0];
    assert!(matches!(silent.read(&mut byte).await, Ok(0) | Err(_)));
    let (_, metrics) = get(server.address, "/metrics").await;
    assert!(metrics.contains("rivero_connections_cut_total{reason=\"slow_handshake\"} 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_brings_a_new_certificate_and_drops_no_connection() {
    let (folder, old, new) = (Folder::new(), certificate(), certificate());
    let file = folder.write("both.pem", &pem(&old));
    let program = Program::start(rivero().args([
        "--port",
        "0",
        "--secure-port",
        "0",
        "--certificate",
        &file,
    ]));
    let line = program.line("Secure WebSocket server (wss://) listening on address '127.0.0.1'");
    let secure = SocketAddr::new(program.address.ip(), last_number(&line));
    let root = old.cert.der().clone();
    let stream = connect(secure, &root).await;
    let opened = tokio_tungstenite::client_async("wss://localhost/kurento", stream).await;
    let (mut socket, _) = opened.expect("the handshake succeeds");

    folder.write("both.pem", &pem(&new));
    program.signal(libc::SIGHUP);
    program.line("settings reloaded");
    ping(connect(secure, new.cert.der()).await).await;

    folder.write("both.pem", "nothing");
    program.signal(libc::SIGHUP);
    program.line("the certificate stays as it is");
    ping(connect(secure, new.cert.der()).await).await;

    let request = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    socket.send(Message::text(request)).await.expect("the connection is open");
    assert!(socket.next().await.expect("an answer").is_ok());
}
