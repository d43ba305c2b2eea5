//! A server in this process, over workers that do what a test needs of them and no media.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rivero::clock::Clock;
use rivero::config::{Config, Limits};
use rivero::metrics::Metrics;
use rivero::model::types::MediaType;
use rivero::model::types::event::ElementConnected;
use rivero::model::{Arg, Args, Method, Object, ObjectId, RemoteError, reply};
use rivero::pipeline::{Command, Notice, Ticket, WorkerId};
use rivero::rpc::Media;
use rivero::server::Server;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A running server on a port of its own.
pub struct TestServer {
    pub address: SocketAddr,
    server: Server,
    workers: Arc<Workers>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// With settings changed by `set`.
    pub async fn with(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.control.port = 0;
        set(&mut config);
        let (notices, receiver) = unbounded_channel();
        let clock = Clock::start();
        let workers = Arc::new(Workers {
            objects: Mutex::default(),
            notices,
            clock,
            stuck: AtomicBool::default(),
        });
        let metrics = Arc::new(Metrics::new());
        let server = Server::with_media(config, clock, metrics, workers.clone(), receiver).await;
        let server = server.expect("a free port exists");
        Self { address: server.address(), server, workers }
    }

    /// Where it speaks TLS.
    pub fn secure_address(&self) -> SocketAddr {
        self.server.secure_address().expect("it has a port for TLS")
    }

    /// Takes over settings while it runs.
    pub fn reload(&self, config: &Config) {
        self.server.reload(config).expect("the certificate is good");
    }

    /// Has its worker hang, or not.
    pub fn set_stuck(&self, stuck: bool) {
        self.workers.stuck.store(stuck, Ordering::Relaxed);
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// Objects without media: they have names and tags, and tell when they are connected.
struct Workers {
    objects: Mutex<HashMap<ObjectId, Object>>,
    notices: UnboundedSender<Vec<Notice>>,
    clock: Clock,
    stuck: AtomicBool,
}

impl Media for Workers {
    fn place(&self) -> WorkerId {
        0
    }

    fn stuck(&self) -> Vec<WorkerId> {
        if self.stuck.load(Ordering::Relaxed) { vec![0] } else { Vec::new() }
    }

    fn send(&self, _: WorkerId, command: Command, ticket: Ticket) {
        let mut objects = self.objects.lock().expect("no test panicked in here");
        let result = match command {
            Command::Create { class, id, parent, args: _ } => {
                let now = self.clock.unix_millis();
                objects.insert(id.clone(), Object::new(id.clone(), class, parent.clone(), now));
                self.tell(Notice::Created { id, class, parent, home: 0 });
                Ok(Value::Null)
            }
            Command::Invoke { object, method, args } => match objects.get_mut(&object) {
                Some(object) => self.invoke(object, method, args),
                None => Err(RemoteError::not_found(&object)),
            },
            Command::Release { object } => {
                let below = format!("{object}/");
                let mut ids: Vec<_> = objects.keys().cloned().collect();
                ids.retain(|id| *id == object || id.as_str().starts_with(&below));
                ids.sort_by_key(|id| std::cmp::Reverse(id.as_str().len()));
                for id in ids {
                    objects.remove(&id);
                    self.tell(Notice::Destroyed { id });
                }
                Ok(Value::Null)
            }
        };
        self.tell(Notice::Reply { ticket, result });
    }
}

impl Workers {
    fn tell(&self, notice: Notice) {
        // A server that stopped does not listen any more.
        let _ = self.notices.send(vec![notice]);
    }

    fn invoke(
        &self,
        object: &mut Object,
        method: &'static Method,
        args: Args,
    ) -> Result<Value, RemoteError> {
        let mut args = args.into_iter().flatten();
        match (method.name, args.next(), args.next()) {
            ("getName", ..) => reply(Ok(object.name().to_owned())),
            ("setName", Some(Arg::Text(name)), _) => {
                reply(object.set_name(name, &(&Limits::default()).into()))
            }
            ("getTag", Some(Arg::Text(key)), _) => reply(object.tag(&key)),
            ("addTag", Some(Arg::Text(key)), Some(Arg::Text(value))) => {
                reply(object.add_tag(key, value, &(&Limits::default()).into()))
            }
            ("setSendTagsInEvents", Some(Arg::Boolean(send)), _) => {
                object.send_tags_in_events = send;
                Ok(Value::Null)
            }
            ("connect", Some(Arg::Object(sink)), _) => {
                for media_type in [MediaType::Audio, MediaType::Video, MediaType::Data] {
                    let event = ElementConnected {
                        sink: sink.clone(),
                        media_type,
                        source_media_description: "default".to_owned(),
                        sink_media_description: "default".to_owned(),
                    };
                    let event = object.event(self.clock.unix_millis(), event);
                    self.tell(Notice::Event(event));
                }
                Ok(Value::Null)
            }
            (other, ..) => Err(RemoteError::NotImplemented(other.to_owned())),
        }
    }
}
