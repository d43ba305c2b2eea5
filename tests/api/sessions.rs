//! Sessions: who holds what, which connection is bound to which session, when sessions end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::server::TestServer;

const INVALID_SESSION: i64 = 40007;

async fn session(client: &mut Client) -> Value {
    client.call("ping", Value::Null).await["sessionId"].clone()
}

/// A pipeline with two elements.
async fn house(client: &mut Client) -> (String, String, String) {
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let constructor = json!({"mediaPipeline": pipeline});
    let first = client.create("PassThrough", constructor.clone()).await;
    let second = client.create("PassThrough", constructor).await;
    (pipeline, first, second)
}

async fn exists(client: &mut Client, object: &str) -> bool {
    let params = json!({"object": object, "operation": "getName"});
    client.request("invoke", params).await.get("error").is_none()
}

#[tokio::test]
async fn connect_alone_makes_a_name_but_no_session() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let first = client.call("connect", Value::Null).await;
    assert!(first["serverId"].is_string() && first["sessionId"].is_string());
    assert_eq!(client.fail("connect", json!({})).await.0, INVALID_SESSION);
    client.create("MediaPipeline", json!({})).await;
    assert_eq!(client.call("connect", json!({})).await, first);
}

#[tokio::test]
async fn unknown_sessions_are_refused_by_connect_and_keep_alive_only() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for method in ["connect", "keepAlive"] {
        let error = client.fail(method, json!({"sessionId": "mine"})).await;
        assert_eq!(error, (INVALID_SESSION, "Invalid session".to_owned()));
    }
    let params = json!({"sessionId": "mine", "type": "MediaPipeline"});
    assert_eq!(client.call("create", params).await["sessionId"], "mine");
    for method in ["connect", "keepAlive"] {
        assert_eq!(client.call(method, json!({"sessionId": "mine"})).await["sessionId"], "mine");
    }
}

#[tokio::test]
async fn requests_without_a_session_take_the_one_of_the_latest_reply() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(session(&mut client).await, Value::Null);
    for (named, known) in [(json!("a"), "a"), (json!(5), "5")] {
        let reply = client.call("ping", json!({"sessionId": named, "interval": 5000})).await;
        assert_eq!(reply, json!({"sessionId": known, "value": "pong"}));
        assert_eq!(session(&mut client).await, known);
    }
    client.call("ping", json!({"sessionId": "b"})).await;
    let nameless = client.call("ping", json!({"sessionId": null})).await;
    assert_eq!(nameless, json!({"sessionId": "", "value": "pong"}));
    assert_eq!(client.call("ping", json!({"sessionId": {}})).await["sessionId"], "b");
    client.fail("connect", json!({"sessionId": "unknown"})).await;
    assert_eq!(session(&mut client).await, "b");
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let server = TestServer::start().await;
    let mut first = Client::connect(server.address).await;
    let mut second = Client::connect(server.address).await;
    let (_, element, sink) = house(&mut first).await;
    let name = session(&mut first).await;
    first.subscribe(&element, "ElementConnected").await;

    second.call("connect", json!({"sessionId": name})).await;
    assert_eq!(session(&mut first).await, Value::Null);
    second.invoke(&element, "connect", json!({"sink": sink})).await;
    assert_eq!(second.events().await.len(), 3);
    assert_eq!(first.events().await.len(), 0);

    let params = json!({"object": element, "operation": "connect",
        "operationParams": {"sink": sink}, "sessionId": name});
    first.call("invoke", params).await;
    assert_eq!(first.events().await.len(), 3);
    assert_eq!(second.events().await.len(), 0);
}

#[tokio::test]
async fn objects_outlive_the_connection_and_the_session_comes_back() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let (_, element, sink) = house(&mut client).await;
    client.subscribe(&element, "ElementConnected").await;
    let name = session(&mut client).await;
    client.cut();

    let mut other = Client::connect(server.address).await;
    other.invoke(&element, "connect", json!({"sink": sink})).await;
    let mut client = Client::connect(server.address).await;
    client.call("connect", json!({"sessionId": name})).await;
    assert_eq!(client.events().await.len(), 0, "what happened meanwhile is lost");
    other.invoke(&element, "connect", json!({"sink": sink})).await;
    for _ in 0..3 {
        assert_eq!(client.event().await["type"], "ElementConnected");
    }
}

