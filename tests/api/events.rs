//! Subscriptions, and the events they bring.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::server::TestServer;

async fn pair(client: &mut Client) -> (String, String) {
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let constructor = json!({"mediaPipeline": pipeline});
    let source = client.create("PassThrough", constructor.clone()).await;
    (source, client.create("PassThrough", constructor).await)
}

#[tokio::test]
async fn an_event_comes_before_the_reply_that_caused_it_and_looks_so() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let (source, sink) = pair(&mut client).await;
    client.subscribe(&source, "ElementConnected").await;
    let request = json!({"jsonrpc": "2.0", "id": 99, "method": "invoke", "params": {
        "object": source, "operation": "connect", "operationParams": {"sink": sink}}});
    client.send_text(&request.to_string()).await;
    for media_type in ["AUDIO", "VIDEO", "DATA"] {
        let mut message: Value = serde_json::from_str(&client.text().await).expect("JSON");
        let data = &mut message["params"]["value"]["data"];
        assert!(data["timestampMillis"].take().is_string());
        assert!(data["timestamp"].take().is_string());
        let data = json!({"mediaType": media_type, "sink": sink,
            "sinkMediaDescription": "default", "source": source,
            "sourceMediaDescription": "default", "tags": [], "timestamp": null,
            "timestampMillis": null, "type": "ElementConnected"});
        let value = json!({"data": data, "object": source, "type": "ElementConnected"});
        assert_eq!(
            message,
            json!({"jsonrpc": "2.0", "method": "onEvent", "params": {"value": value}})
        );
    }
    let reply: Value = serde_json::from_str(&client.text().await).expect("JSON");
    assert_eq!(reply["id"], 99);
}

#[tokio::test]
async fn a_session_hears_once_however_often_it_subscribed() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let (source, sink) = pair(&mut client).await;
    let first = client.subscribe(&source, "ElementConnected").await;
    let second = client.subscribe(&source, "ElementConnected").await;
    assert_ne!(first, second);
    for (subscription, heard) in [(None, 3), (Some(first), 3), (Some(second), 0)] {
        if let Some(subscription) = subscription {
            let params = json!({"object": source, "subscription": subscription});
            let result = client.call("unsubscribe", params).await;
            assert!(result.get("value").is_none());
        }
        client.invoke(&source, "connect", json!({"sink": sink})).await;
        assert_eq!(client.events().await.len(), heard);
    }
}

#[tokio::test]
async fn every_session_that_subscribed_hears() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let mut other = Client::connect(server.address).await;
    let (source, sink) = pair(&mut client).await;
    client.subscribe(&source, "ElementConnected").await;
    other.subscribe(&source, "ElementConnected").await;
    client.invoke(&source, "connect", json!({"sink": sink})).await;
    assert_eq!((client.events().await.len(), other.events().await.len()), (3, 3));
    client.call("closeSession", json!({})).await;
    other.invoke(&source, "connect", json!({"sink": source})).await;
    assert_eq!((client.events().await.len(), other.events().await.len()), (0, 3));
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_named_and_what_cannot_be_unsubscribed_is_ignored() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let (source, _) = pair(&mut client).await;
    for (object, event, code, text) in [
        (&*source, json!("Nothing"), 40106, "Event 'Nothing' not supported"),
        (&source, json!(5), 40106, "Event '5' not supported"),
        (&source, json!("IceCandidateFound"), 40106, "Event 'IceCandidateFound' not supported"),
        ("nope", json!("Error"), 40101, "Object 'nope' not found"),
    ] {
        let error = client.fail("subscribe", json!({"object": object, "type": event})).await;
        assert_eq!(error, (code, text.to_owned()));
    }
    for object in [&*source, "nope"] {
        client.call("unsubscribe", json!({"object": object, "subscription": "nope"})).await;
    }
    client.subscribe(&source, "MediaFlowInStateChange").await;
}

#[tokio::test]
async fn the_manager_tells_of_objects_that_come_and_go_children_first() {
    let server = TestServer::start().await;
    let mut watcher = Client::connect(server.address).await;
    for event in ["ObjectCreated", "ObjectDestroyed"] {
        watcher.subscribe("manager_ServerManager", event).await;
    }
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let element = client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    client.call("release", json!({"object": pipeline})).await;
    for (name, member, id) in [
        ("ObjectCreated", "object", &pipeline),
        ("ObjectCreated", "object", &element),
        ("ObjectDestroyed", "objectId", &element),
        ("ObjectDestroyed", "objectId", &pipeline),
    ] {
        let event = watcher.event().await;
        let data = &event["data"];
        assert_eq!((&event["type"], &data[member]), (&json!(name), &json!(id)));
        assert_eq!(event["object"], "manager_ServerManager");
        assert_eq!(data["source"], "manager_ServerManager");
        assert!(data.get("type").is_none() && data["tags"] == json!([]));
    }
}
