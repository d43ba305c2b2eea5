//! The media workers of a process, seen from control: where a new pipeline goes, and the way in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::helpers::Helpers;
use super::load::{self, Load};
use super::resolver::Resolver;
use super::streams::TlsConfig;
use super::worker::{self, Mailbox};
use super::{Command, Notice, Ticket, WorkerId, cores};
use crate::clock::Clock;
use crate::config::Config;
use crate::elements::Certificates;
use crate::metrics::{self, Metrics, Resource};
use crate::model::{ObjectLimits, Wanted};
use crate::transport::interfaces::{self, Interface, Loopback};
use crate::transport::ports::{PortRange, Quota};
use crate::transport::tcp::{Listener, tls_config};
use crate::transport::udp::UdpSocket;
use crate::transport::{Certificate, KeyKind, MAX_LOCAL_CANDIDATES};

/// Events that control may leave unread; further ones are dropped and counted. Replies are bounded by
/// the requests that wait for them.
const MAX_EVENTS: usize = 100_000;

/// A worker comes round once a second, however little it has to do.
const STUCK: Duration = Duration::from_secs(5);

/// The workers. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    clock: Clock,
    workers: Vec<Worker>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    helpers: Helpers,
    wanted: Arc<Wanted>,
}

struct Worker {
    mailbox: Arc<Mailbox>,
    load: Arc<Load>,
    /// Milliseconds of the clock's uptime when it last came round.
    beat: Arc<AtomicU64>,
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
        let places = places(config)?;
        let resolver = Resolver::start(clock)?;
        let tls = TlsConfig::default();
        let (sender, receiver) = unbounded_channel();
        let wanted = Arc::<Wanted>::default();
        let outlet = Outlet {
            sender,
            events: Arc::default(),
            wanted: wanted.clone(),
            metrics: metrics.clone(),
        };
        let inlet = Notices { events: Some(outlet.events.clone()), ..Notices::from(receiver) };
        let certificates = Arc::new(certificates(config));
        let defaults = Arc::new(config.modules.clone());
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = config.media.workers.unwrap_or_else(cores).max(1);
        // Connections need files as well, and they are how clients let go of ports.
        let files = metrics::resource_limit(Resource::Files).unwrap_or(u64::MAX);
        let most = usize::try_from(files / 4).unwrap_or(usize::MAX);
        let rtp_pairs = Arc::new(Quota::new(config.limits.rtp_pairs.min(most)));
        // Dropping it on an error below stops the workers that run already.
        let (helpers, threads) = Helpers::start(count - 1)?;
        let mut shared = Shared {
            clock,
            workers: Vec::new(),
            threads: Mutex::new(threads),
            helpers: helpers.clone(),
            wanted,
        };
        let object_limits = ObjectLimits::from(&config.limits);
        let cores = if config.media.pin { cores::allowed() } else { Vec::new() };
        for id in 0..count {
            let sockets = bind(config, &places, id, count)?;
            let listeners = listen(config, &sockets);
            let mailbox = Arc::new(Mailbox::new()?);
            let load = Arc::new(Load::default());
            let beat = Arc::new(AtomicU64::new(clock.uptime().as_millis() as u64));
            let thread = worker::spawn(worker::Parts {
                id,
                clock,
                sockets,
                listeners,
                interfaces: places.clone(),
                resolver: resolver.clone(),
                tls: tls.clone(),
                mailbox: mailbox.clone(),
                load: load.clone(),
                helpers: helpers.clone(),
                core: cores.get(id % cores.len().max(1)).copied(),
                beat: beat.clone(),
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
            shared.workers.push(Worker { mailbox, load, beat });
            shared.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        // The slow kind is made aside, before a worker could need it.
        std::thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
                if let Err(error) = certificates.get(kind) {
                    tracing::error!(%error, ?kind, "no certificate");
                }
            }
            let roots = rustls_native_certs::load_native_certs();
            match tls_config(roots.certs.into_iter()) {
                Ok(config) => drop(tls.set(config)),
                Err(error) => tracing::error!(%error, "no TLS towards TURN servers"),
            }
        })?;
        Ok((Self(Arc::new(shared)), inlet))
    }

    /// The worker for a new pipeline: the one with the least to do.
    pub fn place(&self) -> WorkerId {
        let id = load::least(self.0.workers.iter().map(|worker| &*worker.load)).unwrap_or(0);
        self.0.workers[id].load.placed();
        id
    }

    /// Hands a command to a worker; never blocks. The ticket is dropped if there is no such worker.
    pub fn send(&self, to: WorkerId, command: Command, ticket: Ticket) {
        if let Some(worker) = self.0.workers.get(to) {
            worker.mailbox.push(command, ticket);
        }
    }

    /// The workers that have not come round for so long that something holds them.
    pub fn stuck(&self) -> Vec<WorkerId> {
        let now = self.0.clock.uptime();
        let late = |worker: &Worker| is_stuck(now, worker.beat.load(Ordering::Relaxed));
        let workers = self.0.workers.iter().enumerate();
        workers.filter(|(_, worker)| late(worker)).map(|(id, _)| id).collect()
    }

    /// What workers look at before they tell of an event.
    pub fn wanted(&self) -> Arc<Wanted> {
        self.0.wanted.clone()
    }

    /// Ends all pipelines and joins the threads.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// Whether a worker that came round last at `beat`, in milliseconds of uptime, is overdue.
