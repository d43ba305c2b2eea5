//! The server manager.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::server::TestServer;

const MANAGER: &str = "manager_ServerManager";

async fn ask(client: &mut Client, operation: &str) -> Value {
    client.invoke(MANAGER, operation, json!({})).await
}

#[tokio::test]
async fn it_is_described_like_any_object() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let description = client.call("describe", json!({"object": MANAGER})).await;
    assert_eq!(description["type"], "ServerManager");
    assert_eq!(description["qualifiedType"], "kurento.ServerManager");
    assert_eq!(description["hierarchy"], json!(["kurento.MediaObject"]));
}

#[tokio::test]
async fn get_info_lists_the_modules_that_strict_clients_insist_on() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let info = ask(&mut client, "getInfo").await;
    assert_eq!((&info["__module__"], &info["__type__"]), (&json!("kurento"), &json!("ServerInfo")));
    assert_eq!(info["type"], "KMS");
    assert_eq!(info["version"], "7.3.0");
    let modules = info["modules"].as_array().expect("a list");
    let names: Vec<_> = modules.iter().map(|module| module["name"].clone()).collect();
    for name in ["core", "elements", "filters"] {
        assert!(names.contains(&json!(name)), "{name}");
    }
    let core = &modules[names.iter().position(|name| name == "core").expect("listed")];
    assert_eq!(core["factories"], json!(["HubPort", "MediaPipeline", "PassThrough"]));
    assert_eq!(core["generationTime"].as_str().map(str::len), Some(20));
}

#[tokio::test]
async fn it_knows_pipelines_and_sessions() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let mut pipelines = vec![
        client.create("MediaPipeline", json!({})).await,
        client.create("MediaPipeline", json!({})).await,
    ];
    pipelines.sort();
    client.create("PassThrough", json!({"mediaPipeline": pipelines[0]})).await;
    assert_eq!(ask(&mut client, "getPipelines").await, json!(pipelines));
    let session = client.call("ping", Value::Null).await["sessionId"].clone();
    assert_eq!(ask(&mut client, "getSessions").await, json!([session]));
}

#[tokio::test]
async fn it_has_what_every_object_has() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(ask(&mut client, "getId").await, MANAGER);
    assert_eq!(ask(&mut client, "getName").await, MANAGER);
    client.invoke(MANAGER, "setName", json!({"name": "house"})).await;
    assert_eq!(ask(&mut client, "getName").await, "house");
    assert_eq!(ask(&mut client, "getParent").await, Value::Null);
    assert_eq!(ask(&mut client, "getMediaPipeline").await, Value::Null);
    assert_eq!(ask(&mut client, "getChildren").await, json!([]));
    assert_eq!(ask(&mut client, "getMetadata").await, "");
    assert!(ask(&mut client, "getCreationTime").await.as_i64() > Some(1_700_000_000));
    client.invoke(MANAGER, "addTag", json!({"key": "a", "value": "b"})).await;
    assert_eq!(ask(&mut client, "getTags").await[0]["value"], "b");
}

#[tokio::test]
async fn it_measures_the_process() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    assert!(ask(&mut client, "getCpuCount").await.as_i64() >= Some(1));
    assert!(ask(&mut client, "getUsedMemory").await.as_i64() > Some(1_000));
    let used = client.invoke(MANAGER, "getUsedCpu", json!({"interval": 20})).await;
    assert!(used.as_f64() >= Some(0.0), "{used}");
    for interval in [0, -5] {
        let used = client.invoke(MANAGER, "getUsedCpu", json!({"interval": interval})).await;
        assert_eq!(used, Value::Null);
    }
}

#[tokio::test]
async fn get_kmd_shows_a_module_or_says_that_there_is_none() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let kmd = client.invoke(MANAGER, "getKmd", json!({"moduleName": "core"})).await;
    let kmd: Value = serde_json::from_str(kmd.as_str().expect("a text")).expect("JSON");
    assert_eq!(kmd["name"], "core");
    let classes = kmd["remoteClasses"].as_array().expect("a list");
    assert!(classes.iter().any(|class| class["name"] == "MediaElement"));
    let params = json!({"object": MANAGER, "operation": "getKmd",
        "operationParams": {"moduleName": "nope"}});
    let reply = client.request("invoke", params).await;
    assert_eq!(
        reply["error"],
        json!({"code": 40500, "data": {"type": "UNDEFINED"},
            "message": "Requested kmd module doesn't exist"})
    );
}
