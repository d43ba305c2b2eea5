//! Requests and replies as JSON-RPC.

use serde_json::{Value, json};

use super::Stage;
use crate::support::client::Client;
use crate::support::server::TestServer;

#[tokio::test]
async fn a_reply_repeats_the_id_as_it_was_sent() {
    let mut stage = Stage::open().await;
    for id in ["1", "\"abc\"", "-1", "1.5", "true", "12345678901234567890", "\"\""] {
        let request = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        let expected = format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{{"value":"pong"}}}}"#);
        assert_eq!(stage.client.ask(&request).await, expected);
    }
    stage.end().await;
}

#[tokio::test]
async fn unknown_members_are_ignored_everywhere() {
    let mut stage = Stage::open().await;
    let request = r#"{"extra":1,"id":1,"jsonrpc":"2.0","method":"create","params":
        {"type":"MediaPipeline","constructorParams":{"nothing":{}},"properties":{"x":1},"transaction":null,"y":[]}}"#;
    let reply: Value = serde_json::from_str(&stage.client.ask(request).await).expect("JSON");
    assert!(reply["result"]["value"].is_string(), "{reply}");
    stage.end().await;
}

#[tokio::test]
async fn of_two_members_with_one_name_the_last_counts() {
    let mut stage = Stage::open().await;
    let request = r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"nosuch","method":"ping"}"#;
    assert_eq!(
        stage.client.ask(request).await,
        r#"{"id":2,"jsonrpc":"2.0","result":{"value":"pong"}}"#
    );
    stage.end().await;
}

#[tokio::test]
async fn blanks_around_a_request_do_not_matter() {
    let mut stage = Stage::open().await;
    let request = " \n\t{ \"jsonrpc\" : \"2.0\", \"id\" : 1, \"method\" : \"ping\" } \r\n";
    assert_eq!(
        stage.client.ask(request).await,
        r#"{"id":1,"jsonrpc":"2.0","result":{"value":"pong"}}"#
    );
    stage.end().await;
}

fn create(id: &Value, session: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "create",
        "params": {"type": "MediaPipeline", "sessionId": session}})
    .to_string()
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_reply_of_the_first_and_is_not_carried_out() {
    let mut stage = Stage::open().await;
    let request = create(&json!("one"), &json!("mine"));
    let first = stage.client.ask(&request).await;
    assert_eq!(stage.client.ask(&request).await, first);
    // Over whatever connection: that is what it is good for.
    let mut other = Client::connect(stage.server.address()).await;
    assert_eq!(other.ask(&request).await, first);
    let pipelines = other.invoke("manager_ServerManager", "getPipelines", json!({})).await;
    assert_eq!(pipelines.as_array().map(Vec::len), Some(1));
    stage.end().await;
}

#[tokio::test]
async fn an_error_is_repeated_like_a_result() {
    let mut stage = Stage::open().await;
    let request = json!({"jsonrpc": "2.0", "id": "e", "method": "invoke", "params": {
        "object": "nobody", "operation": "getName", "sessionId": "mine"}})
    .to_string();
    let first = stage.client.ask(&request).await;
    assert!(first.contains("40101"), "{first}");
    assert_eq!(stage.client.ask(&request).await, first);
    stage.end().await;
}

#[tokio::test]
async fn another_request_with_a_used_id_is_carried_out() {
    let mut stage = Stage::open().await;
    let first = stage.client.ask(&create(&json!(7), &json!("mine"))).await;
    let ping =
        json!({"jsonrpc": "2.0", "id": 7, "method": "ping", "params": {"sessionId": "mine"}});
    let reply: Value =
        serde_json::from_str(&stage.client.ask(&ping.to_string()).await).expect("JSON");
    assert_eq!(reply["result"]["value"], "pong", "not {first}");
    stage.end().await;
}

#[tokio::test]
async fn an_id_of_another_session_is_another_id() {
    let mut stage = Stage::open().await;
    let first = stage.client.ask(&create(&json!(1), &json!("a"))).await;
    let second = stage.client.ask(&create(&json!(1), &json!("b"))).await;
    assert_ne!(first, second);
    stage.end().await;
}

#[tokio::test]
async fn the_memory_of_replies_can_be_switched_off() {
    let server = TestServer::with(|config| config.resources.disable_request_cache = true).await;
    let mut client = Client::connect(server.address).await;
    let request = create(&json!(1), &json!("a"));
    assert_ne!(client.ask(&request).await, client.ask(&request).await);
}
