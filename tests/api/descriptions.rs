//! Session descriptions as endpoints give them: to the offers of others, of their own, and to nonsense.

use std::path::Path;

use serde_json::{Value, json};

use rivero::config::Config;
use rivero::config::modules::ModuleConfig;
use rivero::server::Server;

use crate::replay::sdp;
use crate::support::client::Client;
use crate::support::peer::server;

const OFFER: &str = include_str!("../golden/sdp/chrome_call.offer.sdp");
const SAFARI: &str = include_str!("../golden/sdp/safari_call.offer.sdp");

/// A server whose modules have settings of their own.
async fn server_with(set: impl FnOnce(&mut ModuleConfig)) -> Server {
    let mut config = Config::default();
    config.control.port = 0;
    config.media.workers = Some(1);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    set(&mut config.modules);
    Server::start(config).await.expect("free ports exist")
}

async fn endpoint(client: &mut Client, class: &str, mut constructor: Value) -> String {
    constructor["mediaPipeline"] = client.create("MediaPipeline", json!({})).await.into();
    client.create(class, constructor).await
}

async fn answer(client: &mut Client, endpoint: &str, offer: &str) -> String {
    let answer = client.invoke(endpoint, "processOffer", json!({"offer": offer})).await;
    answer.as_str().expect("a description").to_owned()
}

async fn offer(client: &mut Client, class: &str, constructor: Value, options: Value) -> String {
    let endpoint = endpoint(client, class, constructor).await;
    let offer = client.invoke(&endpoint, "generateOffer", options).await;
    offer.as_str().expect("a description").to_owned()
}

fn section<'a>(description: &'a str, kind: &str) -> &'a str {
    let start = description.find(&format!("m={kind} ")).expect("the section");
    let section = &description[start..];
    &section[..section[2..].find("\r\nm=").map_or(section.len(), |end| end + 2)]
}

