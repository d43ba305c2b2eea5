//! WebSockets, as far as one client sees them; more is in `api::transport`.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Stage;

#[tokio::test]
async fn neither_extensions_nor_subprotocols_are_negotiated_and_any_origin_is_welcome() {
    let stage = Stage::open().await;
    let mut stream = TcpStream::connect(stage.server.address()).await.expect("the server listens");
    let request = "GET /kurento HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
        Origin: http://elsewhere.example\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the connection is open");
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        answer.push(char::from(stream.read_u8().await.expect("an answer")));
    }
    let answer = answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    for word in ["extensions", "protocol:"] {
        assert!(!answer.contains(word), "{answer}");
    }
    drop(stream);
    stage.end().await;
}

#[tokio::test]
async fn a_close_is_echoed_with_its_code() {
    let mut stage = Stage::open().await;
    for code in [1000, 1001, 4_000] {
        let mut client = crate::support::client::Client::connect(stage.server.address()).await;
        let frame = CloseFrame { code: CloseCode::from(code), reason: "bye".into() };
        client.send(Message::Close(Some(frame))).await;
        assert_eq!(client.closed().await.map(|frame| u16::from(frame.code)), Some(code));
    }
    assert_eq!(stage.client.call("ping", Value::Null).await["value"], "pong");
    stage.end().await;
}

#[tokio::test]
async fn a_message_of_megabytes_is_as_good_as_any() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    let params =
        json!({"object": pipeline, "operation": "getName", "padding": "x".repeat(20 << 20)});
    assert_eq!(stage.client.call("invoke", params).await["value"], json!(pipeline));
    stage.end().await;
}
