//! Shell: looks names up aside from the media threads: names of servers by the system's resolver, and
//! those that end in `.local` by multicast DNS.
//!
//! Both have a thread and a bounded queue of their own; a question that finds no room, or nobody who
//! knows, is answered with nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::worker::{Answer, Mailbox};
use crate::clock::Clock;
use crate::elements::Asker;
use crate::transport::mdns;

/// Questions that wait.
const QUEUE: usize = 256;
/// Questions by multicast at the same time.
const ROUND: usize = 64;
/// How long neighbours have to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A session wants to know an address.
pub(super) struct Question {
    pub name: String,
    pub asker: Asker,
    pub mailbox: Arc<Mailbox>,
}

impl Question {
    fn answer(&self, ip: Option<IpAddr>) {
        self.mailbox.answer(Answer { asker: self.asker, ip });
    }
}

/// Where questions go. The threads end with the last of them.
#[derive(Clone)]
pub(super) struct Resolver {
    names: SyncSender<Question>,
    neighbours: SyncSender<Question>,
}

impl Resolver {
    /// # Errors
    /// When the system gives no threads.
    pub fn start(clock: Clock) -> io::Result<Self> {
        let (names, asked) = sync_channel(QUEUE);
        std::thread::Builder::new().name("names".to_owned()).spawn(move || look_up(&asked))?;
        let (neighbours, asked) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("neighbours".to_owned())
            .spawn(move || ask_neighbours(&asked, clock))?;
        Ok(Self { names, neighbours })
    }

    /// Never blocks. Whether there was room for the question.
    pub fn ask(&self, question: Question) -> bool {
        let local = question.name.ends_with(".local");
        let queue = if local { &self.neighbours } else { &self.names };
        let Err(refused) = queue.try_send(question) else { return true };
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        let (Full(question) | Disconnected(question)) = refused;
        question.answer(None);
        false
    }
}

/// Asks the system, which may take long: one name after the other.
fn look_up(asked: &Receiver<Question>) {
    while let Ok(question) = asked.recv() {
        let found = (question.name.as_str(), 0).to_socket_addrs();
        let found: Vec<IpAddr> = found.into_iter().flatten().map(|address| address.ip()).collect();
        // IPv4 first: a machine without IPv6 may still hear of such addresses.
        let ipv4 = found.iter().find(|ip| ip.is_ipv4()).or(found.first());
        if ipv4.is_none() {
            tracing::warn!(name = question.name, "nobody knows this name");
        }
        question.answer(ipv4.copied());
    }
}

/// Asks the local network, for many names at once.
fn ask_neighbours(asked: &Receiver<Question>, clock: Clock) {
    while let Ok(first) = asked.recv() {
        let mut open = vec![first];
        open.extend(std::iter::from_fn(|| asked.try_recv().ok()).take(ROUND - 1));
        if let Err(error) = round(&mut open, clock) {
            tracing::debug!(%error, "multicast DNS does not work here");
        }
        for question in open {
            question.answer(None);
        }
    }
}

/// Answers what it can and takes it off the list.
fn round(open: &mut Vec<Question>, clock: Clock) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    for question in open.iter() {
        if let Some(message) = mdns::question(&question.name) {
            socket.send_to(&message, mdns::GROUP)?;
        }
    }
    let until = clock.now() + PATIENCE;
    let mut bytes = [0; 1_500];
    while !open.is_empty() {
        let left = until.saturating_duration_since(clock.now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let Ok((len, _)) = socket.recv_from(&mut bytes) else { break };
        for (name, ip) in mdns::answers(&bytes[..len]) {
            open.retain(|question| {
                let other = !question.name.eq_ignore_ascii_case(&name);
                if !other {
                    question.answer(Some(ip));
                }
                other
            });
        }
    }
    Ok(())
}
