//! Which datagram is for whom: the first byte (RFC 7983, RFC 5761 §4), then the remote address, then
//! the user fragment of a STUN request.
//!
//! An address belongs to a session only after that session authenticated a STUN message from it, so a
//! stranger cannot claim one. Both tables are bounded; every function is total over any bytes.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::path;
use super::stun::{self, Transaction};

/// How many remote addresses one session may hold. The oldest gives way that nobody proved, then the
/// oldest of all, but never the one that media goes to.
pub const ADDRESSES_PER_SESSION: usize = 16;
/// How many user fragments lead to one session: the first, which names it, and the last ones.
const FRAGMENTS_PER_SESSION: usize = 4;

/// What a datagram carries, by its first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Datagram {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
    Unknown,
}

/// Tells the protocols of one port apart.
pub fn classify(bytes: &[u8]) -> Datagram {
    match bytes {
        [0..=3, ..] => Datagram::Stun,
        [20..=63, ..] => Datagram::Dtls,
        [128..=191, second, ..] => match second & 0x7f {
            64..=95 => Datagram::Rtcp,
            _ => Datagram::Rtp,
        },
        _ => Datagram::Unknown,
    }
}

/// The user fragment of the receiver, from the USERNAME of a STUN request: what stands before the
/// colon (RFC 8445 §7.2.2).
pub fn local_ufrag(bytes: &[u8]) -> Option<&str> {
    let username = stun::attribute(bytes, stun::USERNAME)?;
    let end = username.iter().position(|&byte| byte == b':')?;
    let ufrag = std::str::from_utf8(&username[..end]).ok()?;
    (!ufrag.is_empty()).then_some(ufrag)
}

/// The sessions of one worker, by user fragment and by remote address.
#[derive(Debug)]
pub struct Demux<K> {
    by_ufrag: HashMap<String, K>,
    /// Whose an address is, and whether that is proven.
    by_address: HashMap<SocketAddr, (K, bool)>,
    /// Questions to servers that many sessions ask. A session has as many as it has addresses.
    by_transaction: HashMap<Transaction, K>,
    held: HashMap<K, Held>,
}

/// What leads to one session.
#[derive(Debug)]
struct Held {
    ufrags: Vec<String>,
    addresses: VecDeque<SocketAddr>,
    /// The one that media goes to.
    live: Option<SocketAddr>,
    transactions: Vec<Transaction>,
}

