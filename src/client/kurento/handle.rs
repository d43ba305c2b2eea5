//! A remote object as its client sees it, and the connection it is reached over.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::decode::Decode;
use super::event::{self, EventCounters, EventKind, Events, Routes};
use super::transaction::Transaction;
use super::{MediaPipeline, ServerManager};
use crate::client::connection::Client;
use crate::client::error::ClientError;
use crate::client::options::Options;
use crate::model::ObjectId;
use crate::model::class::{self, Class};

/// A connection to a media server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Kurento {
    link: Arc<Link>,
}

/// What all handles of one connection share.
#[derive(Debug)]
pub struct Link {
    pub(super) client: Client,
    pub(super) routes: Mutex<Routes>,
}

#[cfg(test)]
impl Link {
    /// A link over which nothing can be asked.
    pub(super) fn unconnected() -> Arc<Self> {
        let routes = Mutex::new(Routes::new(1, 1));
        Arc::new(Self { client: Client::closed(), routes })
    }
}

impl Kurento {
    /// Connects with default options.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        Self::connect_with(url, Options::default()).await
    }

    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(url: &str, options: Options) -> Result<Self, ClientError> {
        let (events, subscriptions) = (options.event_queue, options.subscriptions);
        let client = Client::connect(url, options).await?;
        let notifications = client.notifications()?;
        let listener = client.listener()?;
        let routes = Mutex::new(Routes::new(subscriptions, events));
        let link = Arc::new(Link { client, routes });
        tokio::spawn(event::deliver(Arc::downgrade(&link), notifications, listener));
        Ok(Self { link })
    }

    /// The JSON-RPC client below: its session, its listeners, and any request that has no type.
    pub fn client(&self) -> &Client {
        &self.link.client
    }

    /// A handle of an object by its id, which is not checked; nor is its class.
    pub fn object<T: RemoteClass>(&self, id: &str) -> T {
        T::from_handle(Handle::new(&self.link, ObjectId::from(id)))
    }

    /// The one object that speaks for the whole server.
    pub fn server_manager(&self) -> ServerManager {
        self.object(ObjectId::SERVER_MANAGER)
    }

    /// Creates a pipeline.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_media_pipeline(&self) -> Result<MediaPipeline, ClientError> {
        Create::new(&self.link, Map::new()).run().await
    }

    /// Several operations in one request.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What became of events that reached nobody.
    pub fn event_counters(&self) -> EventCounters {
        event::lock(&self.link).counters()
    }

    /// Ends the connection; with `session`, the session too, and so all objects that no other
    /// session names. Whether the session is closed: see [`Client::close`].
    pub async fn close(&self, session: bool) -> bool {
        self.link.client.close(session).await
    }
}

/// A class of the remote API.
pub trait RemoteClass: Sized {
    /// Its descriptor.
    const CLASS: &'static Class;

    fn from_handle(handle: Handle) -> Self;

    fn handle(&self) -> &Handle;

    /// The same object, asked with more, or less, patience than [`Options::request_timeout`].
    fn within(&self, timeout: Duration) -> Self {
        Self::from_handle(Handle { timeout: Some(timeout), ..self.handle().clone() })
    }
}

/// A remote object of whatever class. Two are equal when they name the same object.
#[derive(Clone)]
pub struct Handle {
    link: Arc<Link>,
    id: ObjectId,
    timeout: Option<Duration>,
}

impl Handle {
    pub fn id(&self) -> &ObjectId {
        &self.id
    }

    /// The name of its class, as its id tells.
    pub fn class_name(&self) -> &str {
        let id = self.id.as_str();
        let name = id.rsplit('_').next().unwrap_or(id);
        name.rsplit('.').next().unwrap_or(name)
    }

    /// A handle of its own class, or of one it descends from; none when it is of another.
    pub fn cast<T: RemoteClass>(&self) -> Option<T> {
        let own = class::find(self.class_name())?;
        own.is_a(T::CLASS.name).then(|| T::from_handle(self.clone()))
    }

    /// Subscribes to an event, and receives it from now on.
    ///
    /// # Errors
    /// Any [`ClientError`]: code 40106 where objects of this class do not raise it,
    /// [`ClientError::Busy`] beyond [`Options::subscriptions`].
    pub async fn on<E: EventKind>(&self) -> Result<Events<E>, ClientError> {
        Events::subscribe(self.link.clone(), self.id.clone()).await
    }

