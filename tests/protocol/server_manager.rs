//! The server manager.

use serde_json::{Value, json};

use super::Stage;

const MANAGER: &str = "manager_ServerManager";

#[tokio::test]
async fn it_is_there_after_its_release() {
    let mut stage = Stage::open().await;
    stage.client.call("release", json!({"object": MANAGER})).await;
    assert_eq!(stage.get(MANAGER, "getName").await, MANAGER);
    stage.end().await;
}

#[tokio::test]
async fn it_has_a_name_and_neither_parent_nor_pipeline() {
    let mut stage = Stage::open().await;
    stage.set(MANAGER, "name", json!("boss")).await;
    assert_eq!(stage.get(MANAGER, "getName").await, "boss");
    for operation in ["getParent", "getMediaPipeline"] {
        assert_eq!(stage.get(MANAGER, operation).await, Value::Null, "{operation}");
    }
    stage.end().await;
}

#[tokio::test]
async fn it_lists_sessions_and_no_empty_names() {
    let mut stage = Stage::open().await;
    stage.pipeline().await;
    let sessions = stage.get(MANAGER, "getSessions").await;
    let own = stage.client.call("ping", Value::Null).await["sessionId"].clone();
    assert_eq!(sessions, json!([own]));
    stage.end().await;
}

#[tokio::test]
async fn it_has_no_metadata_unless_they_are_set() {
    let mut stage = Stage::open().await;
    assert_eq!(stage.get(MANAGER, "getMetadata").await, "");
    stage.end().await;
}

#[tokio::test]
async fn it_measures_over_an_interval_only() {
    let mut stage = Stage::open().await;
    let error = stage.failure(MANAGER, "getUsedCpu", json!({})).await;
    assert_eq!(error, super::error(40001, "'interval' parameter should be a integer"));
    for none in [0, -1] {
        let value = stage.client.invoke(MANAGER, "getUsedCpu", json!({"interval": none})).await;
        assert_eq!(value, Value::Null, "nothing is measured in no time");
    }
    stage.end().await;
}

#[tokio::test]
async fn the_modules_list_what_can_be_created_and_nothing_else() {
    let mut stage = Stage::open().await;
    let info = stage.get(MANAGER, "getInfo").await;
    let mut factories = Vec::new();
    for module in info["modules"].as_array().expect("a list") {
        for factory in module["factories"].as_array().expect("a list") {
            factories.push(factory.as_str().expect("a name").to_owned());
        }
    }
    assert!(factories.iter().any(|factory| factory == "WebRtcEndpoint"));
    for factory in factories {
        let params = json!({"type": factory, "constructorParams": {"nothing": 1}});
        let reply = stage.client.request("create", params).await;
        assert_ne!(reply["error"]["code"], 40108, "{factory}");
    }
    stage.end().await;
}
