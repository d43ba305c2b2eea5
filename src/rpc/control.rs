//! What all connections share: the registry, sessions, subscriptions, and the way to the workers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use super::delivery::Subscriptions;
use super::resources::Resources;
use super::server_manager::ServerManager;
use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::jsonrpc::{ConnectionId, Expiry, Inbox, Policy, Server, message};
use crate::metrics::Metrics;
use crate::model::types::event::{ObjectCreated, ObjectDestroyed};
use crate::model::{Event, EventData, Object, ObjectId, Registry, RemoteError, Wanted, class};
use crate::pipeline::{Command, Notice, Ticket, WorkerId};

/// The workers, as control sees them.
pub trait Media: Send + Sync + 'static {
    /// The worker for a new pipeline.
    fn place(&self) -> WorkerId;
    /// Hands a command to a worker; never blocks.
    fn send(&self, to: WorkerId, command: Command, ticket: Ticket);
    /// Workers that seem to hang.
    fn stuck(&self) -> Vec<WorkerId> {
        Vec::new()
    }
    /// What the workers look at before they tell of an event.
    fn wanted(&self) -> Arc<Wanted> {
        Arc::default()
    }
}

/// Where a worker's answer arrives.
pub(super) type WorkerReply = oneshot::Receiver<Result<Value, RemoteError>>;

/// What changes; behind one lock that is held for lookups and never across a wait. Sessions have a
/// lock of their own in the [`Server`], taken after this one where both are needed.
pub(super) struct State {
    pub registry: Registry,
    pub subscriptions: Subscriptions,
    pub manager: Object,
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
    pub(super) server: Arc<Server>,
    pub(super) shared: Arc<Shared>,
    pub(super) media: Arc<dyn Media>,
    pub(super) manager: ServerManager,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    /// Clients see a restart by a new one.
    pub(super) server_id: String,
    pub(super) resources: Resources,
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
        let shared = Arc::new(Shared(Mutex::new(State {
            registry: Registry::new(),
            subscriptions: Subscriptions::new(media.wanted()),
            manager: Object::new(id, class, None, clock.unix_millis()),
        })));
        let server = Arc::new(Server::new(policy(config), clock, metrics.clone()));
        Self {
            manager: ServerManager::new(shared.clone(), server.clone(), config, clock),
            server,
            shared,
            media,
            metrics,
            limits: config.limits.clone(),
            server_id: uuid::Uuid::new_v4().to_string(),
            resources: Resources::new(&config.resources, clock),
            clock,
        }
    }

    /// A connection opened: its number, and the queue of what is to be sent to it beside replies.
    pub fn open(&self) -> (ConnectionId, Inbox) {
        self.server.open()
    }

    /// Workers that seem to hang.
    pub fn stuck(&self) -> Vec<WorkerId> {
        self.media.stuck()
    }

    /// A connection is gone. Its session lives on until the collector comes.
    pub fn close(&self, connection: ConnectionId) {
        self.server.close(connection);
    }

    /// Has a text of a connection answered; the reply, if there is something to say.
    pub async fn request(self: &Arc<Self>, connection: ConnectionId, text: &str) -> Option<Bytes> {
        self.server.request(self, connection, text).await
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
                    if !self.server.remember(&holder) {
                        // There is no room to remember it, and nobody else knows of the object.
                        for object in state.registry.end(&holder) {
                            self.release(&state, object);
                        }
                    }
                }
                self.announce(&state, ObjectCreated { object: id });
            }
            Notice::Destroyed { id } => {
                tracing::debug!(object = %id, "destroyed");
                let mut state = self.shared.lock();
                if let Some(class) = state.registry.remove(id.as_str()) {
                    self.metrics.object_destroyed(class.name);
                }
                state.subscriptions.remove_object(id.as_str());
                if state.registry.is_empty() {
                    self.resources.everything_ended();
                }
                self.announce(&state, ObjectDestroyed { object_id: id.to_string() });
            }
            Notice::Event(event) => self.deliver(&self.shared.lock(), event),
            // Nobody waits for the reply to a release by the collector.
            Notice::Reply { ticket, result } => drop(ticket.send(result)),
        }
    }

    fn announce(&self, state: &State, what: impl EventData) {
        let event = state.manager.event(self.clock.unix_millis(), what);
        self.deliver(state, event);
    }

    fn deliver(&self, state: &State, event: Event) {
        state.subscriptions.deliver(event, |session, text| self.server.notify(session, text));
    }

    /// When [`Self::handle_timeout`] has something to do, unless clients bring the time forward.
    pub fn poll_timeout(&self) -> Instant {
        self.server.poll_timeout()
    }

    /// Looks after sessions: ends those that nobody uses and releases what they held.
    pub fn handle_timeout(&self, now: Instant) {
        for session in self.server.handle_timeout(now) {
            tracing::info!(session = &*session, "session collected");
            let mut state = self.shared.lock();
            state.subscriptions.remove_session(&session);
            for object in state.registry.end(&session) {
                self.release(&state, object);
            }
        }
    }

    /// Brings the gauges up to date.
    pub fn count(&self) {
        self.metrics.set_sessions(self.server.session_count());
        self.metrics.set_subscriptions(self.shared.lock().subscriptions.len());
    }

    /// Has an object destroyed; the reply of its worker, when it has one.
    pub(super) fn release(&self, state: &State, object: ObjectId) -> Option<WorkerReply> {
        let home = state.registry.home(object.as_str())?;
        let (ticket, reply) = oneshot::channel();
        self.media.send(home, Command::Release { object }, ticket);
        Some(reply)
    }
}

/// The Kurento Protocol as one of the JSON-RPC family: sessions are collected in rounds, and nobody
/// must ping.
fn policy(config: &Config) -> Policy {
    let limits = &config.limits;
    Policy {
        expiry: Expiry::Rounds(config.sessions.collector_period),
        sessions: limits.sessions,
        session_id_bytes: limits.session_id_bytes,
        queued_messages: limits.queued_messages,
        queued_bytes: limits.queued_bytes,
        connection_sessions: limits.connection_sessions,
        message: message::Limits {
            nesting: limits.nesting,
            values: limits.values,
            id_bytes: limits.id_bytes,
        },
        kept_answers: if config.resources.disable_request_cache { 0 } else { limits.kept_answers },
        kept_bytes: limits.kept_bytes,
        orphaned_requests: limits.orphaned_requests,
    }
}
