//! What all connections share: the registry, sessions, subscriptions, and the way to the workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::oneshot;

use super::delivery::{self, Inbox, Outbox, Subscriptions};
use super::server_manager::ServerManager;
use super::session::{ConnectionId, Sessions};
use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::metrics::Metrics;
use crate::model::types::event::{ObjectCreated, ObjectDestroyed};
use crate::model::{Event, EventData, Object, ObjectId, Registry, RemoteError, class};
use crate::pipeline::{Command, Notice, Ticket, WorkerId};

/// The workers, as control sees them.
pub trait Media: Send + Sync + 'static {
    /// The worker for a new pipeline.
    fn place(&self) -> WorkerId;
    /// Hands a command to a worker; never blocks.
    fn send(&self, to: WorkerId, command: Command, ticket: Ticket);
}

/// Where a worker's answer arrives.
pub(super) type WorkerReply = oneshot::Receiver<Result<Value, RemoteError>>;

/// What changes; behind one lock that is held for lookups and never across a wait.
pub(super) struct State {
    pub registry: Registry,
    pub sessions: Sessions,
    pub subscriptions: Subscriptions,
    pub manager: Object,
    outboxes: HashMap<ConnectionId, Outbox>,
    last_connection: ConnectionId,
}

pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held may have lost one change, not the sense of the rest.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The control plane of one server.
pub struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) media: Arc<dyn Media>,
    pub(super) manager: ServerManager,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    /// Clients see a restart by a new one.
    pub(super) server_id: String,
    clock: Clock,
}

impl Control {
    pub fn new(
        config: &Config,
        clock: Clock,
        metrics: Arc<Metrics>,
        media: Arc<dyn Media>,
    ) -> Self {
        let id = ObjectId::from(ObjectId::SERVER_MANAGER);
        let class = class::find("ServerManager").expect("its descriptor is part of the program");
        let period = config.sessions.collector_period;
        let shared = Arc::new(Shared(Mutex::new(State {
            registry: Registry::new(),
            sessions: Sessions::new(clock.now(), period, config.limits.sessions),
            subscriptions: Subscriptions::default(),
            manager: Object::new(id, class, None, clock.unix_millis()),
            outboxes: HashMap::new(),
            last_connection: 0,
        })));
        Self {
            manager: ServerManager::new(shared.clone(), clock),
            shared,
            media,
            metrics,
            limits: config.limits.clone(),
            server_id: uuid::Uuid::new_v4().to_string(),
            clock,
        }
    }

    /// A connection opened: its number, and the queue of what is to be sent to it beside replies.
    pub fn open(&self) -> (ConnectionId, Inbox) {
        let (outbox, inbox) = delivery::queue(self.limits.queued_messages);
        let mut state = self.shared.lock();
        state.last_connection += 1;
        let connection = state.last_connection;
        state.outboxes.insert(connection, outbox);
        self.metrics.set_connections(state.outboxes.len());
        (connection, inbox)
    }

    /// A connection is gone. Its session lives on until the collector comes.
    pub fn close(&self, connection: ConnectionId) {
        let mut state = self.shared.lock();
        state.outboxes.remove(&connection);
        state.sessions.unbind(connection);
        self.metrics.set_connections(state.outboxes.len());
    }

    /// What a worker tells. Must be called in the order in which the worker told it.
    pub fn handle_notice(&self, notice: Notice) {
        match notice {
            Notice::Created { id, class, parent, home } => {
                tracing::debug!(object = %id, home, "created");
                self.metrics.object_created(class.name);
                let mut state = self.shared.lock();
                if let Some(holder) = state.registry.insert(id.clone(), class, parent, home) {
                    // A session that was closed meanwhile is known again, so that the collector
                    // finds what it holds.
                    state.sessions.touch(&holder);
                }
                self.announce(&mut state, ObjectCreated { object: id });
            }
            Notice::Destroyed { id } => {
                tracing::debug!(object = %id, "destroyed");
                let mut state = self.shared.lock();
                if let Some(class) = state.registry.remove(id.as_str()) {
                    self.metrics.object_destroyed(class.name);
                }
                state.subscriptions.remove_object(id.as_str());
                self.announce(&mut state, ObjectDestroyed { object_id: id.to_string() });
            }
            Notice::Event(event) => self.deliver(&mut self.shared.lock(), event),
            // Nobody waits for the reply to a release by the collector.
            Notice::Reply { ticket, result } => drop(ticket.send(result)),
        }
    }

    fn announce(&self, state: &mut State, what: impl EventData) {
        let event = state.manager.event(self.clock.unix_millis(), what);
        self.deliver(state, event);
    }

    fn deliver(&self, state: &mut State, event: Event) {
        let State { subscriptions, sessions, outboxes, .. } = state;
        subscriptions.deliver(event, sessions, outboxes, &self.metrics);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        self.shared.lock().sessions.poll_timeout()
    }

    /// Looks after sessions: ends those that nobody uses and releases what they held.
    pub fn handle_timeout(&self, now: Instant) {
        let mut state = self.shared.lock();
        state.sessions.handle_timeout(now);
        while let Some(session) = state.sessions.poll_ended() {
            tracing::info!(%session, "session collected");
            state.subscriptions.remove_session(&session);
            for object in state.registry.end(&session) {
                self.release(&state, object);
            }
        }
    }

    /// Brings the gauges up to date.
    pub fn count(&self) {
        self.metrics.set_sessions(self.shared.lock().sessions.known().count());
    }

    /// Has an object destroyed; the reply of its worker, when it has one.
    pub(super) fn release(&self, state: &State, object: ObjectId) -> Option<WorkerReply> {
        let home = state.registry.home(object.as_str())?;
        let (ticket, reply) = oneshot::channel();
        self.media.send(home, Command::Release { object }, ticket);
        Some(reply)
    }
}
