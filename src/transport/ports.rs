//! Pairs of UDP ports for plain RTP: an even one for RTP and the next for RTCP (RFC 3550 §11), inside
//! the configured range, so many at most.
//!
//! Which ports are free only the system knows; it is asked through [`Binder`].

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand;

/// Pairs that the system may refuse before the search is given up: each costs a system call or two.
const MAX_REFUSALS: usize = 512;

/// Binds addresses, and reads them from then on.
pub trait Binder {
    /// # Errors
    /// What the system says, [`io::ErrorKind::AddrInUse`] above all.
    fn bind(&mut self, address: SocketAddr) -> io::Result<()>;

    /// Sends a last datagram from an address that is about to be closed.
    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]);

    /// Lets go of an address that was bound.
    fn close(&mut self, address: SocketAddr);
}

/// Why there are no ports.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("all {0} pairs of ports for RTP are in use")]
    Limit(usize),
    #[error("no pair of ports for RTP is free")]
    NoneFree,
    #[error("a port for RTP cannot be bound: {0}")]
    System(#[from] io::Error),
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// Two neighbours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pair {
    pub rtp: SocketAddr,
    pub rtcp: SocketAddr,
}

/// How many pairs all workers of a process may hold together.
#[derive(Debug)]
pub struct Quota {
    limit: usize,
    used: AtomicUsize,
}

impl Quota {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    fn take(&self) -> Result<(), PortError> {
        let more = |used| (used < self.limit).then_some(used + 1);
        let taken = self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(|_| ()).map_err(|_| PortError::Limit(self.limit))
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The pairs of one worker.
pub struct Ports {
    range: PortRange,
    quota: Arc<Quota>,
    /// The addresses for RTP that are held.
    held: HashSet<SocketAddr>,
    binder: Box<dyn Binder>,
}

impl Ports {
    pub fn new(range: PortRange, quota: Arc<Quota>, binder: Box<dyn Binder>) -> Self {
        Self { range, quota, held: HashSet::new(), binder }
    }

    /// Binds a pair at `ip`. The search begins anywhere: who knows one pair does not know the next.
    ///
    /// # Errors
    /// [`PortError`]
    pub fn open(&mut self, ip: IpAddr) -> Result<Pair, PortError> {
        self.quota.take()?;
        self.search(ip).inspect_err(|_| self.quota.give_back())
    }

    fn search(&mut self, ip: IpAddr) -> Result<Pair, PortError> {
        let first = u32::from(self.range.first.max(2)).next_multiple_of(2);
        let pairs = (u32::from(self.range.last) + 1).saturating_sub(first) / 2;
        if pairs == 0 {
            return Err(PortError::NoneFree);
        }
        let mut random = [0; 4];
        rand::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
        let start = u32::from_le_bytes(random) % pairs;
        let mut refusals = 0;
        for step in 0..pairs {
            let port = first + 2 * ((start + step) % pairs);
            let at = |port: u32| SocketAddr::new(ip, port as u16);
            let pair = Pair { rtp: at(port), rtcp: at(port + 1) };
            if self.held.contains(&pair.rtp) {
                continue;
            }
            match self.bind(pair) {
                Ok(()) => {
                    self.held.insert(pair.rtp);
                    return Ok(pair);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => refusals += 1,
                // Ports that only the privileged may have, say.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refusals += 1,
                Err(error) => return Err(error.into()),
            }
            if refusals == MAX_REFUSALS {
                break;
            }
        }
        Err(PortError::NoneFree)
    }

    fn bind(&mut self, pair: Pair) -> io::Result<()> {
        self.binder.bind(pair.rtp)?;
        self.binder.bind(pair.rtcp).inspect_err(|_| self.binder.close(pair.rtp))
    }

    /// Sends from a port of a pair that is about to be closed.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.binder.send(from, to, bytes);
    }

    /// Lets go of a pair; one that is not held is no error.
    pub fn close(&mut self, pair: Pair) {
        if self.held.remove(&pair.rtp) {
            self.binder.close(pair.rtp);
            self.binder.close(pair.rtcp);
            self.quota.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// A system where others hold some ports.
    #[derive(Clone, Default)]
    struct System {
        bound: Rc<RefCell<HashSet<u16>>>,
        taken: Vec<u16>,
    }

    impl Binder for System {
        fn bind(&mut self, address: SocketAddr) -> io::Result<()> {
            let port = address.port();
            if self.taken.contains(&port) || !self.bound.borrow_mut().insert(port) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(())
        }

        fn send(&mut self, _: SocketAddr, _: SocketAddr, _: &[u8]) {}

        fn close(&mut self, address: SocketAddr) {
            assert!(self.bound.borrow_mut().remove(&address.port()), "closed what was not bound");
        }
    }

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ports(first: u16, last: u16, limit: usize, system: &System) -> Ports {
        let quota = Arc::new(Quota::new(limit));
        Ports::new(PortRange { first, last }, quota, Box::new(system.clone()))
    }

    #[test]
    fn every_pair_of_the_range_is_found_and_none_beyond_it() {
        let system = System { taken: vec![5_005], ..System::default() };
        let mut ports = ports(5_001, 5_012, 100, &system);
        let mut found: Vec<u16> = (0..4)
            .map(|_| {
                let pair = ports.open(HOME).expect("a free pair");
                assert_eq!(pair.rtcp.port(), pair.rtp.port() + 1);
                pair.rtp.port()
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, [5_002, 5_006, 5_008, 5_010], "even ones, and 5004 has no neighbour");
        assert!(matches!(ports.open(HOME), Err(PortError::NoneFree)));
        assert_eq!(system.bound.borrow().len(), 8, "half a pair is not kept");
        assert_eq!(ports.quota.used.load(Ordering::Relaxed), 4, "what was not had is not counted");
    }

    #[test]
    fn the_last_port_of_all_is_of_use() {
        let pair = ports(65_534, 65_535, 1, &System::default()).open(HOME).expect("a free pair");
        assert_eq!((pair.rtp.port(), pair.rtcp.port()), (65_534, 65_535));
    }

    #[test]
    fn no_more_pairs_are_held_than_allowed_until_one_is_given_back() {
        let system = System::default();
        let mut ports = ports(1_024, 65_535, 2, &system);
        let pair = ports.open(HOME).expect("a first");
        ports.open(HOME).expect("a second");
        assert!(matches!(ports.open(HOME), Err(PortError::Limit(2))));
        ports.close(pair);
        ports.close(pair);
        ports.open(HOME).expect("one is free again");
        assert_eq!(system.bound.borrow().len(), 4);
    }

    #[test]
    fn workers_share_what_they_may_hold() {
        let quota = Arc::new(Quota::new(3));
        let mut workers = [20_000, 30_000].map(|first| {
            let range = PortRange { first, last: first + 99 };
            Ports::new(range, quota.clone(), Box::new(System::default()))
        });
        let pair = workers[0].open(HOME).expect("a first");
        for _ in 0..2 {
            workers[1].open(HOME).expect("more");
        }
        assert!(matches!(workers[0].open(HOME), Err(PortError::Limit(3))));
        workers[0].close(pair);
        workers[1].open(HOME).expect("one is free again");
    }

    #[test]
    fn a_range_without_a_pair_has_none() {
        for (first, last) in [(5_001, 5_002), (6_000, 5_000), (0, 1)] {
            let opened = ports(first, last, 9, &System::default()).open(HOME);
            assert!(matches!(opened, Err(PortError::NoneFree)), "{first} {last}");
        }
    }
}
