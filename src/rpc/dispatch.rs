//! From a verb to what it does.
//!
//! Each verb is one method below, in the order of the protocol's table. [`Control::answer`] knows
//! nothing of the wire: a transaction calls it once per operation.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::control::{Control, State, WorkerReply};
use super::server_manager;
use super::transaction::Budget;
use crate::jsonrpc::{Caller, Error, Handler, Params, SessionId};
use crate::model::value::{self, constructor_args, operation_args};
use crate::model::{Arg, Args, ObjectId, RemoteError, class};
use crate::pipeline::Command;

/// What clients may ask for. Each also names a counter.
const VERBS: [&str; 13] = [
    "ping",
    "connect",
    "create",
    "describe",
    "invoke",
    "release",
    "subscribe",
    "unsubscribe",
    "ref",
    "unref",
    "keepAlive",
    "closeSession",
    "transaction",
];

pub(super) type Answer = Result<Value, Error>;

/// The session a request speaks for, where it must or may have none.
pub(super) trait SessionOf {
    /// # Errors
    /// [`Error::Missing`]; some verbs do not make sessions up.
    fn required_session(&self) -> Result<SessionId, Error>;

    fn session_or_new(&self) -> SessionId;
}

impl SessionOf for Caller {
    fn required_session(&self) -> Result<SessionId, Error> {
        self.session.clone().ok_or(Error::Missing("sessionId"))
    }

    fn session_or_new(&self) -> SessionId {
        let named = self.session.clone().filter(|session| !session.is_empty());
        named.unwrap_or_else(|| uuid::Uuid::new_v4().to_string().into())
    }
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        Self::Application { code: error.code(), kind: error.name(), message: error.to_string() }
    }
}

impl Handler for Control {
    async fn call(self: Arc<Self>, caller: Caller, method: String, params: Params) -> Answer {
        let session = caller.session.as_deref().unwrap_or_default();
        let object = params.get("object").and_then(Value::as_str).unwrap_or_default();
        let span = tracing::info_span!("request", connection = caller.connection, session, object);
        let mut budget =
            Budget { operations: self.limits.operations, bytes: self.limits.message_bytes };
        async {
            let result = self.answer(&caller, &method, params, &mut budget).await;
            if let Err(error) = &result {
                tracing::debug!(method, error = error.to_string(), "refused");
                self.metrics.error(error.code());
            }
            result
        }
        .instrument(span)
        .await
    }

    fn refused(&self, error: &Error) {
        self.metrics.request("unreadable");
        self.metrics.error(error.code());
    }
}

impl Control {
    /// The result of one request.
    pub(super) async fn answer(
        &self,
        caller: &Caller,
        method: &str,
        params: Params,
        budget: &mut Budget,
    ) -> Answer {
        let Some(verb) = VERBS.iter().find(|verb| **verb == method) else {
            self.metrics.request("unknown");
            return Err(Error::MethodNotFound);
        };
        self.metrics.request(verb);
        match *verb {
            "ping" => Ok(ping(caller)),
            "connect" => self.connect(caller),
            _ if params == Params::None => Err(Error::NoParams),
            "create" => self.create(caller, &params).await,
            "describe" => self.describe(caller, &params),
            "invoke" => self.invoke(caller, &params).await,
            "release" => self.release_object(caller, &params).await,
            "subscribe" => self.subscribe(caller, &params),
            "unsubscribe" => self.unsubscribe(caller, &params),
            "ref" => self.hold(caller, &params),
            "unref" => self.let_go(caller, &params),
            "keepAlive" => self.keep_alive(caller),
            "closeSession" => self.close_session(caller, &params).await,
            "transaction" => self.transaction(caller, params, budget).await,
            _ => Err(Error::MethodNotFound),
        }
    }

    fn connect(&self, caller: &Caller) -> Answer {
        if let Some(session) = &caller.session
            && !self.server.keep_alive(session)
        {
            return Err(RemoteError::InvalidSession.into());
        }
        let session = caller.session_or_new();
        Ok(json!({"serverId": self.server_id, "sessionId": &*session}))
    }

