//! JSON-RPC: what is no request, and how replies look.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::server::TestServer;

const INVALID: &str =
    r#"{"error":{"code":-32600,"message":"Invalid JSON-RPC request."},"id":null,"jsonrpc":"2.0"}"#;
const UNREADABLE: &str =
    r#"{"error":{"code":-32700,"message":"Parse error."},"id":null,"jsonrpc":"2.0"}"#;

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let mut bystander = Client::connect(server.address).await;
    for bound in [false, true] {
        for text in ["", "not json", r#"{"jsonrpc":"2.0","id":1,"method":"#, "{\"a\":NaN}", "[[["] {
            assert_eq!(client.ask(text).await, UNREADABLE, "{text:.30}, bound: {bound}");
        }
        for text in [
            "[]",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            "5",
            "null",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":[],"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ] {
            assert_eq!(client.ask(text).await, INVALID, "{text}, bound: {bound}");
        }
        assert_eq!(bystander.call("ping", Value::Null).await, json!({"value": "pong"}));
        client.call("create", json!({"type": "MediaPipeline"})).await;
    }
}

#[tokio::test]
async fn unknown_methods_are_named_so() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for method in ["nosuch", "", "Invoke"] {
        let reply = client.request(method, Value::Null).await;
        assert_eq!(reply["error"], json!({"code": -32601, "message": "Method not found."}));
    }
}

#[tokio::test]
async fn without_params_and_session_there_is_nothing_to_do() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let missing = json!({
        "code": -32602, "data": {"type": "INVALID_PARAMS"}, "message": "'params' is required"});
    for method in [
        "invoke",
        "create",
        "release",
        "describe",
        "subscribe",
        "unsubscribe",
        "ref",
        "unref",
        "closeSession",
        "keepAlive",
    ] {
        assert_eq!(client.request(method, Value::Null).await["error"], missing, "{method}");
    }
    client.call("connect", Value::Null).await;
    assert_eq!(
        client.fail("create", Value::Null).await,
        (-32000, "'type' parameter is required".to_owned())
    );
}

#[tokio::test]
async fn params_that_are_no_object_are_refused() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for params in [json!([]), json!("x"), json!(5)] {
        for method in ["ping", "create"] {
            let error = client.fail(method, params.clone()).await;
            assert_eq!(error, (-32602, "'params' should be an object".to_owned()));
        }
    }
}

#[tokio::test]
async fn missing_and_mistyped_members_are_named() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.call("connect", Value::Null).await;
    for (method, params, text) in [
        ("create", json!({}), "'type' parameter is required"),
        ("create", json!({"type": {}}), "'type' parameter should be a string"),
        ("invoke", json!({}), "'operation' parameter is required"),
        ("invoke", json!({"object": "x"}), "'operation' parameter is required"),
        ("invoke", json!({"operation": "x"}), "'object' parameter is required"),
        ("release", json!({}), "'object' parameter is required"),
        ("describe", json!({}), "'object' parameter is required"),
        ("describe", json!({"object": []}), "'object' parameter should be a string"),
        ("subscribe", json!({"object": "x"}), "'type' parameter is required"),
        ("subscribe", json!({"type": "x"}), "'object' parameter is required"),
        ("unsubscribe", json!({"object": "x"}), "'subscription' parameter is required"),
        ("unsubscribe", json!({"subscription": "x"}), "'object' parameter is required"),
        ("ref", json!({}), "'object' parameter is required"),
        ("unref", json!({}), "'object' parameter is required"),
    ] {
        let reply = client.request(method, params.clone()).await;
        let error = json!({"code": -32000, "message": text});
        assert_eq!(reply["error"], error, "{method} {params}");
    }
}

#[tokio::test]
async fn verbs_that_need_a_session_say_so() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for method in ["unsubscribe", "ref", "unref", "closeSession", "keepAlive"] {
        let error = client.fail(method, json!({"object": "x", "subscription": "x"})).await;
        assert_eq!(error, (-32000, "'sessionId' parameter is required".to_owned()), "{method}");
    }
}

#[tokio::test]
async fn a_notification_is_carried_out_and_told_that_its_result_is_lost() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let text = r#"{"jsonrpc":"2.0","method":"ping"}"#;
    assert_eq!(
        client.ask(text).await,
        concat!(
            r#"{"error":{"code":-32000,"data":{"value":"pong"},"message":"Ignoring response "#,
            r#"because of a notification request"},"id":null,"jsonrpc":"2.0"}"#
        )
    );
    client
        .send_text(r#"{"jsonrpc":"2.0","method":"create","params":{"type":"MediaPipeline"}}"#)
        .await;
    let reply: Value = serde_json::from_str(&client.text().await).expect("JSON");
    let object = reply["error"]["data"]["value"].as_str().expect("an id").to_owned();
    assert_eq!(client.invoke(&object, "getName", json!({})).await, json!(object));
}

#[tokio::test]
async fn texts_outside_ascii_come_back_escaped() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let object = client.create("MediaPipeline", json!({})).await;
    client.invoke(&object, "setName", json!({"name": "é😀"})).await;
    let request = json!({"jsonrpc": "2.0", "id": "ü", "method": "invoke",
        "params": {"object": object, "operation": "getName"}});
    let reply = client.ask(&request.to_string()).await;
    assert!(
        reply.starts_with(r#"{"id":"\u00fc","jsonrpc":"2.0","result":{"sessionId":""#),
        "{reply}"
    );
    assert!(reply.ends_with(r#","value":"\u00e9\ud83d\ude00"}}"#), "{reply}");
}
