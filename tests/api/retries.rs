//! Asking again: what was done once is not done twice, and the answer is the same.

use serde_json::json;

use crate::support::client::Client;
use crate::support::server::TestServer;

fn text(id: u64, method: &str, params: serde_json::Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

#[tokio::test]
async fn a_repeated_request_has_the_first_answer_on_any_connection() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let first = client.call("create", json!({"type": "MediaPipeline"})).await;
    let session = &first["sessionId"];
    let again = text(500, "create", json!({"type": "MediaPipeline", "sessionId": session}));
    let answer = client.ask(&again).await;
    let mut other = Client::connect(server.address).await;
    assert_eq!(client.ask(&again).await, answer);
    assert_eq!(other.ask(&again).await, answer);
    let pipelines = other.invoke("manager_ServerManager", "getPipelines", json!({})).await;
    assert_eq!(pipelines.as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn another_request_under_the_same_id_is_carried_out() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let get = text(7, "invoke", json!({"object": pipeline, "operation": "getName"}));
    assert!(client.ask(&get).await.contains(&pipeline));
    assert!(client.ask(&text(7, "ping", json!({}))).await.contains("pong"));
}

#[tokio::test]
async fn what_was_begun_for_a_connection_that_was_cut_is_done_once_and_answered_on_the_next() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let session = client.call("connect", json!({})).await["sessionId"].clone();
    for round in 0..20 {
        let parent = json!({"mediaPipeline": pipeline});
        let create = text(
            1_000 + round,
            "create",
            json!({"type": "PassThrough", "constructorParams": parent, "sessionId": session}),
        );
        client.send_text(&create).await;
        client.cut();
        client = Client::connect(server.address).await;
        let answer = client.ask(&create).await;
        assert!(answer.contains("_kurento.PassThrough"), "{answer}");
        assert_eq!(client.ask(&create).await, answer);
    }
    let metrics = crate::support::client::get(server.address, "/metrics").await.1;
    let line = "rivero_objects{class=\"PassThrough\"} 20";
    assert!(metrics.lines().any(|known| known == line), "{metrics}");
}

#[tokio::test]
async fn a_server_told_so_keeps_no_answers() {
    let server = TestServer::with(|config| config.resources.disable_request_cache = true).await;
    let mut client = Client::connect(server.address).await;
    let first = client.call("create", json!({"type": "MediaPipeline"})).await;
    let session = &first["sessionId"];
    let again = text(500, "create", json!({"type": "MediaPipeline", "sessionId": session}));
    assert_ne!(client.ask(&again).await, client.ask(&again).await);
}
