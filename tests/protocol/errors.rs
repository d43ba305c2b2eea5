//! The catalogue of errors: codes, names and texts.

use serde_json::{Value, json};

use super::Stage;

const OFFER: &str = include_str!("../golden/sdp/chrome_call.offer.sdp");

/// An operation that fails: on what, with which arguments; code, name and text of its error.
type Case<'a> = (&'a str, &'a str, Value, i64, &'a str, &'a str);

async fn check(stage: &mut Stage, cases: &[Case<'_>]) {
    for (object, operation, args, code, name, text) in cases {
        let params = json!({"object": object, "operation": operation, "operationParams": args});
        let reply = stage.client.request("invoke", params).await;
        let expected = json!({"code": code, "data": {"type": name}, "message": text});
        assert_eq!(reply["error"], expected, "{operation}");
    }
}

#[tokio::test]
async fn descriptions_come_in_an_order() {
    let mut stage = Stage::open().await;
    let fresh = stage.element("WebRtcEndpoint").await;
    check(
        &mut stage,
        &[
            (
                &fresh,
                "processOffer",
                json!({"offer": ""}),
                40201,
                "SDP_PARSE_ERROR",
                "Empty offer not valid",
            ),
            (
                &fresh,
                "processAnswer",
                json!({"answer": ""}),
                40201,
                "SDP_PARSE_ERROR",
                "Empty answer not valid",
            ),
            (
                &fresh,
                "processAnswer",
                json!({"answer": OFFER}),
                40209,
                "SDP_END_POINT_NOT_OFFER_GENERATED",
                "Offer not generated. It is not possible to process an answer.",
            ),
        ],
    )
    .await;
    stage.client.invoke(&fresh, "processOffer", json!({"offer": OFFER})).await;
    check(
        &mut stage,
        &[(
            &fresh,
            "processOffer",
            json!({"offer": OFFER}),
            40208,
            "SDP_END_POINT_ALREADY_NEGOTIATED",
            "Endpoint already negotiated",
        )],
    )
    .await;
    stage.end().await;
}

#[tokio::test]
async fn objects_say_what_they_lack() {
    let mut stage = Stage::open().await;
    let element = stage.element("PassThrough").await;
    let stranger = stage.element("PassThrough").await;
    check(
        &mut stage,
        &[
            (
                &element,
                "connect",
                json!({"sink": stranger}),
                40004,
                "CONNECT_ERROR",
                "Media elements do not share pipeline",
            ),
            (
                &element,
                "getTag",
                json!({"key": "k"}),
                40110,
                "MEDIA_OBJECT_TAG_KEY_NOT_FOUND",
                "Tag key not found",
            ),
            (
                &element,
                "noSuch",
                json!({}),
                40008,
                "MALFORMED_TRANSACTION",
                "Method 'noSuch' with 0 parameters not found",
            ),
            (
                "manager_ServerManager",
                "getKmd",
                json!({"moduleName": "nope"}),
                40500,
                "UNDEFINED",
                "Requested kmd module doesn't exist",
            ),
        ],
    )
    .await;
    assert_eq!(stage.client.invoke(&element, "removeTag", json!({"key": "k"})).await, Value::Null);
    stage.end().await;
}

#[tokio::test]
async fn a_session_that_is_not_known_is_40007() {
    let mut stage = Stage::open().await;
    for method in ["connect", "keepAlive"] {
        let reply = stage.client.request(method, json!({"sessionId": "nobody"})).await;
        let expected = json!({"code": 40007, "data": {"type": "INVALID_SESSION"}, "message": "Invalid session"});
        assert_eq!(reply["error"], expected);
    }
    stage.end().await;
}
