//! Pipelines that come and go leave nothing behind in the process.

use std::net::UdpSocket;

use serde_json::{Value, json};

use crate::support::client::{Client, get};
use crate::support::outside::{attribute, binding_request, media_address, media_drops};
use crate::support::program::Program;

const OFFER: &str = include_str!("../golden/sdp/chrome_call.offer.sdp");

/// A pipeline with two connected endpoints, from its creation to its release; what was answered.
async fn come_and_go(client: &mut Client) -> Vec<String> {
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut endpoints = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let endpoint = client.create("WebRtcEndpoint", json!({"mediaPipeline": pipeline})).await;
        client.subscribe(&endpoint, "IceGatheringDone").await;
        client.invoke(&endpoint, "processOffer", json!({"offer": OFFER})).await;
        client.invoke(&endpoint, "gatherCandidates", json!({})).await;
        assert_eq!(client.event().await["type"], "IceGatheringDone");
        let local = client.invoke(&endpoint, "getLocalSessionDescriptor", json!({})).await;
        answers.push(local.as_str().expect("a description").to_owned());
        endpoints.push(endpoint);
    }
    client.invoke(&endpoints[0], "connect", json!({"sink": endpoints[1]})).await;
    client.invoke(&endpoints[1], "connect", json!({"sink": endpoints[0]})).await;
    client.call("release", json!({"object": pipeline})).await;
    answers
}

#[tokio::test]
async fn three_hundred_pipelines_leave_nothing_behind() {
    let program = Program::start();
    let mut client = Client::connect(program.address).await;
    for _ in 0..50 {
        come_and_go(&mut client).await;
    }
    let (files, threads) = (program.entries("fd"), program.entries("task"));
    let resident = program.resident_pages();
    let mut answers = Vec::new();
    for _ in 50..300 {
        answers = come_and_go(&mut client).await;
    }
    assert_eq!(program.entries("fd"), files);
    // One that makes certificates may still have been at work before.
    assert!(program.entries("task") <= threads, "{threads} threads before");
    let grown = program.resident_pages();
    assert!(grown * 10 <= resident * 13, "from {resident} pages to {grown}");

    let manager = json!({"object": "manager_ServerManager", "operation": "getPipelines"});
    assert_eq!(client.call("invoke", manager).await["value"], json!([]));
    let (_, metrics) = get(program.address, "/metrics").await;
    let objects = metrics.lines().filter(|line| line.starts_with("rivero_objects{"));
    let objects: Vec<_> = objects.collect();
    assert_eq!(objects.len(), 2, "{objects:?}");
    assert!(objects.iter().all(|line| line.ends_with(" 0")), "{objects:?}");

    // Nobody listens to the names of sessions that are gone.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let media = media_address(&answers[0]);
    let mut sent = 0;
    let drops = loop {
        for answer in &answers {
            let request = binding_request(attribute(answer, "ice-ufrag"), &[]);
            socket.send_to(&request, media).expect("sends");
            sent += 1;
        }
        let drops = media_drops(program.address).await;
        if drops.get("unknown_session").is_some_and(|count| *count >= 2) {
            break drops;
        }
        assert!(sent < 20_000, "{drops:?}");
    };
    assert_eq!(drops.len(), 1, "{drops:?}");
    assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
}