fn is_stuck(now: Duration, beat: u64) -> bool {
    now.saturating_sub(Duration::from_millis(beat)) > STUCK
}

impl Shared {
    fn stop(&self) {
        for worker in &self.workers {
            worker.mailbox.stop();
        }
        self.helpers.stop();
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

/// The certificates that are configured. One that cannot be used is made instead, as if there were none.
fn certificates(config: &Config) -> Certificates {
    let certificates = Certificates::default();
    let webrtc = &config.modules.webrtc;
    for (kind, file) in
        [(KeyKind::Rsa, &webrtc.certificate_rsa), (KeyKind::Ecdsa, &webrtc.certificate_ecdsa)]
    {
        let Some(file) = file else { continue };
        let read = std::fs::read(file).map_err(|error| error.to_string());
        let made = read
            .and_then(|pem| Certificate::from_pem(kind, &pem).map_err(|error| error.to_string()));
        match made {
            Ok(certificate) => certificates.set(certificate),
            Err(error) => tracing::error!(file = %file.display(), error, "not used for media"),
        }
    }
    certificates
}

/// The configured addresses and interfaces, or else all of the machine: loopback last, for it is of use
/// to browsers of the same machine only.
fn places(config: &Config) -> io::Result<Vec<Interface>> {
    let mut places = interfaces::list(Loopback::Always)?;
    let addresses = &config.media.addresses;
    if !addresses.is_empty() {
        // An address that no interface has cannot be bound, and then that is said.
        places = addresses.iter().map(|address| named(&places, *address)).collect();
    } else {
        let names = &config.modules.webrtc.network_interfaces;
        places.retain(|place| names.is_empty() || names.contains(&place.name));
        if places.is_empty() {
            tracing::error!(?names, "no interface of these names has an address");
        }
        places.sort_by_key(|place| place.addr.is_loopback());
    }
    if places.len() > MAX_LOCAL_CANDIDATES {
        let left_out = &places[MAX_LOCAL_CANDIDATES..];
        tracing::warn!(?left_out, "more local addresses than a session announces");
        places.truncate(MAX_LOCAL_CANDIDATES);
    }
    Ok(places)
}

fn named(places: &[Interface], addr: IpAddr) -> Interface {
    let known = places.iter().find(|place| place.addr == addr);
    known.cloned().unwrap_or_else(|| Interface { name: String::new(), addr })
}

/// One socket per address, all at the same port. Each worker has a port of its own: the n-th after the
/// configured one, or else the first free one of the configured range, or else any.
fn bind(
    config: &Config,
    places: &[Interface],
    id: WorkerId,
    workers: usize,
) -> io::Result<Vec<UdpSocket>> {
    let rtp = &config.modules.rtp;
    if config.media.port != 0 {
        let offset = u16::try_from(id).map_err(|_| io::ErrorKind::InvalidInput)?;
        let port = config.media.port.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
        return bind_at(places, port, false);
    }
    if rtp.is_any() {
        return bind_at(places, 0, false);
    }
    for port in rtp.min_port..=rtp.max_port {
        if let Ok(sockets) = bind_at(places, port, true) {
            return Ok(sockets);
        }
    }
    let (min, max) = (rtp.min_port, rtp.max_port);
    tracing::error!(min, max, workers, "no port of the range is free for each media thread");
    Err(io::ErrorKind::AddrInUse.into())
}

/// `other` says that another port will be tried if this one is taken anywhere.
fn bind_at(places: &[Interface], port: u16, other: bool) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for Interface { addr, .. } in places {
        match UdpSocket::bind(SocketAddr::new(*addr, port)) {
            Ok(socket) => sockets.push(socket),
            Err(error) if other && error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => tracing::warn!(%addr, port, %error, "no media at this address"),
        }
    }
    if sockets.is_empty() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(sockets) }
}