    async fn create(&self, caller: &Caller, params: &Params) -> Answer {
        let name = params.text("type")?;
        let class = class::factory(&name).ok_or(RemoteError::FactoryNotFound(name))?;
        self.resources.check()?;
        let session = caller.session_or_new();
        let (id, reply) = {
            let mut state = self.shared.lock();
            if state.registry.len() >= self.limits.objects {
                return Err(too_many("objects", self.limits.objects));
            }
            let lookup = |id: &str| state.registry.class(id);
            let args = constructor_args(class, params.get("constructorParams"), &lookup)?;
            let parent = class.parent().and_then(|_| parent_in(&args));
            self.check_held(&state, &session)?;
            self.server.touch(caller, &session)?;
            let home = match &parent {
                Some(parent) => state
                    .registry
                    .home(parent.as_str())
                    .ok_or_else(|| RemoteError::not_found(parent))?,
                None => self.media.place(),
            };
            let id = ObjectId::new(class, parent.as_ref());
            state.registry.expect(id.clone(), session.clone());
            let (ticket, reply) = oneshot::channel();
            let command = Command::Create { class, id: id.clone(), parent, args };
            self.media.send(home, command, ticket);
            (id, reply)
        };
        let result = worker_reply(reply).await;
        if result.is_err() {
            self.shared.lock().registry.give_up(id.as_str());
        }
        result.map(|_| valued(&session, Value::from(id.as_str())))
    }

    fn describe(&self, caller: &Caller, params: &Params) -> Answer {
        let object = params.text("object")?;
        let session = caller.session_or_new();
        let class = self.use_object(&mut self.shared.lock(), caller, &session, &object)?;
        let hierarchy: Vec<_> = class.lineage().skip(1).map(|class| class.qualified).collect();
        Ok(json!({
            "hierarchy": hierarchy,
            "qualifiedType": class.qualified,
            "sessionId": &*session,
            "type": class.name,
        }))
    }

    async fn invoke(&self, caller: &Caller, params: &Params) -> Answer {
        let operation = params.text("operation")?;
        let object = params.text("object")?;
        let session = caller.session_or_new();
        let (method, args, reply) = {
            let mut state = self.shared.lock();
            let class = self.use_object(&mut state, caller, &session, &object)?;
            let given = params.get("operationParams");
            let method = class.method(&operation).ok_or_else(|| RemoteError::MethodNotFound {
                operation,
                count: given.and_then(Value::as_object).map_or(0, Map::len),
            })?;
            let args = operation_args(method, given, &|id| state.registry.class(id))?;
            match state.registry.home(&object) {
                Some(home) => {
                    let (ticket, reply) = oneshot::channel();
                    let object = ObjectId::from(object.as_str());
                    self.media.send(home, Command::Invoke { object, method, args }, ticket);
                    (method, Args::new(), Some(reply))
                }
                None => (method, args, None),
            }
        };
        let value = match reply {
            Some(reply) => worker_reply(reply).await?,
            None => server_manager::invoke(&self.manager, method, args).await?,
        };
        Ok(valued(&session, value))
    }

    async fn release_object(&self, caller: &Caller, params: &Params) -> Answer {
        let object = params.text("object")?;
        let session = caller.session_or_new();
        let reply = {
            let state = self.shared.lock();
            self.release(&state, ObjectId::from(object.as_str()))
        };
        if let Some(reply) = reply {
            worker_reply(reply).await?;
        }
        Ok(plain(&session))
    }

    fn subscribe(&self, caller: &Caller, params: &Params) -> Answer {
        let name = params.text("type")?;
        let object = params.text("object")?;
        let session = caller.session_or_new();
        let mut state = self.shared.lock();
        let class = self.use_object(&mut state, caller, &session, &object)?;
        let event = class.event(&name);
        let known = event.and_then(|event| {
            event.legacy.iter().chain([&event.name]).find(|known| **known == name)
        });
        let known = known.ok_or(RemoteError::EventNotSupported(name))?;
        if state.subscriptions.count(&session) >= self.limits.session_subscriptions {
            return Err(too_many("session subscriptions", self.limits.session_subscriptions));
        }
        if state.subscriptions.len() >= self.limits.subscriptions {
            return Err(too_many("subscriptions", self.limits.subscriptions));
        }
        let id = state.subscriptions.add(&session, &object, known);
        Ok(valued(&session, Value::from(&*id)))
    }

