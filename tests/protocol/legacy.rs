//! What clients of the 6.x line need.

use serde_json::json;

use super::Stage;

#[tokio::test]
async fn one_output_bitrate_is_both_limits_of_the_encoder() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    stage.client.invoke(&element, "setOutputBitrate", json!({"bitrate": 400_000})).await;
    for operation in ["getMinEncoderBitrate", "getMaxEncoderBitrate"] {
        assert_eq!(stage.get(&element, operation).await, 400_000, "{operation}");
    }
    stage.end().await;
}

#[tokio::test]
async fn an_event_comes_under_its_old_name_first_to_those_who_know_it_by_that() {
    let mut stage = Stage::open().await;
    let endpoint = stage.element("WebRtcEndpoint").await;
    for name in ["IceGatheringDone", "OnIceGatheringDone"] {
        stage.client.subscribe(&endpoint, name).await;
    }
    stage.client.invoke(&endpoint, "generateOffer", json!({})).await;
    stage.client.invoke(&endpoint, "gatherCandidates", json!({})).await;
    for name in ["OnIceGatheringDone", "IceGatheringDone"] {
        let event = stage.client.event().await;
        assert_eq!(event["type"], name);
        assert!(event["data"]["timestamp"].is_string());
    }
    stage.end().await;
}
