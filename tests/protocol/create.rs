//! Creating objects.

use serde_json::json;

use super::{Stage, error};

#[tokio::test]
async fn an_unknown_factory_is_40108() {
    let mut stage = Stage::open().await;
    for class in ["Nope", "core.MediaPipeline", "elements.WebRtcEndpoint", "", "mediapipeline"] {
        let expected = error(40108, &format!("Factory '{class}' not found"));
        assert_eq!(stage.no_object(class, json!({})).await, expected);
    }
    stage.end().await;
}

#[tokio::test]
async fn abstract_classes_and_the_manager_are_no_factories() {
    let mut stage = Stage::open().await;
    for class in ["MediaObject", "MediaElement", "Hub", "Endpoint", "SdpEndpoint", "ServerManager"]
    {
        let (code, text) = stage.no_object(class, json!({})).await;
        assert_eq!((code, text), error(40108, &format!("Factory '{class}' not found")));
    }
    stage.end().await;
}

#[tokio::test]
async fn the_short_and_the_qualified_name_make_the_same() {
    let mut stage = Stage::open().await;
    for class in ["MediaPipeline", "kurento.MediaPipeline"] {
        let id = stage.client.create(class, json!({})).await;
        assert!(id.ends_with("_kurento.MediaPipeline"), "{id}");
    }
    stage.end().await;
}

#[tokio::test]
async fn constructor_params_that_are_needed_are_asked_for() {
    let mut stage = Stage::open().await;
    let missing = stage.client.fail("create", json!({"type": "PassThrough"})).await;
    assert_eq!(missing, error(40001, "'constructorParams' is required"));
    for wrong in [json!("x"), json!([]), json!(5), json!(true)] {
        let text = "'constructorParams' should be an object";
        assert_eq!(stage.no_object("PassThrough", wrong).await, error(40001, text));
    }
    stage.end().await;
}

#[tokio::test]
async fn a_missing_parameter_is_answered_like_one_of_a_wrong_type() {
    let mut stage = Stage::open().await;
    let text = "'mediaPipeline' parameter should be a string";
    for wrong in [json!({}), json!({"mediaPipeline": []}), json!({"mediaPipeline": {}})] {
        assert_eq!(stage.no_object("PassThrough", wrong).await, error(40001, text));
    }
    stage.end().await;
}

#[tokio::test]
async fn a_reference_to_nothing_is_40101() {
    let mut stage = Stage::open().await;
    let nobody = stage.no_object("PassThrough", json!({"mediaPipeline": "nobody"})).await;
    assert_eq!(nobody, error(40101, "Object 'nobody' not found"));
    stage.end().await;
}

#[tokio::test]
async fn an_enum_knows_its_values() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    let wrong = json!({"mediaPipeline": pipeline, "certificateKeyType": "MD5"});
    let expected = error(40001, "Invalid value for 'CertificateKeyType'");
    assert_eq!(stage.no_object("WebRtcEndpoint", wrong).await, expected);
    let right = json!({"mediaPipeline": pipeline, "certificateKeyType": "ECDSA"});
    stage.client.create("WebRtcEndpoint", right).await;
    stage.end().await;
}

#[tokio::test]
async fn nothing_is_left_of_an_object_that_could_not_be_made() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    stage.no_object("WebRtcEndpoint", json!({"mediaPipeline": pipeline, "recvonly": "x"})).await;
    assert_eq!(stage.get(&pipeline, "getChildren").await, json!([]));
    stage.end().await;
}
