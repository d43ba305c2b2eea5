//! The reading of values, and what the types promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::decode::Members;
use super::handle::Link;
use super::*;
use crate::client::error::ClientError;
use crate::model::{ObjectId, class};

fn read<T: Decode>(value: Value) -> Result<T, ClientError> {
    T::decode(value, &Link::unconnected())
}

fn event<E: EventKind>(value: Value, link: &Arc<Link>) -> Result<E, ClientError> {
    E::decode(&mut Members::of(E::NAME, value)?, link)
}

#[test]
fn registers_are_read_with_what_they_inherit_and_name_what_is_wrong_in_them() {
    let candidate = json!({"__module__": "kurento", "__type__": "IceCandidate",
        "candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0.0, "more": []});
    let read_candidate = read::<types::IceCandidate>(candidate.clone()).expect("a candidate");
    assert_eq!((&*read_candidate.sdp_mid, read_candidate.sdp_m_line_index), ("0", 0));
    for (member, value, text) in [
        ("sdpMid", json!([]), "IceCandidate.sdpMid: text expected, not []"),
        ("sdpMLineIndex", json!("x"), "IceCandidate.sdpMLineIndex: an integer expected, not \"x\""),
    ] {
        let mut wrong = candidate.clone();
        wrong[member] = value;
        let error = read::<types::IceCandidate>(wrong).expect_err(member);
        assert_eq!(error, ClientError::Decode(text.to_owned()));
    }
    let error = read::<types::IceCandidate>(json!({"candidate": "x"})).expect_err("half of it");
    assert_eq!(error, ClientError::Decode("IceCandidate without sdpMid".to_owned()));
    assert!(read::<types::IceCandidate>(json!("x")).is_err());
}

#[test]
fn values_of_enums_are_read_by_their_names() {
    assert_eq!(read(json!("AUDIO")), Ok(types::MediaType::Audio));
    assert_eq!(read(json!(["DATA"])), Ok(vec![types::MediaType::Data]));
    assert!(read::<types::MediaType>(json!("SMELL")).is_err());
    assert!(read::<types::MediaType>(json!(1)).is_err());
}

#[test]
fn scalars_are_read_as_generously_as_servers_write_them() {
    assert_eq!(read(json!("1700000000123")), Ok(1_700_000_000_123_i64));
    assert_eq!(read(json!(5.0)), Ok(5_i32));
    assert!(read::<i32>(json!(3_000_000_000_u64)).is_err());
    assert!(read::<f32>(Value::Null).expect("no number").is_nan());
    assert_eq!(read(json!(7)), Ok("7".to_owned()));
    assert_eq!(read(json!(0)), Ok(false));
    assert_eq!(read::<Vec<String>>(Value::Null), Ok(vec![]));
    assert_eq!(read::<BTreeMap<String, i32>>(Value::Null), Ok(BTreeMap::new()));
    assert_eq!(read(json!([[1], []])), Ok(vec![vec![1], vec![]]));
    assert_eq!(read(json!(["a"])), Ok(vec![ObjectId::from("a")]));
}

#[test]
fn statistics_are_of_the_kind_that_they_say() {
    let inbound = json!({"__module__": "kurento", "__type__": "RTCInboundRTPStreamStats",
        "id": "a", "type": "inboundrtp", "timestampMillis": 5, "ssrc": "1", "associateStatsId": "",
        "isRemote": false, "mediaTrackId": "", "transportId": "", "codecId": "", "firCount": 1,
        "pliCount": 2, "nackCount": 3, "sliCount": 0, "remb": 0, "packetsLost": 4,
        "fractionLost": 0.5, "packetsReceived": 100, "bytesReceived": 1000, "jitter": 0.1});
    let new = json!({"__module__": "kurento", "__type__": "StatsOfTomorrow", "x": 1});
    let stats = read::<BTreeMap<String, AnyStats>>(json!({"a": inbound, "b": new}));
    let stats = stats.expect("both are read");
    let AnyStats::RTCInboundRTPStreamStats(inbound) = &stats["a"] else { panic!("{stats:?}") };
    assert_eq!((inbound.packets_received, inbound.fraction_lost), (100, 0.5));
    assert!(matches!(&stats["b"], AnyStats::Other(members) if members["x"] == 1));
}

#[test]
fn an_object_is_cast_to_what_it_is_and_to_nothing_else() {
    let link = Link::unconnected();
    let id = "a_kurento.MediaPipeline/b_kurento.WebRtcEndpoint";
    let object = MediaObject::decode(json!(id), &link).expect("an id");
    assert_eq!(object.class_name(), "WebRtcEndpoint");
    assert!(object.cast::<WebRtcEndpoint>().is_some_and(|endpoint| endpoint.id().as_str() == id));
    assert!(object.cast::<MediaElement>().is_some());
    assert!(object.cast::<MediaPipeline>().is_none() && object.cast::<Hub>().is_none());
    let manager = MediaObject::decode(json!("manager_ServerManager"), &link).expect("an id");
    assert!(manager.cast::<ServerManager>().is_some());
    for id in ["", "x", "_", ".", "é_é.é"] {
        let odd = MediaObject::decode(json!(id), &link).expect("an id");
        assert!(odd.cast::<MediaObject>().is_none(), "{id}");
    }
}

#[test]
fn references_in_events_are_handles() {
    let link = Link::unconnected();
    let data = json!({"sink": "a_kurento.MediaPipeline/b_kurento.PassThrough",
        "mediaType": "VIDEO", "sourceMediaDescription": "default",
        "sinkMediaDescription": "default"});
    let event = event::<events::ElementConnected>(data, &link).expect("an event");
    assert!(event.sink.cast::<PassThrough>().is_some());
    assert_eq!(event.media_type, types::MediaType::Video);
}

#[test]
fn there_is_a_type_for_every_class() {
    // One that is written by hand for each kind; the rest the compiler has seen.
    let names = [MediaPipeline::CLASS, Composite::CLASS, RtpEndpoint::CLASS, ChromaFilter::CLASS];
    for own in names {
        assert!(class::CLASSES.iter().any(|known| std::ptr::eq(*known, own)), "{}", own.name);
    }
    let count = include_str!(concat!(env!("OUT_DIR"), "/client.rs"));
    assert_eq!(count.matches("impl RemoteClass for ").count(), class::CLASSES.len());
}

#[test]
fn a_map_is_read_as_it_is() {
    assert_eq!(read::<Map<String, Value>>(json!({"a": 1})).map(|map| map.len()), Ok(1));
    assert!(read::<Map<String, Value>>(json!([])).is_err());
}
