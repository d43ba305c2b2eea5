//! The verbs on objects: create, describe, invoke, release.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::server::TestServer;

const UUID: usize = 36;

#[tokio::test]
async fn ids_name_the_parent_and_the_class() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    assert_eq!(&pipeline[UUID..], "_kurento.MediaPipeline");
    let hub = client.create("kurento.Dispatcher", json!({"mediaPipeline": pipeline})).await;
    let rest = hub.strip_prefix(&pipeline).expect("below the pipeline");
    assert_eq!(&rest[UUID + 1..], "_kurento.Dispatcher");
    let port = client.create("HubPort", json!({"hub": hub})).await;
    let rest = port.strip_prefix(&hub).expect("below the hub");
    assert_eq!((&rest[..1], &rest[UUID + 1..]), ("/", "_kurento.HubPort"));
}

#[tokio::test]
async fn create_checks_type_and_parameters_in_order() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({"unknown": 1})).await;
    let element = client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    for (params, code, text) in [
        (json!({"type": "Nothing"}), 40108, "Factory 'Nothing' not found".to_owned()),
        (json!({"type": 5}), 40108, "Factory '5' not found".to_owned()),
        (json!({"type": null}), 40108, "Factory '' not found".to_owned()),
        (json!({"type": "MediaElement"}), 40108, "Factory 'MediaElement' not found".to_owned()),
        (json!({"type": "ServerManager"}), 40108, "Factory 'ServerManager' not found".to_owned()),
        (
            json!({"type": "core.PassThrough"}),
            40108,
            "Factory 'core.PassThrough' not found".to_owned(),
        ),
        (json!({"type": "PassThrough"}), 40001, "'constructorParams' is required".to_owned()),
        (
            json!({"type": "PassThrough", "constructorParams": null}),
            40001,
            "'constructorParams' is required".to_owned(),
        ),
        (
            json!({"type": "PassThrough", "constructorParams": [pipeline]}),
            40001,
            "'constructorParams' should be an object".to_owned(),
        ),
        (
            json!({"type": "PassThrough", "constructorParams": {}}),
            40001,
            "'mediaPipeline' parameter should be a string".to_owned(),
        ),
        (
            json!({"type": "PassThrough", "constructorParams": {"mediaPipeline": {}}}),
            40001,
            "'mediaPipeline' parameter should be a string".to_owned(),
        ),
        (
            json!({"type": "PassThrough", "constructorParams": {"mediaPipeline": "nope"}}),
            40101,
            "Object 'nope' not found".to_owned(),
        ),
        (
            json!({"type": "PassThrough", "constructorParams": {"mediaPipeline": "newref:0"}}),
            40109,
            "Object 'newref:0' not found. Possibly using a transactional object without \
             committing the transaction."
                .to_owned(),
        ),
        (
            json!({"type": "WebRtcEndpoint", "constructorParams":
                {"mediaPipeline": pipeline, "certificateKeyType": "DSA"}}),
            40001,
            "Invalid value for 'CertificateKeyType'".to_owned(),
        ),
    ] {
        assert_eq!(client.fail("create", params.clone()).await, (code, text), "{params}");
    }
    // The original fails in ways of its own here; any error is as good, a crash is not.
    let wrong = json!({"type": "PassThrough", "constructorParams": {"mediaPipeline": element}});
    client.fail("create", wrong).await;
}

#[tokio::test]
async fn describe_tells_the_class_and_its_ancestors_nearest_first() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let element = client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    let mut description = client.call("describe", json!({"object": element})).await;
    assert!(description["sessionId"].take().is_string());
    assert_eq!(
        description,
        json!({"hierarchy": ["kurento.MediaElement", "kurento.MediaObject"],
            "qualifiedType": "kurento.PassThrough", "sessionId": null, "type": "PassThrough"})
    );
    assert_eq!(client.fail("describe", json!({"object": "nope"})).await.0, 40101);
}

#[tokio::test]
async fn invoke_names_what_is_missing() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let element = client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    for (object, operation, args, code, text) in [
        ("nope", "getName", json!({}), 40101, "Object 'nope' not found"),
        (&element, "nothing", Value::Null, 40008, "Method 'nothing' with 0 parameters not found"),
        (
            &element,
            "nothing",
            json!({"x": 1}),
            40008,
            "Method 'nothing' with 1 parameters not found",
        ),
        (&element, "getname", json!({}), 40008, "Method 'getname' with 0 parameters not found"),
        (&element, "addTag", json!("x"), 40001, "'operationParams' is required"),
        (&element, "addTag", json!({"key": "x"}), 40001, "'value' parameter should be a string"),
        (&element, "addTag", json!({"key": {}}), 40001, "'key' parameter should be a string"),
        (
            &element,
            "isMediaFlowingIn",
            json!({"mediaType": "audio"}),
            40001,
            "Invalid value for 'MediaType'",
        ),
        (&element, "getTag", json!({"key": "x", "extra": 1}), 40110, "Tag key not found"),
        (&element, "connect", json!({"sink": "nope"}), 40101, "Object 'nope' not found"),
        (&element, "connect", json!({"sink": pipeline}), 40107, ""),
    ] {
        let params = json!({"object": object, "operation": operation, "operationParams": args});
        let (got, message) = client.fail("invoke", params.clone()).await;
        assert_eq!(got, code, "{params}: {message}");
        assert!(text.is_empty() || message == text, "{params}: {message}");
    }
}

#[tokio::test]
async fn void_operations_answer_null_and_needless_params_are_ignored() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let object = client.create("MediaPipeline", json!({})).await;
    let params = json!({"object": object, "operation": "addTag", "transaction": {},
        "operationParams": {"key": 5, "value": true, "other": []}});
    let result = client.call("invoke", params).await;
    assert_eq!(result.as_object().expect("members").get("value"), Some(&Value::Null));
    assert_eq!(client.invoke(&object, "getTag", json!({"key": "5"})).await, "true");
    for args in [json!([]), json!("x"), Value::Null] {
        assert_eq!(client.invoke(&object, "getName", args).await, json!(object));
    }
}

#[tokio::test]
async fn release_takes_all_below_and_succeeds_twice() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let element = client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    for object in [&*pipeline, &element, "nope", "manager_ServerManager"] {
        let result = client.call("release", json!({"object": object})).await;
        assert_eq!(result.as_object().map(|members| members.len()), Some(1), "{result}");
    }
    assert_eq!(client.fail("describe", json!({"object": element})).await.0, 40101);
    client.call("describe", json!({"object": "manager_ServerManager"})).await;
}

#[tokio::test]
async fn replies_of_a_connection_come_in_the_order_of_its_requests() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let mut other = Client::connect(server.address).await;
    let slow = json!({"jsonrpc": "2.0", "id": "slow", "method": "invoke", "params": {
        "object": "manager_ServerManager", "operation": "getUsedCpu",
        "operationParams": {"interval": 300}}});
    client.send_text(&slow.to_string()).await;
    client.send_text(r#"{"jsonrpc":"2.0","id":"quick","method":"ping"}"#).await;
    assert_eq!(other.call("ping", Value::Null).await["value"], "pong");
    for id in ["slow", "quick"] {
        let reply: Value = serde_json::from_str(&client.text().await).expect("JSON");
        assert_eq!(reply["id"], id);
    }
}
