//! HTTP and WebSockets on the control port.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::support::client::{Client, get};
use crate::support::server::TestServer;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const PONG: &str = r#"{"id":1,"jsonrpc":"2.0","result":{"value":"pong"}}"#;

#[tokio::test]
async fn a_websocket_on_another_path_is_closed_with_1002() {
    let server = TestServer::start().await;
    for path in ["/", "/kurento/", "/other"] {
        let mut client = Client::connect_to(server.address, path).await;
        let frame = client.closed().await.expect("closed with a frame");
        assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Protocol, "Invalid path"));
    }
}

#[tokio::test]
async fn a_query_behind_the_path_is_ignored() {
    let server = TestServer::start().await;
    let mut client = Client::connect_to(server.address, "/kurento?access_token=x").await;
    assert_eq!(client.ask(PING).await, PONG);
}

#[tokio::test]
async fn a_plain_request_for_the_path_is_told_to_upgrade() {
    let server = TestServer::start().await;
    assert_eq!(get(server.address, "/kurento").await.0, 426);
}

#[tokio::test]
async fn an_upgrade_without_a_key_gets_the_500_that_health_checks_expect() {
    let server = TestServer::start().await;
    let request = "GET /kurento HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\n\r\n";
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("the connection is open");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("a status line");
    assert_eq!(&start, b"HTTP/1.1 500");
}

#[tokio::test]
async fn the_page_its_files_health_and_metrics_are_served() {
    let server = TestServer::start().await;
    for path in ["/", "/index.html", "/demo.js", "/demo.css"] {
        assert_eq!(get(server.address, path).await.0, 200, "{path}");
    }
    assert_eq!(get(server.address, "/nothing").await.0, 404);
    let (status, health) = get(server.address, "/health").await;
    let health: Value = serde_json::from_str(&health).expect("JSON");
    assert_eq!((status, &health["status"]), (200, &json!("ok")));
    assert_eq!(health["warnings"], json!([]));

    let mut client = Client::connect(server.address).await;
    client.create("MediaPipeline", json!({})).await;
    client.fail("nosuch", json!({})).await;
    let (status, metrics) = get(server.address, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "rivero_requests_total{method=\"create\"} 1",
        "rivero_requests_total{method=\"unknown\"} 1",
        "rivero_request_errors_total{code=\"-32601\"} 1",
        "rivero_objects{class=\"MediaPipeline\"} 1",
        "rivero_sessions 1",
        "rivero_connections 1",
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn a_binary_message_is_treated_like_text_and_answered_with_text() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(Message::binary(PING.as_bytes().to_vec())).await;
    assert_eq!(client.text().await, PONG);
}

#[tokio::test]
async fn invalid_utf8_closes_the_connection_with_1007() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let frame = Frame::message(vec![b'"', 0xff, b'"'], OpCode::Data(Data::Text), true);
    client.send(Message::Frame(frame)).await;
    let frame = client.closed().await.expect("closed with a frame");
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Invalid, "Invalid UTF8 encoding"));
}

#[tokio::test]
async fn fragments_make_one_message_and_pings_are_answered() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let (first, second) = PING.split_at(10);
    for (text, code, last) in [(first, Data::Text, false), (second, Data::Continue, true)] {
        let frame = Frame::message(text.as_bytes().to_vec(), OpCode::Data(code), last);
        client.send(Message::Frame(frame)).await;
    }
    assert_eq!(client.text().await, PONG);
    client.send(Message::Ping("hi".into())).await;
    assert_eq!(client.next().await, Some(Message::Pong("hi".into())));
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.create("MediaPipeline", json!({})).await;
    let (frame, ()) = tokio::join!(client.closed(), server.stop());
    let frame = frame.expect("closed with a frame");
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "terminating"));
}
