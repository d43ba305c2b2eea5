//! Shell: one server, put together. Starts the workers, runs control, opens the door.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::model::Wanted;
use crate::pipeline::{Command, Notices, Pool, Ticket, WorkerId};
use crate::registrar;
use crate::rpc::{Control, Media};
use crate::web::{self, Health, Identity, Outgoing, Rules, TlsError};

/// A server that is running. Dropping it leaves it running; [`Server::stop`] ends it.
pub struct Server {
    address: SocketAddr,
    secure_address: Option<SocketAddr>,
    rules: Arc<Rules>,
    identity: Option<Arc<Identity>>,
    control: Arc<Control>,
    well: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    pool: Option<Pool>,
}

impl Media for Pool {
    fn place(&self) -> WorkerId {
        self.place()
    }

    fn send(&self, to: WorkerId, command: Command, ticket: Ticket) {
        self.send(to, command, ticket);
    }

    fn stuck(&self) -> Vec<WorkerId> {
        self.stuck()
    }

    fn wanted(&self) -> Arc<Wanted> {
        self.wanted()
    }
}

impl Server {
    /// Starts a server with media workers of its own.
    ///
    /// # Errors
    /// When the control address or a socket for media cannot be had.
    pub async fn start(config: Config) -> io::Result<Self> {
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new());
        let (pool, notices) = Pool::start(&config, clock, &metrics)
            .map_err(|error| named("sockets for media", &error))?;
        match Self::with_media(config, clock, metrics, Arc::new(pool.clone()), notices).await {
            Ok(server) => Ok(Self { pool: Some(pool), ..server }),
            Err(error) => {
                pool.stop();
                Err(error)
            }
        }
    }

    /// Starts a server over workers that are already running and tell what happens in `notices`.
    ///
    /// # Errors
    /// When the control address cannot be had.
    pub async fn with_media(
        config: Config,
        clock: Clock,
        metrics: Arc<Metrics>,
        media: Arc<dyn Media>,
        notices: impl Into<Notices>,
    ) -> io::Result<Self> {
        let opened = web::listen(&config.control)?;
        let mut addresses = (None, None);
        for listener in &opened.list {
            let address = listener.address()?;
            let (ip, port) = (address.ip(), address.port());
            if listener.is_secure() {
                addresses.1 = Some(address);
                tracing::info!(
                    "Secure WebSocket server (wss://) listening on address '{ip}', port {port}"
                );
            } else {
                addresses.0 = Some(address);
                tracing::info!("WebSocket server (ws://) listening on address '{ip}', port {port}");
            }
        }
        let address = addresses.0.or(addresses.1).expect("a port is open");
        let control = Arc::new(Control::new(&config, clock, metrics.clone(), media));
        let rules = Arc::new(Rules::new(config));
        let config = rules.get();
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let (stop, stopped) = watch::channel(false);
        let well = Arc::new(AtomicBool::new(true));
        let entrance = Entrance {
            control: control.clone(),
            well: well.clone(),
            clock,
            metrics: metrics.clone(),
            rules: rules.clone(),
        };
        let door =
            web::serve(opened.list, rules.clone(), metrics, Arc::new(entrance), stopped.clone());
        let mut tasks = vec![
            tokio::spawn(follow(control.clone(), notices.into(), Unwell(well.clone()))),
            tokio::spawn(collect(control.clone(), clock, stopped.clone())),
            tokio::spawn(door),
        ];
        if let Some(place) = &config.control.registrar.address {
            let own = registrar::own_url(&config.control, addresses.0, addresses.1);
            tasks.push(tokio::spawn(registrar::run(place.clone(), own, clock, stopped)));
        }
        Ok(Self {
            address,
            secure_address: addresses.1,
            rules,
            identity: opened.identity,
            control,
            well,
            stop,
            tasks,
            pool: None,
        })
    }

    /// Takes what can change while connections are open from `config`: what the door asks for, and
    /// the certificate, which is read again even if its file is the same.
    ///
    /// # Errors
    /// When the certificate cannot be used; the old one stays, and the rest has changed.
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        let mut fresh = (*self.rules.get()).clone();
        fresh.control.token.clone_from(&config.control.token);
        fresh.control.origins.clone_from(&config.control.origins);
        fresh.control.secure.certificate.clone_from(&config.control.secure.certificate);
        fresh.limits = config.limits.clone();
        let certificate = fresh.control.secure.certificate.clone();
        for warning in fresh.warnings() {
            tracing::warn!("{warning}");
        }
        self.rules.set(fresh);
        match (&self.identity, certificate) {
            (Some(identity), Some(file)) => identity.reload(&file),
            _ => Ok(()),
        }
    }

    /// Returns when control can be reached, and whether workers are still heard; a watchdog may take
    /// that for a sign of life.
    pub fn check(&self) -> bool {
        self.control.count();
        self.well.load(Ordering::Relaxed) && self.control.stuck().is_empty()
    }

    /// Where the control port is: the one without TLS, if there is one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the control port with TLS is.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure_address
    }

    /// Closes the door, tells connections, ends all pipelines and forgets everything.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // Every connection's task holds a receiver until it has said goodbye.
        self.stop.closed().await;
        for task in &self.tasks {
            // What they still wait for comes from workers that may not be ours to stop.
            task.abort();
        }
        if let Some(pool) = self.pool {
            let joined = tokio::task::spawn_blocking(move || pool.stop()).await;
            if joined.is_err() {
                tracing::error!("the media workers did not stop in order");
            }
        }
    }
}

/// How long at most until sessions are looked after again: what clients do brings their time forward.
const LOOK: Duration = Duration::from_secs(1);

/// The error with what could not be had.
fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Once it is dropped, the server is not well.
struct Unwell(Arc<AtomicBool>);

impl Drop for Unwell {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Hears what workers say. Without it no request that concerns an object is ever answered.
async fn follow(control: Arc<Control>, mut notices: Notices, _end: Unwell) {
    while let Some(notice) = notices.recv().await {
        control.handle_notice(notice);
    }
}

async fn collect(control: Arc<Control>, clock: Clock, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(control.poll_timeout().min(clock.now() + LOOK).into()) => {
                control.handle_timeout(clock.now());
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What the door leads to.
struct Entrance {
    control: Arc<Control>,
    well: Arc<AtomicBool>,
    clock: Clock,
    metrics: Arc<Metrics>,
    rules: Arc<Rules>,
}

impl web::Service for Entrance {
    fn open(&self) -> (u64, Outgoing) {
        let (connection, inbox) = self.control.open();
        (connection, Outgoing { messages: inbox.messages, close: inbox.close })
    }

    async fn request(&self, connection: u64, text: &str) -> Option<Bytes> {
        self.control.request(connection, text).await
    }

    fn close(&self, connection: u64) {
        self.control.close(connection);
    }

    fn health(&self) -> Health {
        let stuck = self.control.stuck();
        let well = self.well.load(Ordering::Relaxed) && stuck.is_empty();
        let mut warnings = self.rules.get().warnings();
        warnings.extend(stuck.iter().map(|id| format!("media worker {id} does not answer")));
        let text = json!({
            "status": if well { "ok" } else { "failing" },
            "uptime": self.clock.uptime().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
            "warnings": warnings,
        });
        Health { well, text: text.to_string() }
    }

    fn metrics(&self) -> String {
        self.control.count();
        self.metrics.to_text(self.clock.uptime(), self.clock.cpu_time())
    }
}
