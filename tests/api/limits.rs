//! What happens where a bound is reached.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{Client, get};
use crate::support::server::TestServer;

async fn slow_connection(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    socket.connect(address).await.expect("the server listens")
}

#[tokio::test]
async fn who_does_not_read_loses_the_connection_but_not_the_session() {
    let server = TestServer::with(|config| config.limits.queued_messages = 8).await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let source = client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    for number in 0..4 {
        let tag = json!({"key": format!("filler{number}"), "value": "x".repeat(50_000)});
        client.invoke(&source, "addTag", tag).await;
    }
    client.invoke(&source, "setSendTagsInEvents", json!({"sendTagsInEvents": true})).await;

    let stream = slow_connection(server.address).await;
    let mut slow = Client::over(stream, server.address, "/kurento").await;
    slow.subscribe(&source, "ElementConnected").await;
    let session = slow.call("ping", Value::Null).await["sessionId"].clone();
    for _ in 0..40 {
        client.invoke(&source, "connect", json!({"sink": source})).await;
    }
    assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
    let (_, metrics) = get(server.address, "/metrics").await;
    assert!(metrics.contains("rivero_connections_cut_total{reason=\"slow_reader\"} 1\n"));
    slow.closed().await;

    let mut back = Client::connect(server.address).await;
    back.call("connect", json!({"sessionId": session})).await;
    client.invoke(&source, "connect", json!({"sink": source})).await;
    assert_eq!(back.event().await["type"], "ElementConnected");
}

#[tokio::test]
async fn a_message_too_long_closes_its_connection_with_1009() {
    let server = TestServer::with(|config| config.limits.message_bytes = 10_000).await;
    let mut client = Client::connect(server.address).await;
    client.send_text(&" ".repeat(10_001)).await;
    let frame = client.closed().await.expect("closed with a frame");
    assert_eq!(frame.code, CloseCode::Size);
}

#[tokio::test]
async fn objects_sessions_subscriptions_and_session_ids_have_bounds() {
    let server = TestServer::with(|config| {
        config.limits.objects = 2;
        config.limits.sessions = 1;
        config.limits.subscriptions = 1;
        config.limits.session_id_bytes = 36;
    })
    .await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    client.create("MediaPipeline", json!({})).await;
    assert_eq!(
        client.fail("create", json!({"type": "MediaPipeline"})).await,
        (40009, "Reached objects limit: 2".to_owned())
    );
    client.subscribe(&pipeline, "Error").await;
    let error = client.fail("subscribe", json!({"object": pipeline, "type": "Error"})).await;
    assert_eq!(error, (40009, "Reached subscriptions limit: 1".to_owned()));

    let mut other = Client::connect(server.address).await;
    let error = other.fail("describe", json!({"object": pipeline})).await;
    assert_eq!(error, (40009, "Reached sessions limit: 1".to_owned()));
    let error = other.fail("ping", json!({"sessionId": "x".repeat(37)})).await;
    assert_eq!(error, (40009, "Reached session id bytes limit: 36".to_owned()));

    client.call("release", json!({"object": pipeline})).await;
    client.create("MediaPipeline", json!({})).await;
}

#[tokio::test]
async fn one_connection_too_many_is_answered_503_and_closed_at_once() {
    let server = TestServer::with(|config| config.limits.connections = 1).await;
    let mut client = Client::connect(server.address).await;
    client.call("ping", Value::Null).await;
    let refused = TcpStream::connect(server.address).await.expect("the system accepts");
    let mut answer = String::new();
    { refused }.read_to_string(&mut answer).await.expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    client.close().await;
    for attempt in 0.. {
        let stream = TcpStream::connect(server.address).await.expect("the system accepts");
        let url = format!("ws://{}/kurento", server.address);
        if tokio_tungstenite::client_async(url, stream).await.is_ok() {
            break;
        }
        assert!(attempt < 1_000, "the place is never free again");
        tokio::task::yield_now().await;
    }
}
