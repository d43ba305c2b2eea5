//! What clients of 6.x rely on and later ones do not know.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::peer::server;

const OFFER: &str = include_str!("../golden/sdp/chrome_call.offer.sdp");

async fn endpoint(client: &mut Client) -> String {
    let pipeline = client.create("MediaPipeline", json!({})).await;
    client.create("WebRtcEndpoint", json!({"mediaPipeline": pipeline})).await
}

#[tokio::test]
async fn statistics_and_events_tell_the_time_in_seconds_too() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let endpoint = endpoint(&mut client).await;
    client.subscribe(&endpoint, "MediaSessionStarted").await;
    client.invoke(&endpoint, "processOffer", json!({"offer": OFFER})).await;
    let data = client.event().await["data"].take();
    let text = |name: &str| data[name].as_str().expect("a text").parse::<i64>().expect("a number");
    assert_eq!(text("timestamp"), text("timestampMillis") / 1_000);

    let stats = client.invoke(&endpoint, "getStats", json!({})).await;
    let stats = stats.as_object().expect("entries");
    assert!(!stats.is_empty());
    for entry in stats.values() {
        let millis = entry["timestampMillis"].as_i64().expect("a whole number");
        assert_eq!(entry["timestamp"].as_f64(), Some(millis as f64 / 1_000.0));
    }
    server.stop().await;
}

#[tokio::test]
async fn each_name_of_an_event_is_told_to_those_who_asked_for_that_name() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let endpoint = endpoint(&mut client).await;
    for name in ["OnIceGatheringDone", "IceGatheringDone"] {
        client.subscribe(&endpoint, name).await;
    }
    client.invoke(&endpoint, "processOffer", json!({"offer": OFFER})).await;
    client.invoke(&endpoint, "gatherCandidates", json!({})).await;
    for name in ["OnIceGatheringDone", "IceGatheringDone"] {
        let event = client.event().await;
        assert_eq!((&event["type"], &event["data"]["type"]), (&json!(name), &json!(name)));
    }
    server.stop().await;
}

#[tokio::test]
async fn properties_and_methods_go_by_their_old_names() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let element = client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    assert_eq!(client.invoke(&pipeline, "getChilds", json!({})).await, json!([element]));
    client.invoke(&element, "setOutputBitrate", json!({"bitrate": 400_000})).await;
    for name in ["MinOutput", "MaxOutput", "MinOuput", "MaxOuput", "MinEncoder", "MaxEncoder"] {
        let operation = format!("get{name}Bitrate");
        assert_eq!(client.invoke(&element, &operation, json!({})).await, 400_000, "{operation}");
    }
    client.invoke(&element, "setMaxOuputBitrate", json!({"maxOuputBitrate": 500_000})).await;
    assert_eq!(client.invoke(&element, "getMaxEncoderBitrate", json!({})).await, 500_000);
    server.stop().await;
}

#[tokio::test]
async fn one_external_address_sets_the_one_of_its_kind() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let endpoint = endpoint(&mut client).await;
    let mut seen = Vec::new();
    for address in ["192.0.2.1", "2001:db8::1", "not yet known", ""] {
        let params = json!({"externalAddress": address});
        client.invoke(&endpoint, "setExternalAddress", params).await;
        let mut now = Vec::new();
        for operation in ["getExternalIPv4", "getExternalIPv6", "getExternalAddress"] {
            now.push(client.invoke(&endpoint, operation, Value::Null).await);
        }
        seen.push(now);
    }
    assert_eq!(
        json!(seen),
        json!([
            ["192.0.2.1", "", "192.0.2.1"],
            ["192.0.2.1", "2001:db8::1", "192.0.2.1"],
            ["not yet known", "not yet known", "not yet known"],
            ["", "", ""],
        ])
    );
    server.stop().await;
}