/// Where TCP connections are accepted: at the ports of the UDP sockets, unless TCP is switched off.
fn listen(config: &Config, sockets: &[UdpSocket]) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let wanted = sockets.iter().filter(|_| config.modules.webrtc.ice_tcp);
    for address in wanted.map(UdpSocket::local_addr) {
        let any = SocketAddr::new(address.ip(), 0);
        let free = config.media.port == 0 && config.modules.rtp.is_any();
        // Ports that nobody chose may differ: somebody else may have this one for TCP.
        match Listener::bind(address).or_else(|error| match free {
            true => Listener::bind(any),
            false => Err(error),
        }) {
            Ok(listener) => listeners.push(listener),
            Err(error) => tracing::warn!(%address, %error, "no TCP at this address"),
        }
    }
    listeners
}

/// Where workers tell what happened. What a turn brought about goes up together: control is woken for
/// all of it once, and what becomes messages of one connection leaves in one write.
#[derive(Clone)]
pub(super) struct Outlet {
    sender: UnboundedSender<Vec<Notice>>,
    events: Arc<AtomicUsize>,
    wanted: Arc<Wanted>,
    metrics: Arc<Metrics>,
}

impl Outlet {
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Events that control has yet to read, of all workers.
    pub fn waiting(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }

    pub fn send(&self, notices: impl Iterator<Item = Notice>) {
        let notices: Vec<_> = notices.filter(|notice| self.admits(notice)).collect();
        if !notices.is_empty() {
            // Nobody listens only while the server stops.
            let _ = self.sender.send(notices);
        }
    }

    /// Counts what goes up; false for an event that nobody wants, and, counted as lost, for one beyond the bound.
    fn admits(&self, notice: &Notice) -> bool {
        if let Notice::Event(event) = notice {
            if !self.wanted.includes(event) {
                return false;
            }
            if self.events.load(Ordering::Relaxed) >= MAX_EVENTS {
                self.metrics.events_dropped("control_busy", 1);
                return false;
            }
            self.events.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

/// Where control hears of it.
pub struct Notices {
    receiver: UnboundedReceiver<Vec<Notice>>,
    /// What came together and was not asked for yet.
    ahead: std::vec::IntoIter<Notice>,
    /// How many are under way; none are counted when they do not come from workers.
    events: Option<Arc<AtomicUsize>>,
}

impl Notices {
    /// The next notice; none once all workers are gone.
    pub async fn recv(&mut self) -> Option<Notice> {
        let notice = loop {
            match self.ahead.next() {
                Some(notice) => break notice,
                None => self.ahead = self.receiver.recv().await?.into_iter(),
            }
        };
        if let (Notice::Event(_), Some(events)) = (&notice, &self.events) {
            events.fetch_sub(1, Ordering::Relaxed);
        }
        Some(notice)
    }
}

/// Notices that come from elsewhere than workers.
impl From<UnboundedReceiver<Vec<Notice>>> for Notices {
    fn from(receiver: UnboundedReceiver<Vec<Notice>>) -> Self {
        Self { receiver, ahead: Vec::new().into_iter(), events: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_comes_round_once_a_second_is_not_stuck() {
        let now = Duration::from_secs(60);
        for (beat, stuck) in
            [(60_000, false), (60_001, false), (58_900, false), (54_000, true), (0, true)]
        {
            assert_eq!(is_stuck(now, beat), stuck, "{beat}");
        }
    }
}