/// Payload types of a section, and the names of their formats without those that have none.
fn formats(description: &str, kind: &str) -> (String, Vec<String>) {
    let section = section(description, kind);
    let numbers = section.lines().next().expect("a line").split(' ').skip(3);
    let maps = section.lines().filter_map(|line| line.strip_prefix("a=rtpmap:"));
    let names = maps.filter_map(|map| Some(map.split_once(' ')?.1.split('/').next()?.to_owned()));
    (numbers.collect::<Vec<_>>().join(" "), names.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_offers_are_answered_as_the_files_say() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sdp");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("golden file");
    let mut tried = 0;
    for file in std::fs::read_dir(&folder).expect("golden files") {
        let file = file.expect("golden file").file_name().into_string().expect("a readable name");
        let Some(name) = file.strip_suffix(".offer.sdp") else { continue };
        let data = json!({"useDataChannels": name.ends_with("_data")});
        let endpoint = endpoint(&mut client, "WebRtcEndpoint", data).await;
        let ours = answer(&mut client, &endpoint, &read(&file)).await;
        let expected = read(&format!("{name}.answer.sdp"));
        sdp::compare(&expected, &ours).unwrap_or_else(|error| panic!("{name}: {error}\n{ours}"));
        tried += 1;
    }
    assert!(tried > 10);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_offers_of_our_own_are_made_as_the_files_say() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let expected = include_str!("../golden/sdp/own/webrtc.offer.sdp");
    let ours = offer(&mut client, "WebRtcEndpoint", json!({}), json!({})).await;
    sdp::compare(expected, &ours).unwrap_or_else(|error| panic!("{error}\n{ours}"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_has_the_kinds_that_its_options_wish_for() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let given = [None, Some(true), Some(false)];
    for class in ["WebRtcEndpoint", "RtpEndpoint"] {
        for (audio, video) in given.iter().flat_map(|a| given.iter().map(move |v| (*a, *v))) {
            let mut options = json!({});
            for (name, wish) in [("offerToReceiveAudio", audio), ("offerToReceiveVideo", video)] {
                if let Some(wish) = wish {
                    options[name] = wish.into();
                }
            }
            let ours = offer(&mut client, class, json!({}), json!({"options": options})).await;
            let has = |kind: &str| ours.contains(&format!("\r\nm={kind} "));
            assert_eq!(has("audio"), audio.unwrap_or(true), "{class} {options}");
            assert_eq!(has("video"), video.unwrap_or(true), "{class} {options}");
            if class == "WebRtcEndpoint" {
                let kinds = ["audio", "video"].into_iter().filter(|kind| has(kind));
                let mids: String = kinds.map(|kind| format!(" {kind}0")).collect();
                assert!(ours.contains(&format!("a=group:BUNDLE{mids}\r\n")), "{ours}");
            }
        }
    }
    let nothing = json!({"offerToReceiveAudio": false, "offerToReceiveVideo": false});
    let data = json!({"useDataChannels": true});
    let ours = offer(&mut client, "WebRtcEndpoint", data, json!({"options": nothing})).await;
    assert!(ours.contains("a=group:BUNDLE application0\r\nm=application "), "{ours}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_choose_the_codecs_of_both_kinds_of_endpoint() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let server = server_with(|modules| {
        modules.sdp.audio_codecs = names(&["PCMA/8000", "opus/48000/2", "AMR/8000"]);
        modules.sdp.video_codecs = names(&["H264/90000", "VP8/90000", "theora/90000"]);
    })
    .await;
    let mut client = Client::connect(server.address()).await;
    let ours = offer(&mut client, "WebRtcEndpoint", json!({}), json!({})).await;
    assert_eq!(formats(&ours, "audio").0, "8 96");
    assert_eq!(formats(&ours, "video").1[..2], ["H264", "VP8"]);
    assert_eq!(ours.matches(" VP9/").count() + ours.matches(" AV1/").count(), 0, "{ours}");
    let ours = offer(&mut client, "RtpEndpoint", json!({}), json!({})).await;
    assert_eq!(formats(&ours, "audio").1, ["opus", "AMR"]);
    assert_eq!(formats(&ours, "video").1, ["H264", "VP8"]);
    let endpoint = endpoint(&mut client, "WebRtcEndpoint", json!({})).await;
    let ours = answer(&mut client, &endpoint, OFFER).await;
    let (audio, video) = (formats(&ours, "audio").0, formats(&ours, "video").1);
    // The order of an answer is that of its offer, and PCMU is not among the chosen.
    assert!(audio.starts_with("111 ") && audio.ends_with(" 8"), "{audio}");
    assert!(video.iter().all(|name| ["VP8", "H264", "rtx"].contains(&name.as_str())), "{video:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_h265_only_if_it_is_switched_on() {
    for on in [false, true] {
        let server = server_with(|modules| modules.webrtc.h265 = on).await;
        let mut client = Client::connect(server.address()).await;
        let ours = offer(&mut client, "WebRtcEndpoint", json!({}), json!({})).await;
        assert_eq!(ours.contains(" H265/90000\r\n"), on, "{ours}");
        let webrtc = endpoint(&mut client, "WebRtcEndpoint", json!({})).await;
        let ours = answer(&mut client, &webrtc, SAFARI).await;
        assert_eq!(ours.contains(" H265/90000\r\n"), on, "{ours}");
        let plain = offer(&mut client, "RtpEndpoint", json!({}), json!({})).await;
        assert!(plain.contains(" H265/90000\r\n"), "{plain}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_made_to_hurt_is_refused_and_the_endpoint_can_still_be_used() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    for class in ["WebRtcEndpoint", "RtpEndpoint"] {
        let endpoint = endpoint(&mut client, class, json!({})).await;
        for offer in [
            format!("v=0\r\n{}", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(10_000)),
            OFFER.replace("a=mid:0", "a=mid:\0"),
            OFFER.replace("m=video 9", "m=video 99999999999"),
            OFFER.replace("m=video 9", "m=video 9/-1"),
            format!("{OFFER}{}", "a=x\r\n".repeat(3_000)),
            OFFER.replace(" 97 ", &" 97".repeat(1_000)),
        ] {
            let params = json!({
                "object": endpoint, "operation": "processOffer", "operationParams": {"offer": offer},
            });
            let (code, text) = client.fail("invoke", params).await;
            assert_eq!((code, text.as_str()), (40_201, "Error parsing SDP"), "{class}");
        }
        let strange = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\nm=audio 9 RTP/AVP\r\n";
        let ours = answer(&mut client, &endpoint, strange).await;
        assert!(ours.contains("\r\nm=video 0 ") && ours.contains("\r\nm=audio 0 "), "{ours}");
    }
    server.stop().await;
}