impl<K: Copy + Eq + std::hash::Hash> Default for Demux<K> {
    fn default() -> Self {
        Self {
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_transaction: HashMap::new(),
            held: HashMap::new(),
        }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Demux<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a new `key` reachable by `ufrag`; false if either is known already, and nothing changed.
    pub fn insert(&mut self, ufrag: &str, key: K) -> bool {
        if self.by_ufrag.contains_key(ufrag) || self.held.contains_key(&key) {
            return false;
        }
        self.by_ufrag.insert(ufrag.to_owned(), key);
        let (addresses, transactions) = (VecDeque::new(), Vec::new());
        let ufrags = vec![ufrag.to_owned()];
        self.held.insert(key, Held { ufrags, addresses, live: None, transactions });
        true
    }

    /// Makes a session reachable by a further `ufrag`; false if that is known already, and nothing
    /// changed. Those between the first and the last few are forgotten.
    pub fn rename(&mut self, ufrag: &str, key: K) -> bool {
        let Some(held) = self.held.get_mut(&key) else { return false };
        if self.by_ufrag.contains_key(ufrag) {
            return false;
        }
        self.by_ufrag.insert(ufrag.to_owned(), key);
        held.ufrags.push(ufrag.to_owned());
        if held.ufrags.len() > FRAGMENTS_PER_SESSION {
            self.by_ufrag.remove(&held.ufrags.remove(1));
        }
        true
    }

    /// Whether a fragment leads to a session.
    pub fn knows(&self, ufrag: &str) -> bool {
        self.by_ufrag.contains_key(ufrag)
    }

    /// Forgets the session with all that leads to it.
    pub fn remove(&mut self, key: K) {
        let Some(held) = self.held.remove(&key) else { return };
        for ufrag in held.ufrags {
            self.by_ufrag.remove(&ufrag);
        }
        for transaction in held.transactions {
            self.by_transaction.remove(&transaction);
        }
        for address in held.addresses {
            if self.by_address.get(&address).is_some_and(|(holder, _)| *holder == key) {
                self.by_address.remove(&address);
            }
        }
    }

    /// Binds `remote` to a session that authenticated a STUN message from it. Only a session to which
    /// the address answered (`proven`) takes it from another: a replayed request claims any address.
    /// Returns the address that gave way, if any.
    pub fn bind(&mut self, remote: SocketAddr, key: K, proven: bool) -> Option<SocketAddr> {
        match self.by_address.get_mut(&remote) {
            Some((holder, known)) if *holder == key => {
                *known |= proven;
                return None;
            }
            Some(_) if !proven => return None,
            _ => {}
        }
        let (live, held) = self.held.get_mut(&key).map(|held| (held.live, &mut held.addresses))?;
        let mut displaced = None;
        if held.len() >= ADDRESSES_PER_SESSION {
            let spare = |address: &SocketAddr| Some(*address) != live;
            let claimed = |address: &SocketAddr| {
                spare(address) && self.by_address.get(address).is_none_or(|(_, proven)| !proven)
            };
            let at = held.iter().position(claimed).or_else(|| held.iter().position(spare));
            displaced = at.and_then(|at| held.remove(at));
        }
        held.push_back(remote);
        if let Some((before, _)) = self.by_address.insert(remote, (key, proven))
            && let Some(held) = self.held.get_mut(&before)
        {
            held.addresses.retain(|&address| address != remote);
        }
        if let Some(oldest) = displaced {
            self.by_address.remove(&oldest);
        }
        displaced
    }

    /// Media of a session goes to this address, or by ways that are not told apart here.
    pub fn set_live(&mut self, remote: Option<SocketAddr>, key: K) {
        if let Some(remote) = remote {
            self.bind(remote, key, true);
        }
        if let Some(held) = self.held.get_mut(&key) {
            held.live = remote;
        }
    }

    /// The answer to this transaction is for `key`, wherever it comes from.
    pub(crate) fn expect(&mut self, transaction: Transaction, key: K) {
        if let Some(held) = self.held.get_mut(&key) {
            held.transactions.push(transaction);
            self.by_transaction.insert(transaction, key);
        }
    }

    /// The session to which this address has answered.
    pub fn holder(&self, remote: SocketAddr) -> Option<K> {
        self.by_address.get(&remote).filter(|(_, proven)| *proven).map(|(key, _)| *key)
    }

    /// The session that `bytes`, which came to `local` from `remote`, are for. A STUN request names its
    /// session, whatever address it comes from, and an answer its transaction; a connection
    /// is that of the session that opened it; all else goes by address.
    pub fn find(&self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) -> Option<K> {
        if let Some(opener) = path::opener(local) {
            let ufrag = std::str::from_utf8(&opener).ok()?;
            return self.by_ufrag.get(ufrag).copied();
        }
        if classify(bytes) == Datagram::Stun
            && let Some(key) = local_ufrag(bytes).and_then(|ufrag| self.by_ufrag.get(ufrag))
        {
            return Some(*key);
        }
        if classify(bytes) == Datagram::Stun
            && let Some(transaction) = stun::answered(bytes)
        {
            let asked = self.by_transaction.get(&transaction);
            let own = || stun::owner(&transaction).and_then(|ufrag| self.by_ufrag.get(ufrag));
            if let Some(key) = asked.or_else(own) {
                return Some(*key);
            }
        }
        self.by_address.get(&remote).map(|(key, _)| *key)
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, SocketAddrV4};

    const HERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8_000));

    fn request(username: &str) -> Vec<u8> {
        let mut value = username.as_bytes().to_vec();
        value.resize(value.len().next_multiple_of(4), 0);
        let mut bytes = vec![0, 1];
        bytes.extend((value.len() as u16 + 4).to_be_bytes());
        bytes.extend(stun::COOKIE.to_be_bytes());
        bytes.extend([7; 12]);
        bytes.extend(stun::USERNAME.to_be_bytes());
        bytes.extend((username.len() as u16).to_be_bytes());
        bytes.extend(value);
        bytes
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn first_bytes_tell_the_protocol() {
        let cases: [(&[u8], Datagram); 12] = [
            (&[], Datagram::Unknown),
            (&[0], Datagram::Stun),
            (&[3, 1], Datagram::Stun),
            (&[4], Datagram::Unknown),
            (&[19], Datagram::Unknown),
            (&[20], Datagram::Dtls),
            (&[63], Datagram::Dtls),
            (&[64], Datagram::Unknown),
            (&[128], Datagram::Unknown),
            (&[0x80, 96], Datagram::Rtp),
            (&[0x80, 0x80 | 72], Datagram::Rtcp),
            (&[192, 0], Datagram::Unknown),
        ];
        for (bytes, expected) in cases {
            assert_eq!(classify(bytes), expected, "{bytes:?}");
        }
        let rtcp: Vec<u8> =
            (0..=255).filter(|&second| classify(&[0x80, second]) == Datagram::Rtcp).collect();
        assert_eq!(rtcp, [(64..=95).collect::<Vec<u8>>(), (192..=223).collect()].concat());
    }

    #[test]
    fn a_request_reaches_the_session_it_names() {
        let mut demux = Demux::new();
        assert!(demux.insert("abcd", 1));
        assert!(!demux.insert("abcd", 2));
        assert_eq!(local_ufrag(&request("abcd:efgh")), Some("abcd"));
        assert_eq!(demux.find(HERE, address(1), &request("abcd:efgh")), Some(1));
        assert_eq!(demux.find(HERE, address(1), &request("abce:efgh")), None);
        assert_eq!(demux.find(HERE, address(1), &request("abcd")), None);
    }

    #[test]
    fn an_answer_reaches_the_session_that_asked_though_another_holds_the_address() {
        let mut demux = Demux::new();
        demux.insert("abcd", 1);
        demux.insert("efgh", 2);
        demux.bind(address(1), 1, true);
        let mut answer = request("abcd:efgh")[..20].to_vec();
        answer[..4].copy_from_slice(&[1, 1, 0, 0]);
        answer[8..].copy_from_slice(&stun::own_transaction("efgh"));
        assert_eq!(demux.find(HERE, address(1), &answer), Some(2));
        answer[8..].copy_from_slice(&[7; 12]);
        assert_eq!(demux.find(HERE, address(1), &answer), Some(1));
    }

    #[test]
    fn an_unbound_address_reaches_nobody() {
        let mut demux = Demux::new();
        demux.insert("abcd", 1);
        assert_eq!(demux.find(HERE, address(1), &[0x80, 96]), None);
        demux.bind(address(1), 1, false);
        assert_eq!(demux.find(HERE, address(1), &[0x80, 96]), Some(1));
        assert_eq!(demux.find(HERE, address(2), &[0x80, 96]), None);
        assert_eq!(demux.bind(address(3), 9, true), None);
        assert_eq!(demux.find(HERE, address(3), &[0x80, 96]), None);
    }

    #[test]
    fn addresses_of_a_session_are_bounded_and_leave_with_it() {
        let mut demux = Demux::new();
        demux.insert("abcd", 1);
        demux.insert("efgh", 2);
        for port in 1..=100 {
            demux.bind(address(port), 1, false);
        }
        assert_eq!(demux.by_address.len(), ADDRESSES_PER_SESSION);
        demux.bind(address(100), 2, false);
        assert_eq!(demux.find(HERE, address(100), &[20]), Some(1));
        demux.bind(address(100), 2, true);
        assert_eq!(demux.find(HERE, address(100), &[20]), Some(2));
        demux.remove(1);
        assert_eq!(demux.by_address.len(), 1);
        demux.remove(2);
        assert!(demux.is_empty() && demux.by_ufrag.is_empty() && demux.by_address.is_empty());
    }

    #[test]
    fn the_address_that_media_goes_to_is_never_crowded_out() {
        let mut demux = Demux::new();
        demux.insert("abcd", 1);
        demux.set_live(Some(address(1)), 1);
        for (port, proven) in (2..=100).map(|port| (port, port % 3 != 0)) {
            demux.bind(address(port), 1, proven);
            assert_eq!(demux.find(HERE, address(1), &[20]), Some(1), "after {port}");
        }
        assert_eq!(demux.by_address.len(), ADDRESSES_PER_SESSION);
        // It had given way before it was chosen.
        demux.set_live(Some(address(2)), 1);
        for port in 101..=120 {
            demux.bind(address(port), 1, true);
        }
        assert_eq!(demux.find(HERE, address(2), &[20]), Some(1));
        assert_eq!(demux.find(HERE, address(1), &[20]), None, "nothing goes there any more");
    }

    #[test]
    fn what_only_claims_an_address_gives_way_to_what_proved_it() {
        let mut demux = Demux::new();
        demux.insert("abcd", 1);
        demux.bind(address(1), 1, true);
        for port in 2..=100 {
            demux.bind(address(port), 1, false);
        }
        assert_eq!(demux.find(HERE, address(1), &[20]), Some(1));
    }

    #[test]
    fn a_session_is_found_by_its_first_and_by_its_last_fragments() {
        let mut demux = Demux::new();
        demux.insert("abcd", 1);
        demux.insert("efgh", 2);
        assert!(!demux.rename("efgh", 1) && !demux.rename("new0", 3));
        for number in 0..20 {
            assert!(demux.rename(&format!("new{number}"), 1));
        }
        let found = |ufrag: &str| demux.find(HERE, address(1), &request(&format!("{ufrag}:peer")));
        assert_eq!(["abcd", "new19", "new18", "new17"].map(found), [Some(1); 4]);
        assert_eq!(["new16", "new0"].map(found), [None; 2]);
        demux.remove(1);
        assert_eq!(demux.by_ufrag.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_told_apart(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            classify(&bytes);
            local_ufrag(&bytes);
        }

        #[test]
        fn a_broken_request_is_no_trap(at in 0_usize..40, value: u8, cut in 0_usize..60) {
            let mut bytes = request("abcd:efgh");
            let len = bytes.len();
            bytes[at % len] = value;
            bytes.truncate(cut.min(len));
            local_ufrag(&bytes);
            stun::verify(&bytes, &stun::key(b"password"));
        }
    }
}
