//! The media workers of a process, seen from control: where a new pipeline goes, and the way in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::worker::{self, Mailbox};
use super::{Command, Notice, Ticket, WorkerId};
use crate::clock::Clock;
use crate::config::Config;
use crate::elements::Certificates;
use crate::metrics::{self, Metrics, Resource};
use crate::model::ObjectLimits;
use crate::transport::interfaces::{self, Loopback};
use crate::transport::ports::{PortRange, Quota};
use crate::transport::udp::UdpSocket;
use crate::transport::{KeyKind, MAX_LOCAL_CANDIDATES};

/// Events that control may leave unread; further ones are dropped and counted. Replies are bounded by
/// the requests that wait for them.
const MAX_EVENTS: usize = 100_000;

/// The workers. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    workers: Vec<Worker>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Worker {
    mailbox: Arc<Mailbox>,
    /// Pipelines that live there or are on their way.
    load: Arc<AtomicUsize>,
}

impl Pool {
    /// Binds the sockets and starts the threads.
    ///
    /// # Errors
    /// When no local address can be listed or bound.
    pub fn start(
        config: &Config,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> io::Result<(Self, Notices)> {
        let addresses = addresses(config)?;
        let (sender, receiver) = unbounded_channel();
        let outlet = Outlet { sender, events: Arc::default(), metrics: metrics.clone() };
        let inlet = Notices { receiver, events: Some(outlet.events.clone()) };
        let certificates = Arc::new(Certificates::default());
        let defaults = Arc::new(config.modules.clone());
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = config.media.workers.unwrap_or_else(cores).max(1);
        // Connections need files as well, and they are how clients let go of ports.
        let files = metrics::resource_limit(Resource::Files).unwrap_or(u64::MAX);
        let most = usize::try_from(files / 4).unwrap_or(usize::MAX);
        let rtp_pairs = Arc::new(Quota::new(config.limits.rtp_pairs.min(most)));
        // Dropping it on an error below stops the workers that run already.
        let mut shared = Shared { workers: Vec::new(), threads: Mutex::default() };
        let object_limits = ObjectLimits::from(&config.limits);
        for id in 0..count {
            let sockets = bind(&addresses, config.media.port, id)?;
            let mailbox = Arc::new(Mailbox::new()?);
            let load = Arc::new(AtomicUsize::new(0));
            let thread = worker::spawn(worker::Parts {
                id,
                clock,
                sockets,
                mailbox: mailbox.clone(),
                load: load.clone(),
                outlet: outlet.clone(),
                certificates: certificates.clone(),
                object_limits: object_limits.clone(),
                rtp_ports: PortRange {
                    first: config.modules.rtp.min_port,
                    last: config.modules.rtp.max_port,
                },
                rtp_pairs: rtp_pairs.clone(),
                defaults: defaults.clone(),
            })?;
            shared.workers.push(Worker { mailbox, load });
            shared.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        // The slow kind is made aside, before a worker could need it.
        std::thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
                if let Err(error) = certificates.get(kind) {
                    tracing::error!(%error, ?kind, "no certificate");
                }
            }
        })?;
        Ok((Self(Arc::new(shared)), inlet))
    }

    /// The worker for a new pipeline: the one with the fewest.
    pub fn place(&self) -> WorkerId {
        let load = |id: &WorkerId| self.0.workers[*id].load.load(Ordering::Relaxed);
        let id = (0..self.0.workers.len()).min_by_key(load).unwrap_or(0);
        self.0.workers[id].load.fetch_add(1, Ordering::Relaxed);
        id
    }

    /// Hands a command to a worker; never blocks. The ticket is dropped if there is no such worker.
    pub fn send(&self, to: WorkerId, command: Command, ticket: Ticket) {
        if let Some(worker) = self.0.workers.get(to) {
            worker.mailbox.push(command, ticket);
        }
    }

    /// Ends all pipelines and joins the threads.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Shared {
    fn stop(&self) {
        for worker in &self.workers {
            worker.mailbox.stop();
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a media worker had failed");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The configured addresses, or else those of the machine: loopback last, for it is of use to
/// browsers of the same machine only.
fn addresses(config: &Config) -> io::Result<Vec<IpAddr>> {
    let mut addresses = config.media.addresses.clone();
    if addresses.is_empty() {
        addresses.extend(interfaces::list(Loopback::Always)?.into_iter().map(|one| one.addr));
        addresses.sort_by_key(IpAddr::is_loopback);
    }
    if addresses.len() > MAX_LOCAL_CANDIDATES {
        let left_out = &addresses[MAX_LOCAL_CANDIDATES..];
        tracing::warn!(?left_out, "more local addresses than a session announces");
        addresses.truncate(MAX_LOCAL_CANDIDATES);
    }
    Ok(addresses)
}

/// One socket per address. Each worker has a port of its own: the n-th after the configured one.
fn bind(addresses: &[IpAddr], port: u16, id: WorkerId) -> io::Result<Vec<UdpSocket>> {
    let offset = u16::try_from(id).map_err(|_| io::ErrorKind::InvalidInput)?;
    let port = match port {
        0 => 0,
        base => base.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?,
    };
    let mut sockets = Vec::new();
    for address in addresses {
        match UdpSocket::bind(SocketAddr::new(*address, port)) {
            Ok(socket) => sockets.push(socket),
            Err(error) => tracing::warn!(%address, port, %error, "no media at this address"),
        }
    }
    if sockets.is_empty() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(sockets) }
}

/// Where workers tell what happened.
#[derive(Clone)]
pub(super) struct Outlet {
    sender: UnboundedSender<Notice>,
    events: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Outlet {
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn send(&self, notice: Notice) {
        if matches!(notice, Notice::Event(_)) {
            if self.events.load(Ordering::Relaxed) >= MAX_EVENTS {
                self.metrics.events_dropped("control_busy", 1);
                return;
            }
            self.events.fetch_add(1, Ordering::Relaxed);
        }
        // Nobody listens only while the server stops.
        let _ = self.sender.send(notice);
    }
}

/// Where control hears of it.
pub struct Notices {
    receiver: UnboundedReceiver<Notice>,
    /// How many are under way; none are counted when they do not come from workers.
    events: Option<Arc<AtomicUsize>>,
}

impl Notices {
    /// The next notice; none once all workers are gone.
    pub async fn recv(&mut self) -> Option<Notice> {
        let notice = self.receiver.recv().await?;
        if let (Notice::Event(_), Some(events)) = (&notice, &self.events) {
            events.fetch_sub(1, Ordering::Relaxed);
        }
        Some(notice)
    }
}

/// Notices that come from elsewhere than workers.
impl From<UnboundedReceiver<Notice>> for Notices {
    fn from(receiver: UnboundedReceiver<Notice>) -> Self {
        Self { receiver, events: None }
    }
}
