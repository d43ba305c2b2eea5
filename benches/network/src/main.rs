//! A relay for datagrams on loopback, with a bad network in between. Shell.
//!
//! `rivero-relay --trace FILE [--seed N] [--log FILE] [--seconds N]`
//!
//! It takes commands from its standard input, a line each, and answers each with a line of JSON:
//!
//! | command | does |
//! | --- | --- |
//! | `to 127.0.0.1:PORT` | opens a port that leads there, and tells it |
//! | `start` | the time of the trace begins; before that, what it says of its start holds |
//!
//! All ports share one link for each direction, as what one household has does. Each address that
//! sends to a port gets a socket of its own behind it, as a router with address translation has it.
//! The relay speaks with loopback addresses only, and ends with its input or when its time is up.
//!
//! The log has a line of JSON for each direction and 100 ms.

use rivero_network::{Direction, Link, Player, Seen, Trace};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const EVERY: Duration = Duration::from_millis(100);
/// Ports to the outside, and addresses behind all of them.
const PORTS: usize = 16;
const FLOWS: usize = 64;
const DATAGRAM: usize = 2_048;
/// Of IPv4 and UDP: what a network carries beside what a socket gives.
const HEADERS: u32 = 28;
/// Datagrams between the sockets and the link.
const WAITING: usize = 8_192;
const SECONDS: u64 = 900;

fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    Instant::now()
}

/// Milliseconds since 1970, which is what others on the machine write down.
fn wall() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
}

struct Settings {
    trace: Trace,
    seed: u64,
    log: Option<String>,
    seconds: u64,
}

impl Settings {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut settings = Self { trace: Trace::default(), seed: 1, log: None, seconds: SECONDS };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(format!("{flag} needs a value"))?;
            let number = || value.parse().map_err(|_| format!("{flag}: '{value}' is no number"));
            match flag.as_str() {
                "--trace" => {
                    let text = std::fs::read_to_string(&value);
                    let text = text.map_err(|error| format!("{value}: {error}"))?;
                    settings.trace =
                        Trace::parse(&text).map_err(|error| format!("{value}: {error}"))?;
                }
                "--seed" => settings.seed = number()?,
                "--log" => settings.log = Some(value),
                "--seconds" => settings.seconds = number()?,
                _ => return Err(format!("{flag} is no flag")),
            }
        }
        Ok(settings)
    }
}

enum Event {
    /// A datagram on the port of this number.
    Up {
        port: usize,
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    /// An answer for the flow of this number.
    Down {
        flow: usize,
        bytes: Vec<u8>,
    },
    Command(String),
    End,
}

struct Port {
    socket: Arc<UdpSocket>,
    leads_to: SocketAddr,
}

/// An address before a port, and the socket that stands for it behind the relay.
struct Flow {
    port: usize,
    near: SocketAddr,
    far: Arc<UdpSocket>,
}

fn bound() -> std::io::Result<Arc<UdpSocket>> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(Arc::new)
}

/// Reads a socket for as long as the relay lives.
fn listen(
    socket: Arc<UdpSocket>,
    events: SyncSender<Event>,
    event: impl Fn(SocketAddr, Vec<u8>) -> Event + Send + 'static,
) {
    thread::spawn(move || {
        let mut buffer = [0; DATAGRAM];
        loop {
            // What the other side refuses comes back as an error of the next call.
            let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
            if events.send(event(from, buffer[..size].to_vec())).is_err() {
                return;
            }
        }
    });
}

struct Relay {
    ports: Vec<Port>,
    flows: Vec<Flow>,
    by_address: HashMap<(usize, SocketAddr), usize>,
    player: Player,
    started: Option<Instant>,
    /// From the browser, and to it; a datagram goes with the number of its flow.
    up: Link<(usize, Arc<[u8]>)>,
    down: Link<(usize, Arc<[u8]>)>,
    /// What came from one address too many.
    refused: u64,
    events: SyncSender<Event>,
    log: Option<BufWriter<File>>,
    log_due: Instant,
}

impl Relay {
    fn new(settings: &Settings, events: SyncSender<Event>) -> Result<Self, String> {
        let log = settings.log.as_ref().map(|path| {
            File::create(path).map(BufWriter::new).map_err(|error| format!("{path}: {error}"))
        });
        let player = settings.trace.play();
        Ok(Self {
            ports: Vec::new(),
            flows: Vec::new(),
            by_address: HashMap::new(),
            up: Link::new(settings.seed * 2, player.conditions(Direction::Up)),
            down: Link::new(settings.seed * 2 + 1, player.conditions(Direction::Down)),
            player,
            started: None,
            refused: 0,
            events,
            log: log.transpose()?,
            log_due: clock() + EVERY,
        })
    }

