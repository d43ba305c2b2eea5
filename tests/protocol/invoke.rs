//! Operations of objects.

use serde_json::{Value, json};

use super::{Stage, error};

#[tokio::test]
async fn an_unknown_operation_is_40008_and_counts_its_parameters() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    for (args, count) in
        [(json!({}), 0), (json!({"a": 1}), 1), (json!({"a": 1, "b": 2}), 2), (json!("x"), 0)]
    {
        let text = format!("Method 'noSuch' with {count} parameters not found");
        assert_eq!(stage.failure(&pipeline, "noSuch", args).await, error(40008, &text));
    }
    let params = json!({"object": pipeline, "operation": "noSuch"});
    let bare = stage.client.fail("invoke", params).await;
    assert_eq!(bare, error(40008, "Method 'noSuch' with 0 parameters not found"));
    stage.end().await;
}

#[tokio::test]
async fn operation_params_of_a_wrong_type_count_as_absent() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    for wrong in [json!("x"), json!([]), json!(5), Value::Null] {
        let needed = stage.failure(&pipeline, "getTag", wrong.clone()).await;
        assert_eq!(needed, error(40001, "'operationParams' is required"), "{wrong}");
        assert_eq!(stage.client.invoke(&pipeline, "getName", wrong).await, json!(pipeline));
    }
    stage.end().await;
}

#[tokio::test]
async fn a_setter_asks_for_its_property_by_name() {
    let mut stage = Stage::open().await;
    let element = stage.element("WebRtcEndpoint").await;
    let text = "'maxVideoSendBandwidth' parameter should be a integer";
    for args in [json!({}), json!({"value": 5}), json!({"maxVideoSendBandwidth": "5"})] {
        let failed = stage.failure(&element, "setMaxVideoSendBandwidth", args).await;
        assert_eq!(failed, error(40001, text));
    }
    let params = json!({"object": element, "operation": "setMaxVideoSendBandwidth"});
    assert_eq!(stage.client.fail("invoke", params).await, error(40001, text));
    stage.end().await;
}

#[tokio::test]
async fn an_object_that_is_not_there_is_40101_and_a_promised_one_40109() {
    let mut stage = Stage::open().await;
    assert_eq!(
        stage.failure("nobody", "getName", json!({})).await,
        error(40101, "Object 'nobody' not found")
    );
    let text = "Object 'newref:0' not found. \
                Possibly using a transactional object without committing the transaction.";
    assert_eq!(stage.failure("newref:0", "getName", json!({})).await, error(40109, text));
    stage.end().await;
}

#[tokio::test]
async fn an_optional_parameter_counts_only_behind_those_before_it() {
    let mut stage = Stage::open().await;
    let source = stage.element("PassThrough").await;
    // The kind of media, which stands before the description, is left out.
    let args = json!({"sink": source, "sourceMediaDescription": "other"});
    stage.client.invoke(&source, "connect", args).await;
    let connections = stage.get(&source, "getSinkConnections").await;
    let descriptions: Vec<_> = connections
        .as_array()
        .expect("a list")
        .iter()
        .map(|each| &each["sourceDescription"])
        .collect();
    assert_eq!(descriptions, ["default"; 3]);
    stage.end().await;
}

#[tokio::test]
async fn an_operation_without_result_has_the_value_null() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    let params = json!({"object": element, "operation": "addTag",
        "operationParams": {"key": "k", "value": "v"}});
    let result = stage.client.call("invoke", params).await;
    assert_eq!(result.as_object().map(|members| members.contains_key("value")), Some(true));
    assert_eq!(result["value"], Value::Null);
    stage.end().await;
}

#[tokio::test]
async fn parents_children_and_pipelines_are_ids() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    let hub = stage.client.create("Dispatcher", json!({"mediaPipeline": pipeline})).await;
    let port = stage.client.create("HubPort", json!({"hub": hub})).await;
    assert_eq!(stage.get(&pipeline, "getParent").await, Value::Null);
    assert_eq!(stage.get(&pipeline, "getMediaPipeline").await, json!(pipeline));
    assert_eq!(stage.get(&hub, "getParent").await, json!(pipeline));
    assert_eq!(stage.get(&port, "getParent").await, json!(hub));
    assert_eq!(stage.get(&port, "getMediaPipeline").await, json!(pipeline));
    assert_eq!(stage.get(&pipeline, "getChildren").await, json!([hub]));
    assert_eq!(stage.get(&hub, "getChildren").await, json!([port]));
    stage.end().await;
}