#[tokio::test]
async fn an_object_lives_as_long_as_a_session_that_named_it() {
    let server = TestServer::start().await;
    let mut owner = Client::connect(server.address).await;
    let mut guest = Client::connect(server.address).await;
    let (pipeline, named, sibling) = house(&mut owner).await;
    assert!(exists(&mut guest, &named).await);
    let later = owner.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    assert_eq!(owner.call("closeSession", json!({})).await, Value::Null);
    assert!(!exists(&mut guest, &sibling).await);
    for object in [&pipeline, &named, &later] {
        assert!(exists(&mut guest, object).await, "{object}");
    }
    guest.call("closeSession", json!({})).await;
    assert!(!exists(&mut owner, &pipeline).await);
}

#[tokio::test]
async fn references_are_taken_and_given_back_by_hand() {
    let server = TestServer::start().await;
    let mut owner = Client::connect(server.address).await;
    let mut guest = Client::connect(server.address).await;
    let (_, element, other) = house(&mut owner).await;
    guest.call("connect", json!({})).await;
    guest.call("ref", json!({"object": element})).await;
    assert_eq!(
        guest.fail("ref", json!({"object": "nobody"})).await,
        (40101, "Object 'nobody' not found".to_owned())
    );
    owner.call("unref", json!({"object": element})).await;
    owner.call("unref", json!({"object": "nobody"})).await;
    owner.call("unref", json!({"object": other})).await;
    assert!(!exists(&mut guest, &other).await);
    assert!(exists(&mut guest, &element).await);
}

#[tokio::test]
async fn closing_with_release_destroys_for_everybody() {
    let server = TestServer::start().await;
    let mut owner = Client::connect(server.address).await;
    let mut guest = Client::connect(server.address).await;
    let (pipeline, element, _) = house(&mut owner).await;
    assert!(exists(&mut guest, &element).await);
    owner.call("closeSession", json!({"release": true})).await;
    assert!(!exists(&mut guest, &pipeline).await);
    assert!(!exists(&mut guest, &element).await);
}

#[tokio::test]
async fn closing_a_session_that_is_not_there_succeeds() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for params in [json!({"sessionId": "nope"}), json!({"sessionId": "nope", "release": "x"})] {
        assert_eq!(client.call("closeSession", params).await, Value::Null);
    }
}

#[tokio::test]
async fn a_closed_session_can_be_used_again() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.create("MediaPipeline", json!({})).await;
    let name = session(&mut client).await;
    client.call("closeSession", json!({})).await;
    assert_eq!(client.fail("connect", json!({})).await.0, INVALID_SESSION);
    client.create("MediaPipeline", json!({})).await;
    assert_eq!(client.call("connect", json!({})).await["sessionId"], name);
}

#[tokio::test]
async fn the_collector_takes_what_nobody_uses_and_leaves_idle_connections_alone() {
    let period = Duration::from_millis(400);
    let server = TestServer::with(|config| config.sessions.collector_period = period).await;
    let mut idle = Client::connect(server.address).await;
    let (kept, ..) = house(&mut idle).await;
    let mut gone = Client::connect(server.address).await;
    let (left, ..) = house(&mut gone).await;
    gone.cut();
    let mut watcher = Client::connect(server.address).await;
    watcher.subscribe("manager_ServerManager", "ObjectDestroyed").await;
    for _ in 0..3 {
        let event = watcher.event().await;
        let object = event["data"]["objectId"].as_str().expect("an id").to_owned();
        assert!(object.starts_with(&left), "{object}");
    }
    assert!(exists(&mut idle, &kept).await);
    assert_eq!(idle.call("connect", json!({})).await["sessionId"], session(&mut idle).await);
}
