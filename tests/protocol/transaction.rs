//! Several requests, one answer.

use serde_json::{Value, json};

use super::{Stage, error};

fn operation(id: usize, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

impl Stage {
    async fn commit(&mut self, operations: Value) -> Value {
        self.client.call("transaction", json!({"operations": operations})).await["value"].take()
    }

    async fn refused(&mut self, operations: Value) -> (i64, String) {
        self.client.fail("transaction", json!({"operations": operations})).await
    }
}

#[tokio::test]
async fn each_operation_has_a_whole_reply_with_the_session_of_all() {
    let mut stage = Stage::open().await;
    let params = json!({"operations": [
        operation(0, "ping", json!({"sessionId": "other"})),
        operation(1, "create", json!({"type": "MediaPipeline"})),
    ], "sessionId": "mine"});
    let result = stage.client.call("transaction", params).await;
    assert_eq!(result["sessionId"], "mine");
    let pong = json!({"id": 0, "jsonrpc": "2.0", "result": {"sessionId": "mine", "value": "pong"}});
    assert_eq!(result["value"][0], pong);
    assert_eq!(result["value"][1]["id"], 1);
    assert_eq!(result["value"][1]["result"]["sessionId"], "mine");
    stage.end().await;
}

#[tokio::test]
async fn newref_stands_for_the_value_of_an_operation_before() {
    let mut stage = Stage::open().await;
    let value = stage
        .commit(json!([
            operation(0, "create", json!({"type": "MediaPipeline"})),
            operation(1, "create", json!({"type": "PassThrough", "constructorParams": {"mediaPipeline": "newref:0"}})),
            operation(2, "invoke", json!({"object": "newref:1", "operation": "connect", "operationParams": {"sink": "newref:1"}})),
            operation(3, "invoke", json!({"object": "newref:1", "operation": "getParent"})),
        ]))
        .await;
    assert_eq!(value[3]["result"]["value"], value[0]["result"]["value"]);
    stage.end().await;
}

#[tokio::test]
async fn newref_that_is_no_number_or_has_no_value_ends_the_whole_call() {
    let mut stage = Stage::open().await;
    let create = |parent: &str| {
        operation(
            0,
            "create",
            json!({"type": "PassThrough", "constructorParams": {"mediaPipeline": parent}}),
        )
    };
    let expected = error(40008, "Invalid index of newref 'abc'");
    assert_eq!(stage.refused(json!([create("newref:abc")])).await, expected);
    for later in [0, 1, 7] {
        let expected = error(40008, &format!("Result not found on request {later}"));
        assert_eq!(stage.refused(json!([create(&format!("newref:{later}"))])).await, expected);
    }
    stage.end().await;
}

#[tokio::test]
async fn the_id_of_an_operation_is_its_place_or_missing() {
    let mut stage = Stage::open().await;
    let expected = error(40008, "Id of request '0' should be '0'");
    assert_eq!(stage.refused(json!([operation(5, "ping", json!({}))])).await, expected);
    let mut text = operation(0, "ping", json!({}));
    text["id"] = json!("0");
    assert_eq!(stage.refused(json!([text])).await, expected);
    let value = stage.commit(json!([{"jsonrpc": "2.0", "method": "ping"}])).await;
    assert_eq!((&value[0]["id"], &value[0]["result"]["value"]), (&json!(0), &json!("pong")));
    stage.end().await;
}

#[tokio::test]
async fn the_first_failure_is_the_last_answer_and_nothing_is_taken_back() {
    let mut stage = Stage::open().await;
    let pipeline = stage.pipeline().await;
    let name = |id, name: &str| {
        operation(
            id,
            "invoke",
            json!({"object": pipeline, "operation": "setName", "operationParams": {"name": name}}),
        )
    };
    let value = stage
        .commit(json!([
            name(0, "first"),
            operation(1, "describe", json!({"object": "nobody"})),
            name(2, "second")
        ]))
        .await;
    assert_eq!(value.as_array().map(Vec::len), Some(2));
    assert_eq!(value[1]["error"]["code"], 40101);
    assert_eq!(stage.get(&pipeline, "getName").await, "first");
    stage.end().await;
}

#[tokio::test]
async fn an_operation_that_is_no_request_fails_like_one() {
    let mut stage = Stage::open().await;
    let value = stage.commit(json!([{"id": 0, "method": "ping"}])).await;
    let invalid = json!({"code": -32600, "message": "Invalid JSON-RPC request."});
    assert_eq!(value, json!([{"error": invalid, "id": 0, "jsonrpc": "2.0"}]));
    let value = stage.commit(json!([operation(0, "getName", json!({}))])).await;
    assert_eq!(value[0]["error"], json!({"code": -32601, "message": "Method not found."}));
    stage.end().await;
}

#[tokio::test]
async fn operations_are_needed_and_a_list() {
    let mut stage = Stage::open().await;
    let without = stage.client.fail("transaction", json!({})).await;
    assert_eq!(without, error(-32000, "'operations' parameter is required"));
    for wrong in [json!("x"), json!({}), json!(5)] {
        let expected = error(-32000, "'operations' parameter should be an array");
        assert_eq!(stage.refused(wrong).await, expected);
    }
    assert_eq!(stage.commit(json!([])).await, json!([]));
    stage.end().await;
}

#[tokio::test]
async fn a_transaction_may_hold_a_transaction() {
    let mut stage = Stage::open().await;
    let inner = json!({"operations": [operation(0, "ping", json!({}))]});
    let value = stage.commit(json!([operation(0, "transaction", inner)])).await;
    assert_eq!(value[0]["result"]["value"][0]["result"]["value"], "pong");
    stage.end().await;
}