    fn unsubscribe(&self, caller: &Caller, params: &Params) -> Answer {
        let session = caller.required_session()?;
        let subscription = params.text("subscription")?;
        let object = params.text("object")?;
        self.shared.lock().subscriptions.remove(&object, &subscription);
        Ok(plain(&session))
    }

    fn hold(&self, caller: &Caller, params: &Params) -> Answer {
        let session = caller.required_session()?;
        let object = params.text("object")?;
        self.use_object(&mut self.shared.lock(), caller, &session, &object)?;
        Ok(plain(&session))
    }

    fn let_go(&self, caller: &Caller, params: &Params) -> Answer {
        let session = caller.required_session()?;
        let object = params.text("object")?;
        let mut state = self.shared.lock();
        if state.registry.let_go(&session, &object) {
            self.release(&state, ObjectId::from(object.as_str()));
        }
        Ok(plain(&session))
    }

    fn keep_alive(&self, caller: &Caller) -> Answer {
        let session = caller.required_session()?;
        if self.server.keep_alive(&session) {
            Ok(plain(&session))
        } else {
            Err(RemoteError::InvalidSession.into())
        }
    }

    async fn close_session(&self, caller: &Caller, params: &Params) -> Answer {
        let session = caller.required_session()?;
        let replies: Vec<_> = {
            let mut state = self.shared.lock();
            let held = state.registry.held_by(&session);
            let abandoned = state.registry.end(&session);
            state.subscriptions.remove_session(&session);
            self.server.end_session(&session);
            let everything = params.get("release") == Some(&Value::Bool(true));
            let objects = if everything { held } else { abandoned };
            objects.into_iter().filter_map(|object| self.release(&state, object)).collect()
        };
        for reply in replies {
            worker_reply(reply).await?;
        }
        Ok(Value::Null)
    }

    /// The class of an object that the caller names, and by that holds.
    fn use_object(
        &self,
        state: &mut State,
        caller: &Caller,
        session: &SessionId,
        object: &str,
    ) -> Result<&'static class::Class, Error> {
        let class = state.registry.class(object).ok_or_else(|| value::missing(object))?;
        if !state.registry.holds(session, object) {
            self.check_held(state, session)?;
        }
        self.server.touch(caller, session)?;
        state.registry.hold(session, object);
        Ok(class)
    }

    fn check_held(&self, state: &State, session: &str) -> Result<(), Error> {
        let limit = self.limits.session_objects;
        if state.registry.held_count(session) >= limit {
            return Err(too_many("session objects", limit));
        }
        Ok(())
    }
}

fn ping(caller: &Caller) -> Value {
    match &caller.session {
        Some(session) => valued(session, Value::from("pong")),
        None => json!({"value": "pong"}),
    }
}

/// The first argument of a constructor names the parent.
fn parent_in(args: &Args) -> Option<ObjectId> {
    match args.first() {
        Some(Some(Arg::Object(id))) => Some(id.clone()),
        _ => None,
    }
}

async fn worker_reply(reply: WorkerReply) -> Answer {
    let gone = |_| RemoteError::Internal("the media worker is gone".to_owned());
    Ok(reply.await.map_err(gone)??)
}

fn plain(session: &SessionId) -> Value {
    json!({"sessionId": &**session})
}

pub(super) fn valued(session: &SessionId, value: Value) -> Value {
    let session = ("sessionId".to_owned(), Value::from(&**session));
    Value::Object(Map::from_iter([session, ("value".to_owned(), value)]))
}

fn too_many(what: &'static str, limit: usize) -> Error {
    Error::TooMuch { what, limit }
}
