//! Events of remote objects, from the connection to who subscribed to them.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::decode::Members;
use super::handle::{Handle, Link, RemoteClass, value_of};
use super::{MediaObject, types};
use crate::client::connection::{Asked, Listener, Notifications};
use crate::client::error::ClientError;
use crate::client::machine::ConnectionEvent;
use crate::client::message::Notification;
use crate::client::queue::Queue;
use crate::model::ObjectId;

/// A kind of event; the build script writes one type for each.
pub trait EventKind: Sized {
    /// Its name on the wire.
    const NAME: &'static str;

    /// Reads what it says beyond what all events say.
    ///
    /// # Errors
    /// [`ClientError::Decode`].
    fn decode(members: &mut Members, link: &Arc<Link>) -> Result<Self, ClientError>;
}

/// An event; what is its kind's own is reached through it.
#[derive(Clone, Debug)]
pub struct Event<E> {
    /// The object that raised it.
    pub source: MediaObject,
    /// When, in milliseconds since the Unix epoch.
    pub timestamp_millis: i64,
    /// The tags of the source, where it sends them.
    pub tags: Vec<types::Tag>,
    pub data: E,
}

impl<E> Deref for Event<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.data
    }
}

/// What became of events that reached nobody.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EventCounters {
    /// Nobody receives them: they were on their way when a subscription ended.
    pub unrouted: u64,
    /// A receiver, or who hands them out, did not read in time.
    pub lost: u64,
    /// Notifications that are no events.
    pub unreadable: u64,
}

/// Who receives which event of which object.
#[derive(Debug)]
pub struct Routes {
    of_object: HashMap<ObjectId, HashMap<&'static str, Vec<Route>>>,
    count: usize,
    capacity: usize,
    queue: usize,
    next: u64,
    counters: EventCounters,
    /// Notifications that came faster than they were handed out.
    lost_on_the_way: u64,
}

#[derive(Debug)]
struct Route {
    number: u64,
    /// The session of the subscription, once that is made.
    session: Option<String>,
    queue: Arc<Queue<Value>>,
}

impl Routes {
    pub fn new(capacity: usize, queue: usize) -> Self {
        let (of_object, counters) = (HashMap::new(), EventCounters::default());
        Self { of_object, count: 0, capacity, queue, next: 0, counters, lost_on_the_way: 0 }
    }

    pub fn counters(&self) -> EventCounters {
        EventCounters { lost: self.counters.lost + self.lost_on_the_way, ..self.counters }
    }

    fn add(&mut self, object: &ObjectId, name: &'static str) -> Option<(u64, Arc<Queue<Value>>)> {
        if self.count >= self.capacity {
            return None;
        }
        self.count += 1;
        self.next += 1;
        let queue = Queue::new(self.queue);
        let route = Route { number: self.next, session: None, queue: queue.clone() };
        let of_object = self.of_object.entry(object.clone()).or_default();
        of_object.entry(name).or_default().push(route);
        Some((self.next, queue))
    }

    fn route(&mut self, object: &ObjectId, name: &str, number: u64) -> Option<&mut Route> {
        let routes = self.of_object.get_mut(object)?.get_mut(name)?;
        routes.iter_mut().find(|route| route.number == number)
    }

    fn remove(&mut self, object: &ObjectId, name: &str, number: u64) {
        let Some(of_object) = self.of_object.get_mut(object) else { return };
        if let Some(routes) = of_object.get_mut(name) {
            let before = routes.len();
            routes.retain(|route| route.number != number);
            self.count -= before - routes.len();
        }
        of_object.retain(|_, routes| !routes.is_empty());
        if of_object.is_empty() {
            self.of_object.remove(object);
        }
    }

    fn deliver(&mut self, notification: &Notification) {
        let value = &notification.params["value"];
        let (Some(object), Some(name)) = (value["object"].as_str(), value["type"].as_str()) else {
            self.counters.unreadable += 1;
            return;
        };
        let routes = self.of_object.get(object).and_then(|of_object| of_object.get(name));
        match routes {
            Some(routes) => {
                for route in routes {
                    self.counters.lost += u64::from(route.queue.push(value["data"].clone()));
                }
            }
            None => self.counters.unrouted += 1,
        }
    }

    /// Ends subscriptions of sessions other than `session`.
    fn end_others(&mut self, session: Option<&str>) {
        for route in self.of_object.values().flat_map(HashMap::values).flatten() {
            if route.session.is_some() && route.session.as_deref() != session {
                route.queue.close();
            }
        }
    }

    fn end(&mut self) {
        let routes = self.of_object.values().flat_map(HashMap::values).flatten();
        routes.for_each(|route| route.queue.close());
    }
}

pub fn lock(link: &Link) -> MutexGuard<'_, Routes> {
    // Nothing that is done under the lock panics half-way.
    link.routes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands events out, as long as there is a connection and somebody has a handle of it.