    fn run(&mut self, events: &Receiver<Event>, ends: Instant) {
        loop {
            let now = clock();
            if now >= ends {
                return;
            }
            let due = self.poll(now).min(ends);
            match events.recv_timeout(due.saturating_duration_since(clock())) {
                Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => {
                    self.take(event);
                    // Many may have come while the last ones were passed on.
                    for event in events.try_iter().take(64) {
                        if matches!(event, Event::End) {
                            return;
                        }
                        self.take(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn take(&mut self, event: Event) {
        let now = clock();
        match event {
            Event::Up { port, from, bytes } => match self.flow(port, from) {
                Some(flow) => self.up.send(now, bytes.len() as u32 + HEADERS, (flow, bytes.into())),
                None => self.refused += 1,
            },
            Event::Down { flow, bytes } => {
                self.down.send(now, bytes.len() as u32 + HEADERS, (flow, bytes.into()));
            }
            Event::Command(command) => {
                let answer = self.command(now, &command);
                let answer = answer.unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
                println!("{answer}");
            }
            Event::End => {}
        }
    }

    fn flow(&mut self, port: usize, near: SocketAddr) -> Option<usize> {
        if let Some(flow) = self.by_address.get(&(port, near)) {
            return Some(*flow);
        }
        if self.flows.len() >= FLOWS {
            return None;
        }
        let far = bound().ok()?;
        far.connect(self.ports[port].leads_to).ok()?;
        let flow = self.flows.len();
        listen(far.clone(), self.events.clone(), move |_, bytes| Event::Down { flow, bytes });
        self.flows.push(Flow { port, near, far });
        self.by_address.insert((port, near), flow);
        Some(flow)
    }

    fn command(&mut self, now: Instant, command: &str) -> Result<String, String> {
        match command.split_whitespace().collect::<Vec<_>>()[..] {
            ["to", address] => {
                let leads_to: SocketAddr = address.parse().map_err(|_| "this is no address")?;
                if !leads_to.ip().is_loopback() || !leads_to.is_ipv4() {
                    return Err("only 127.0.0.1 is led to".to_owned());
                }
                if self.ports.len() >= PORTS {
                    return Err(format!("there are {PORTS} ports already"));
                }
                let opened = bound().and_then(|socket| Ok((socket.local_addr()?.port(), socket)));
                let (number, socket) = opened.map_err(|error| error.to_string())?;
                let port = self.ports.len();
                let event = move |from, bytes| Event::Up { port, from, bytes };
                listen(socket.clone(), self.events.clone(), event);
                self.ports.push(Port { socket, leads_to });
                Ok(format!("{{\"port\":{number}}}"))
            }
            ["start"] => {
                self.started = Some(now);
                Ok(format!("{{\"started\":{:.1}}}", wall()))
            }
            _ => Err("this is no command".to_owned()),
        }
    }

    /// Does what is due; when something is next.
    fn poll(&mut self, now: Instant) -> Instant {
        if let Some(started) = self.started
            && self.player.poll(now - started)
        {
            self.up.set(now, self.player.conditions(Direction::Up));
            self.down.set(now, self.player.conditions(Direction::Down));
        }
        // What nobody takes any more is lost, as it is in any network.
        while let Some((_, (flow, bytes))) = self.up.receive(now) {
            let _ = self.flows[flow].far.send(&bytes);
        }
        while let Some((_, (flow, bytes))) = self.down.receive(now) {
            let flow = &self.flows[flow];
            let _ = self.ports[flow.port].socket.send_to(&bytes, flow.near);
        }
        if now >= self.log_due {
            self.write_down(now);
            self.log_due = now + EVERY - (now - self.log_due).min(EVERY / 2);
        }
        let change = self.started.zip(self.player.poll_timeout()).map(|(from, at)| from + at);
        let due = [self.up.poll_timeout(), self.down.poll_timeout(), change];
        due.into_iter().flatten().fold(self.log_due, Instant::min)
    }

    fn write_down(&mut self, now: Instant) {
        let at = wall();
        let since = self.started.map(|started| (now - started).as_secs_f64());
        for (name, link) in [("up", &mut self.up), ("down", &mut self.down)] {
            let (seen, rate) = (link.take_seen(now), link.conditions().rate);
            let Some(log) = &mut self.log else { continue };
            // A disk that is full ends the log, and not the relay.
            if write_line(log, at, since, name, rate, &seen).and_then(|()| log.flush()).is_err() {
                self.log = None;
            }
        }
    }
}

fn write_line(
    to: &mut impl Write,
    at: f64,
    since: Option<f64>,
    direction: &str,
    rate: Option<f64>,
    seen: &Seen,
) -> std::io::Result<()> {
    let or_null =
        |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{value:.3}"));
    let Seen { offered_bytes, delivered_bytes, longest_wait, dropped, .. } = seen;
    writeln!(
        to,
        "{{\"at\":{at:.1},\"since\":{},\"direction\":\"{direction}\",\"rate\":{},\
         \"offeredPackets\":{},\"offeredBytes\":{offered_bytes},\"deliveredPackets\":{},\
         \"deliveredBytes\":{delivered_bytes},\"queueMs\":{:.1},\"lostRandom\":{},\"lostBurst\":{},\
         \"lostQueue\":{},\"lostCrowded\":{}}}",
        or_null(since),
        or_null(rate),
        seen.offered_packets,
        seen.delivered_packets,
        longest_wait.as_secs_f64() * 1_000.0,
        dropped.random,
        dropped.burst,
        dropped.queue,
        dropped.crowded,
    )
}

fn main() -> ExitCode {
    let settings = Settings::read(std::env::args().skip(1));
    let (events, taken) = sync_channel(WAITING);
    let relay = settings
        .and_then(|settings| Ok((Relay::new(&settings, events.clone())?, settings.seconds)));
    let (mut relay, seconds) = match relay {
        Ok(relay) => relay,
        Err(problem) => {
            eprintln!("rivero-relay: {problem}");
            return ExitCode::FAILURE;
        }
    };
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if events.send(Event::Command(line)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::End);
    });
    relay.run(&taken, clock() + Duration::from_secs(seconds));
    if relay.refused > 0 {
        eprintln!("rivero-relay: {} datagrams came from one address too many", relay.refused);
    }
    ExitCode::SUCCESS
}
