//! How values are read, and how they are written.

use serde_json::{Value, json};

use super::{Stage, error};

#[tokio::test]
async fn an_integer_is_any_number_of_32_bits_without_its_fraction() {
    let mut stage = Stage::open().await;
    let element = stage.element("WebRtcEndpoint").await;
    let values = [
        (json!(7), 7),
        (json!(5.7), 5),
        (json!(0.0), 0),
        (json!(true), 1),
        (json!(false), 0),
        (json!(null), 0),
    ];
    for (given, taken) in values {
        stage.set(&element, "maxVideoSendBandwidth", given.clone()).await;
        assert_eq!(stage.get(&element, "getMaxVideoSendBandwidth").await, taken, "{given}");
    }
    for wrong in [
        json!("5"),
        json!(3_000_000_000_u64),
        json!(-3_000_000_000_i64),
        json!(1e30),
        json!([]),
        json!({}),
    ] {
        let args = json!({"maxVideoSendBandwidth": wrong});
        let expected = error(40001, "'maxVideoSendBandwidth' parameter should be a integer");
        assert_eq!(
            stage.failure(&element, "setMaxVideoSendBandwidth", args).await,
            expected,
            "{wrong}"
        );
    }
    stage.end().await;
}

#[tokio::test]
async fn a_boolean_is_any_number_but_no_text() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    for (given, taken) in [
        (json!(true), true),
        (json!(0), false),
        (json!(1.5), true),
        (json!(null), false),
        (json!(-1), true),
    ] {
        stage.set(&pipeline, "sendTagsInEvents", given.clone()).await;
        assert_eq!(stage.get(&pipeline, "getSendTagsInEvents").await, taken, "{given}");
    }
    for wrong in [json!("true"), json!([]), json!({})] {
        let args = json!({"sendTagsInEvents": wrong});
        let expected = error(40001, "'sendTagsInEvents' parameter should be a boolean");
        assert_eq!(
            stage.failure(&pipeline, "setSendTagsInEvents", args).await,
            expected,
            "{wrong}"
        );
    }
    stage.end().await;
}

#[tokio::test]
async fn a_text_is_any_number_boolean_or_null() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    for (given, taken) in [
        (json!(5), "5"),
        (json!(1.5), "1.5"),
        (json!(true), "true"),
        (json!("naïve 😀"), "naïve 😀"),
        (json!(null), &*pipeline),
    ] {
        stage.set(&pipeline, "name", given.clone()).await;
        assert_eq!(stage.get(&pipeline, "getName").await, taken, "{given}");
    }
    for wrong in [json!([]), json!({})] {
        let expected = error(40001, "'name' parameter should be a string");
        assert_eq!(stage.failure(&pipeline, "setName", json!({"name": wrong})).await, expected);
    }
    stage.end().await;
}

#[tokio::test]
async fn an_empty_list_is_a_list_and_an_empty_map_a_map() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    assert_eq!(stage.get(&element, "getTags").await, json!([]));
    assert_eq!(stage.get(&element, "getStats").await, json!({}));
    stage.end().await;
}

#[tokio::test]
async fn a_float_is_written_as_the_double_it_is() {
    let mut stage = Stage::open().await;
    let element = stage.element("WebRtcEndpoint").await;
    stage.set(&element, "rembParams", json!({})).await;
    let params = stage.get(&element, "getRembParams").await;
    assert_eq!(params["exponentialFactor"].as_f64(), Some(f64::from(0.04_f32)));
    assert_eq!(params["linealFactorGrade"].to_string(), "30.0");
    stage.end().await;
}

#[tokio::test]
async fn a_register_tells_its_type_and_its_module() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    stage.client.invoke(&element, "addTag", json!({"key": "k", "value": "v"})).await;
    assert_eq!(
        stage.get(&element, "getTags").await,
        json!([{"__module__": "kurento", "__type__": "Tag", "key": "k", "value": "v"}])
    );
    stage.end().await;
}

#[tokio::test]
async fn a_register_that_names_a_type_must_name_a_fitting_one() {
    let mut stage = Stage::open().await;
    let element = stage.element("WebRtcEndpoint").await;
    let candidate = |kind: Value| {
        let mut candidate = json!({"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0});
        if let Some(kind) = kind.as_str() {
            candidate["__type__"] = json!(kind);
            candidate["__module__"] = json!("kurento");
        }
        json!({"candidate": candidate})
    };
    for fitting in [json!(null), json!("IceCandidate")] {
        stage.client.invoke(&element, "addIceCandidate", candidate(fitting)).await;
    }
    assert_eq!(
        stage.failure(&element, "addIceCandidate", candidate(json!("Nope"))).await,
        error(40003, "Type Nope does not exist in module kurento")
    );
    assert_eq!(
        stage.failure(&element, "addIceCandidate", candidate(json!("Tag"))).await,
        error(40003, "Type Tag is not compatible")
    );
    stage.end().await;
}

#[tokio::test]
async fn a_member_of_a_register_is_named_when_it_is_wrong() {
    let mut stage = Stage::open().await;
    let element = stage.element("WebRtcEndpoint").await;
    for (candidate, text) in [
        (json!({}), "'candidate' property should be a string"),
        (json!({"candidate": "x", "sdpMLineIndex": 0}), "'sdpMid' property should be a string"),
        (json!({"candidate": "x", "sdpMid": "0"}), "'sdpMLineIndex' property should be a integer"),
    ] {
        let failed =
            stage.failure(&element, "addIceCandidate", json!({"candidate": candidate})).await;
        assert_eq!(failed, error(40001, text));
    }
    let failed = stage.failure(&element, "addIceCandidate", json!({"candidate": 5})).await;
    assert_eq!(failed, error(40001, "'candidate' parameter should be a object"));
    stage.end().await;
}
