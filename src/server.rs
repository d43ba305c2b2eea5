//! Shell: one server, put together. Starts the workers, runs control, opens the door.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::pipeline::command::Notice;
use crate::rpc::{Control, Media};
use crate::web::{self, Outgoing};

/// A server that is running. Dropping it leaves it running; [`Server::stop`] ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a server over workers that are already running and tell what happens in `notices`.
    ///
    /// # Errors
    /// When the control address cannot be had.
    pub async fn with_media(
        config: Config,
        metrics: Arc<Metrics>,
        media: Arc<dyn Media>,
        notices: UnboundedReceiver<Notice>,
    ) -> io::Result<Self> {
        let clock = Clock::start();
        let listener = web::listen(&config).await?;
        let address = listener.local_addr()?;
        let warnings = config.warnings();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let control = Arc::new(Control::new(&config, clock, metrics.clone(), media));
        let (stop, stopped) = watch::channel(false);
        let entrance =
            Entrance { control: control.clone(), clock, metrics: metrics.clone(), warnings };
        let tasks = vec![
            tokio::spawn(follow(control.clone(), notices)),
            tokio::spawn(collect(control, clock, stopped.clone())),
            tokio::spawn(async move {
                web::serve(listener, &config, metrics, Arc::new(entrance), stopped).await;
            }),
        ];
        tracing::info!(%address, "listening");
        Ok(Self { address, stop, tasks })
    }

    /// Where the control port is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the door, tells connections, and forgets everything.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let mut tasks = self.tasks.into_iter();
        // This one ends with the workers, whom we have only borrowed.
        if let Some(follower) = tasks.next() {
            follower.abort();
        }
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the server failed");
            }
        }
        // Every connection's task holds a receiver until it has said goodbye.
        self.stop.closed().await;
    }
}

async fn follow(control: Arc<Control>, mut notices: UnboundedReceiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        control.handle_notice(notice);
    }
}

async fn collect(control: Arc<Control>, clock: Clock, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(control.poll_timeout().into()) => {
                control.handle_timeout(clock.now());
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What the door leads to.
struct Entrance {
    control: Arc<Control>,
    clock: Clock,
    metrics: Arc<Metrics>,
    warnings: Vec<String>,
}

impl web::Service for Entrance {
    fn open(&self) -> (u64, Outgoing) {
        let (connection, inbox) = self.control.open();
        (connection, Outgoing { messages: inbox.messages, close: inbox.close })
    }

    async fn request(&self, connection: u64, text: &str) -> Option<String> {
        self.control.request(connection, text).await
    }

    fn close(&self, connection: u64) {
        self.control.close(connection);
    }

    fn health(&self) -> String {
        json!({
            "status": "ok",
            "uptime": self.clock.uptime().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
            "warnings": self.warnings,
        })
        .to_string()
    }

    fn metrics(&self) -> String {
        self.control.count();
        self.metrics.to_text(self.clock.uptime(), self.clock.cpu_time())
    }
}