    /// Invokes an operation by its name on the wire.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn invoke<T: Decode>(
        &self,
        operation: &str,
        params: Map<String, Value>,
    ) -> Result<T, ClientError> {
        let mut members = Map::new();
        members.insert("object".to_owned(), Value::from(self.id.as_str()));
        members.insert("operation".to_owned(), Value::from(operation));
        if !params.is_empty() {
            members.insert("operationParams".to_owned(), Value::Object(params));
        }
        let result = self.call("invoke", Value::Object(members)).await?;
        T::decode(value_of(result), &self.link)
    }

    /// Destroys it with all that was created in it, for every session. One that is gone already is
    /// no error.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn release(&self) -> Result<(), ClientError> {
        let params = json!({"object": self.id.as_str()});
        self.call("release", params).await.map(|_| ())
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.link.client.call_within(self.timeout, method, params).await
    }

    pub(super) fn new(link: &Arc<Link>, id: ObjectId) -> Self {
        Self { link: link.clone(), id, timeout: None }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.id).finish()
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Handle {}

impl Decode for Handle {
    fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {
        ObjectId::decode(value, link).map(|id| Self::new(link, id))
    }
}

/// `value` of a result.
pub(super) fn value_of(mut result: Value) -> Value {
    result.get_mut("value").map(Value::take).unwrap_or_default()
}

/// An object that is to be created.
#[derive(Clone, Debug)]
pub struct Create<T> {
    link: Arc<Link>,
    timeout: Option<Duration>,
    params: Map<String, Value>,
    class: PhantomData<fn() -> T>,
}

impl<T: RemoteClass> Create<T> {
    /// Below nothing, if it is a pipeline.
    pub(super) fn new(link: &Arc<Link>, params: Map<String, Value>) -> Self {
        Self { link: link.clone(), timeout: None, params, class: PhantomData }
    }

    pub(super) fn below(parent: &Handle, params: Map<String, Value>) -> Self {
        Self { timeout: parent.timeout, ..Self::new(&parent.link, params) }
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.params.insert(name.to_owned(), value);
    }

    pub(super) async fn run(self) -> Result<T, ClientError> {
        // Extra modules are known by the name with their namespace only.
        let params = json!({"type": T::CLASS.qualified, "constructorParams": self.params});
        let result = self.link.client.call_within(self.timeout, "create", params).await?;
        Handle::decode(value_of(result), &self.link).map(T::from_handle)
    }
}

/// Optional parameters of an operation in their order: name and default, as JSON.
pub type Optional = &'static [(&'static str, Option<&'static str>)];

/// An operation with optional parameters.
#[derive(Clone, Debug)]
pub struct Call<T> {
    handle: Handle,
    operation: &'static str,
    params: Map<String, Value>,
    optional: Optional,
    given: HashMap<&'static str, Value>,
    result: PhantomData<fn() -> T>,
}

impl<T: Decode> Call<T> {
    pub(super) fn new(
        handle: &Handle,
        operation: &'static str,
        params: Map<String, Value>,
        optional: Optional,
    ) -> Self {
        let (handle, given) = (handle.clone(), HashMap::new());
        Self { handle, operation, params, optional, given, result: PhantomData }
    }

    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        self.given.insert(name, value);
    }

    pub(super) async fn run(mut self) -> Result<T, ClientError> {
        complete(&mut self.params, self.optional, self.given)?;
        self.handle.invoke(self.operation, self.params).await
    }
}

/// Adds the optional parameters that are given. Servers take them by position: one counts only while
/// all before it are there, so defaults fill the gaps.
fn complete(
    params: &mut Map<String, Value>,
    optional: Optional,
    mut given: HashMap<&'static str, Value>,
) -> Result<(), ClientError> {
    for (name, default) in optional {
        if given.is_empty() {
            break;
        }
        let value = match (given.remove(name), default) {
            (Some(value), _) => value,
            (None, Some(default)) => serde_json::from_str(default)
                .map_err(|error| ClientError::Encode(error.to_string()))?,
            (None, None) => return Err(ClientError::MissingArgument(name)),
        };
        params.insert((*name).to_owned(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONAL: Optional =
        &[("a", Some("\"x\"")), ("b", None), ("c", Some("-1")), ("d", Some("true"))];

    fn completed(given: &[(&'static str, i32)]) -> Result<Value, ClientError> {
        let given = given.iter().map(|(name, value)| (*name, Value::from(*value))).collect();
        let mut params = Map::new();
        complete(&mut params, OPTIONAL, given).map(|()| Value::Object(params))
    }

    #[test]
    fn gaps_before_an_optional_parameter_are_filled_with_defaults() {
        assert_eq!(completed(&[]), Ok(json!({})));
        assert_eq!(completed(&[("a", 1)]), Ok(json!({"a": 1})));
        assert_eq!(completed(&[("b", 2)]), Ok(json!({"a": "x", "b": 2})));
        let all = json!({"a": "x", "b": 2, "c": -1, "d": 4});
        assert_eq!(completed(&[("d", 4), ("b", 2)]), Ok(all));
        assert_eq!(completed(&[("c", 3)]), Err(ClientError::MissingArgument("b")));
    }
}