pub async fn deliver(link: Weak<Link>, mut notifications: Notifications, mut listener: Listener) {
    loop {
        tokio::select! {
            notification = notifications.next() => {
                let (Some(notification), Some(link)) = (notification, link.upgrade()) else { break };
                let mut routes = lock(&link);
                routes.lost_on_the_way = notifications.lost();
                if notification.method == "onEvent" {
                    routes.deliver(&notification);
                } else {
                    routes.counters.unreadable += 1;
                }
            }
            event = listener.next() => {
                let (Some(event), Some(link)) = (event, link.upgrade()) else { break };
                if event == (ConnectionEvent::Reconnected { same_server: false }) {
                    let session = link.client.session();
                    lock(&link).end_others(session.as_deref());
                }
            }
        }
    }
    if let Some(link) = link.upgrade() {
        lock(&link).end();
    }
}

/// Events of one kind of one object. Dropping it ends the subscription.
pub struct Events<E> {
    link: Arc<Link>,
    object: ObjectId,
    name: &'static str,
    number: u64,
    queue: Arc<Queue<Value>>,
    subscription: Option<Subscription>,
    kind: PhantomData<fn() -> E>,
}

/// A subscription that the server has. Dropping it ends it.
struct Subscription {
    link: Arc<Link>,
    object: ObjectId,
    name: Option<String>,
    session: Option<String>,
}

impl Subscription {
    fn read(link: Arc<Link>, object: ObjectId, result: Value) -> Result<Self, ClientError> {
        let session = result["sessionId"].as_str().map(str::to_owned);
        let Value::String(name) = value_of(result) else {
            return Err(ClientError::Decode("a subscription without a name".to_owned()));
        };
        Ok(Self { link, object, name: Some(name), session })
    }

    /// The parameters to end it with, once.
    fn end(&mut self) -> Option<Value> {
        let name = self.name.take()?;
        Some(json!({"object": self.object.as_str(), "subscription": name}))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(params) = self.end() {
            self.link.client.post("unsubscribe", params);
        }
    }
}

/// Carries the answer to `subscribe` to who waits for it. If nobody does, because it took too long or
/// was not worth the wait, the subscription is ended when the answer comes: nobody else knows of it.
async fn settle(
    link: Weak<Link>,
    object: ObjectId,
    asked: Asked,
    to: oneshot::Sender<Result<Subscription, ClientError>>,
) {
    let read = |result: Result<Value, ClientError>| {
        let link = link.upgrade().ok_or(ClientError::Closed)?;
        result.and_then(|result| Subscription::read(link, object.clone(), result))
    };
    let result = asked.reply.await.unwrap_or(Err(ClientError::Closed));
    let timed_out = result == Err(ClientError::Timeout);
    // What is not taken ends here, or with the channel.
    drop(to.send(read(result)));
    if timed_out && let Ok(late) = asked.late.await {
        drop(read(late));
    }
}

impl<E: EventKind> Events<E> {
    pub(super) async fn subscribe(link: Arc<Link>, object: ObjectId) -> Result<Self, ClientError> {
        // In place before the server knows of it, so that no event comes too early.
        let (number, queue) = lock(&link).add(&object, E::NAME).ok_or(ClientError::Busy)?;
        let (name, subscription) = (E::NAME, None);
        let mut events =
            Self { link, object, name, number, queue, subscription, kind: PhantomData };
        let params = json!({"object": events.object.as_str(), "type": E::NAME});
        let asked = events.link.client.ask("subscribe", params)?;
        let (to, made) = oneshot::channel();
        let link = Arc::downgrade(&events.link);
        tokio::spawn(settle(link, events.object.clone(), asked, to));
        let subscription = made.await.map_err(|_| ClientError::Closed)??;
        if let Some(route) = lock(&events.link).route(&events.object, E::NAME, number) {
            route.session.clone_from(&subscription.session);
        }
        events.subscription = Some(subscription);
        Ok(events)
    }

    /// The next event; none when the session of the subscription, or the client, is no more. Events
    /// that cannot be read are skipped.
    pub async fn next(&mut self) -> Option<Event<E>> {
        loop {
            let data = self.queue.pop().await?;
            match self.read(data) {
                Ok(event) => return Some(event),
                Err(error) => {
                    tracing::debug!(%error, event = E::NAME, "cannot read an event");
                    lock(&self.link).counters.unreadable += 1;
                }
            }
        }
    }

    /// How many were lost because they were not read in time.
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Ends the subscription, and waits until the server has done so.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn unsubscribe(mut self) -> Result<(), ClientError> {
        let params = self.subscription.as_mut().and_then(Subscription::end);
        let Some(params) = params else { return Ok(()) };
        self.link.client.call("unsubscribe", params).await.map(|_| ())
    }

    fn read(&self, data: Value) -> Result<Event<E>, ClientError> {
        let mut members = Members::of(E::NAME, data)?;
        let source = members.take_optional::<Handle>("source", &self.link)?;
        let source = source.unwrap_or_else(|| Handle::new(&self.link, self.object.clone()));
        Ok(Event {
            source: MediaObject::from_handle(source),
            timestamp_millis: members.take_optional("timestampMillis", &self.link)?.unwrap_or(0),
            tags: members.take_optional("tags", &self.link)?.unwrap_or_default(),
            data: E::decode(&mut members, &self.link)?,
        })
    }
}

impl<E> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("object", &self.object).finish_non_exhaustive()
    }
}

impl<E> Drop for Events<E> {
    fn drop(&mut self) {
        lock(&self.link).remove(&self.object, self.name, self.number);
    }
}
