//! Subscriptions and the messages they bring.

use serde_json::{Value, json};

use super::{Stage, error};

#[tokio::test]
async fn an_event_that_a_class_does_not_have_is_40106() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    for event in ["Nope", "ElementConnected", "", "error"] {
        let failed =
            stage.client.fail("subscribe", json!({"object": pipeline, "type": event})).await;
        assert_eq!(failed, error(40106, &format!("Event '{event}' not supported")));
    }
    stage.end().await;
}

#[tokio::test]
async fn an_object_that_is_not_there_has_no_events() {
    let mut stage = Stage::open().await;
    let failed = stage.client.fail("subscribe", json!({"object": "nobody", "type": "Error"})).await;
    assert_eq!(failed, error(40101, "Object 'nobody' not found"));
    stage.end().await;
}

#[tokio::test]
async fn messages_stop_with_the_last_of_several_subscriptions() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    let first = stage.client.subscribe(&element, "ElementConnected").await;
    let second = stage.client.subscribe(&element, "ElementConnected").await;
    assert_ne!(first, second);
    for (subscription, expected) in [(None, 3), (Some(first), 3), (Some(second), 0)] {
        if let Some(subscription) = subscription {
            let params = json!({"object": element, "subscription": subscription});
            stage.client.call("unsubscribe", params).await;
        }
        stage.client.invoke(&element, "connect", json!({"sink": element})).await;
        assert_eq!(stage.client.events().await.len(), expected);
    }
    stage.end().await;
}

#[tokio::test]
async fn an_event_of_media_tells_its_type_its_source_and_its_time() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    stage.client.subscribe(&element, "ElementConnected").await;
    stage.client.invoke(&element, "connect", json!({"sink": element, "mediaType": "AUDIO"})).await;
    let event = stage.client.event().await;
    assert_eq!((&event["type"], &event["object"]), (&json!("ElementConnected"), &json!(element)));
    let data = &event["data"];
    assert_eq!((&data["type"], &data["source"]), (&json!("ElementConnected"), &json!(element)));
    assert_eq!((&data["mediaType"], &data["sink"]), (&json!("AUDIO"), &json!(element)));
    assert_eq!(data["tags"], json!([]));
    let text = |name: &str| data[name].as_str().expect("a text").to_owned();
    assert!(text("timestampMillis").starts_with(&text("timestamp")));
    assert_eq!(text("timestampMillis").len(), text("timestamp").len() + 3);
    assert_eq!(
        event.as_object().map(|members| members.len()),
        Some(3),
        "no session, no subscription"
    );
    stage.end().await;
}

#[tokio::test]
async fn tags_are_sent_along_when_the_object_is_told_to() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    stage.client.invoke(&element, "addTag", json!({"key": "k", "value": "v"})).await;
    stage.set(&element, "sendTagsInEvents", json!(true)).await;
    stage.client.subscribe(&element, "ElementConnected").await;
    stage.client.invoke(&element, "connect", json!({"sink": element, "mediaType": "VIDEO"})).await;
    let tag = json!([{"__module__": "kurento", "__type__": "Tag", "key": "k", "value": "v"}]);
    assert_eq!(stage.client.event().await["data"]["tags"], tag);
    stage.end().await;
}

#[tokio::test]
async fn the_manager_tells_of_objects_under_two_names_of_members() {
    let mut stage = Stage::open().await;
    for event in ["ObjectCreated", "ObjectDestroyed"] {
        stage.client.subscribe("manager_ServerManager", event).await;
    }
    let pipeline = stage.pipeline().await;
    let created = stage.client.event().await;
    assert_eq!(
        (&created["type"], &created["data"]["object"]),
        (&json!("ObjectCreated"), &json!(pipeline))
    );
    stage.client.call("release", json!({"object": pipeline})).await;
    let destroyed = stage.client.event().await;
    assert_eq!(
        (&destroyed["type"], &destroyed["data"]["objectId"]),
        (&json!("ObjectDestroyed"), &json!(pipeline))
    );
    for event in [created, destroyed] {
        assert_eq!(event["data"]["source"], "manager_ServerManager");
        assert_eq!(event["data"].get("type"), None::<&Value>);
    }
    stage.end().await;
}
