//! The protocol, statement by statement: each test is named as the sentence it checks, and runs against
//! a whole server. What needs several clients or a look behind the door is in `api`.

mod create;
mod errors;
mod events;
mod invoke;
mod json_rpc;
mod legacy;
mod server_manager;
mod sessions;
mod transaction;
mod transport;
mod values;

use rivero::server::Server;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::peer;

/// A server and a client of it.
struct Stage {
    server: Server,
    client: Client,
}

impl Stage {
    async fn open() -> Self {
        let server = peer::server().await;
        let client = Client::connect(server.address()).await;
        Self { server, client }
    }

    async fn pipeline(&mut self) -> String {
        self.client.create("MediaPipeline", json!({})).await
    }

    /// An element in a pipeline of its own.
    async fn element(&mut self, class: &str) -> String {
        let pipeline = self.pipeline().await;
        self.client.create(class, json!({"mediaPipeline": pipeline})).await
    }

    async fn get(&mut self, object: &str, operation: &str) -> Value {
        self.client.invoke(object, operation, json!({})).await
    }

    async fn set(&mut self, object: &str, property: &str, value: Value) {
        let operation = setter(property);
        assert_eq!(
            self.client.invoke(object, &operation, json!({property: value})).await,
            Value::Null
        );
    }

    /// Code and text of the error that an operation ends with.
    async fn failure(&mut self, object: &str, operation: &str, args: Value) -> (i64, String) {
        let params = json!({"object": object, "operation": operation, "operationParams": args});
        self.client.fail("invoke", params).await
    }

    /// Code and text of the error that a creation ends with.
    async fn no_object(&mut self, class: &str, args: Value) -> (i64, String) {
        let params = json!({"type": class, "constructorParams": args});
        self.client.fail("create", params).await
    }

    async fn end(self) {
        self.client.close().await;
        self.server.stop().await;
    }
}

fn setter(property: &str) -> String {
    let (first, rest) = property.split_at(1);
    format!("set{}{rest}", first.to_uppercase())
}

fn error(code: i64, text: &str) -> (i64, String) {
    (code, text.to_owned())
}
