//! Sessions, as far as one statement about them needs; more is in `api::sessions`.

use std::time::Duration;

use serde_json::{Value, json};

use super::Stage;
use crate::support::client::Client;
use crate::support::server::TestServer;

#[tokio::test]
async fn a_session_may_have_any_name() {
    let mut stage = Stage::open().await;
    for name in ["123456", "naïve 😀", " ", "a/b"] {
        let params = json!({"type": "MediaPipeline", "sessionId": name});
        assert_eq!(stage.client.call("create", params).await["sessionId"], name);
        assert_eq!(
            stage.client.call("connect", json!({"sessionId": name})).await["sessionId"],
            name
        );
    }
    stage.end().await;
}

#[tokio::test]
async fn every_reply_tells_the_session() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    let own = stage.client.call("ping", Value::Null).await["sessionId"].clone();
    let subscription = stage.client.subscribe(&pipeline, "Error").await;
    for (method, params) in [
        ("ping", json!({"interval": 5_000})),
        ("connect", json!({})),
        ("describe", json!({"object": pipeline})),
        ("invoke", json!({"object": pipeline, "operation": "getName"})),
        ("ref", json!({"object": pipeline})),
        ("keepAlive", json!({})),
        ("unsubscribe", json!({"object": pipeline, "subscription": subscription})),
        ("unref", json!({"object": "nobody"})),
        ("transaction", json!({"operations": []})),
        ("release", json!({"object": pipeline})),
    ] {
        assert_eq!(stage.client.call(method, params).await["sessionId"], own, "{method}");
    }
    assert_eq!(stage.client.call("closeSession", json!({})).await, Value::Null);
    stage.end().await;
}

#[tokio::test]
async fn who_lists_pipelines_keeps_none_of_them_alive() {
    let period = Duration::from_millis(300);
    let server = TestServer::with(|config| config.sessions.collector_period = period).await;
    let mut watcher = Client::connect(server.address).await;
    let mut gone = Client::connect(server.address).await;
    let pipeline = gone.create("MediaPipeline", json!({})).await;
    gone.cut();
    // With the original, a client that asks often enough keeps everything alive.
    while watcher.invoke("manager_ServerManager", "getPipelines", json!({})).await != json!([]) {
        tokio::task::yield_now().await;
    }
    let params = json!({"object": pipeline, "operation": "getName"});
    assert_eq!(watcher.fail("invoke", params).await.0, 40101);
}

#[tokio::test]
async fn the_server_has_one_name_as_long_as_it_runs() {
    let mut stage = Stage::open().await;
    let mut other = Client::connect(stage.server.address()).await;
    let first = stage.client.call("connect", Value::Null).await;
    let second = other.call("connect", Value::Null).await;
    assert_eq!(first["serverId"], second["serverId"]);
    assert_ne!(first["sessionId"], second["sessionId"]);
    stage.end().await;
}
