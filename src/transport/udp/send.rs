//! Batches of datagrams to be sent with few system calls.
//!
//! Datagrams of one length and mark for one destination become a *run*, wherever they lie in the batch: the
//! kernel takes it as one message and cuts it up at the last moment (UDP generic segmentation offload,
//! `UDP_SEGMENT` of udp(7)), so that the way through the network stack is paid once for all of them.
//! Each destination gets its datagrams in the order in which they were written.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use super::{UdpSocket, empty_header, to_raw};

/// Datagrams that a batch holds before it must be flushed: few, so that the first of many viewers do not
/// wait for the last ones, and what was written is still in the cache when the kernel copies it; and enough
/// for a run each of a dozen.
pub const SEND_BATCH: usize = 128;
/// The longest datagram that a batch takes.
pub const SEND_SLOT: usize = 1500;

/// Datagrams of one run: what Linux has taken since it knows them.
const MOST_OF_RUN: usize = 64;
/// Bytes of one run: it is one IP packet until it is cut up.
const LONGEST_RUN: usize = 65_000;
/// Places of the table from destinations to runs; some are always free.
const PLACES: usize = 2 * SEND_BATCH;
const NONE: u16 = u16::MAX;

/// What became of a flushed batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SendStats {
    pub sent: usize,
    pub bytes: usize,
    /// Messages that the kernel was given for what was sent.
    pub messages: usize,
    /// Dropped, for the socket's buffer was full.
    pub dropped_full: usize,
    /// Dropped, for the kernel refused this destination or datagram.
    pub dropped_refused: usize,
}

impl std::ops::AddAssign for SendStats {
    fn add_assign(&mut self, one: Self) {
        self.sent += one.sent;
        self.bytes += one.bytes;
        self.messages += one.messages;
        self.dropped_full += one.dropped_full;
        self.dropped_refused += one.dropped_refused;
    }
}

/// Datagrams to be sent in one go. Write into [`SendBatch::slot`], then [`SendBatch::commit`].
pub struct SendBatch {
    slots: Box<[[u8; SEND_SLOT]]>,
    datagrams: Vec<Datagram>,
    runs: Vec<Run>,
    /// From destinations to their newest runs; places are found from a hash on.
    newest: Box<[u16; PLACES]>,
    /// The run behind the one that was added to last: whoever sends to many does so in one order.
    likely: usize,
    messages: Messages,
    /// The kernel cuts runs up.
    segments: bool,
}

#[derive(Clone, Copy)]
struct Datagram {
    len: u16,
    /// The next of its run.
    next: u16,
}

struct Run {
    to: SocketAddr,
    mark: u8,
    /// No more fits: the last one was shorter, or there are many.
    closed: bool,
    first: u16,
    last: u16,
    count: u16,
    /// Of each but the last one, which may be shorter.
    len: u16,
    bytes: usize,
    /// Where the table names it.
    place: u16,
}

/// What the kernel is given: filled from the runs when the batch is flushed.
struct Messages {
    addresses: Vec<libc::sockaddr_in6>,
    vectors: Vec<libc::iovec>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
}

/// A control message: its head, then a number, padded to whole words.
#[derive(Clone, Copy)]
#[repr(C)]
struct Said {
    head: libc::cmsghdr,
    value: [u8; 8],
}

/// What may be said of a message: the byte that routers look at, and how long its pieces are.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    mark: Said,
    segment: Said,
}

// SAFETY: the raw pointers are set and used within one call, and point into vectors of the same batch.
unsafe impl Send for SendBatch {}

impl Default for SendBatch {
    fn default() -> Self {
        Self {
            slots: vec![[0; SEND_SLOT]; SEND_BATCH].into_boxed_slice(),
            datagrams: Vec::with_capacity(SEND_BATCH),
            runs: Vec::with_capacity(SEND_BATCH),
            newest: Box::new([NONE; PLACES]),
            likely: 0,
            messages: Messages {
                addresses: Vec::with_capacity(SEND_BATCH),
                vectors: Vec::with_capacity(SEND_BATCH),
                controls: Vec::with_capacity(SEND_BATCH),
                headers: Vec::with_capacity(SEND_BATCH),
            },
            segments: true,
        }
    }
}

impl SendBatch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Whether the batch must be flushed before the next slot.
    pub fn is_full(&self) -> bool {
        self.datagrams.len() == SEND_BATCH
    }

    /// Room for the next datagram. It stays the same until [`SendBatch::commit`].
    ///
    /// # Panics
    /// If the batch is full: ask [`SendBatch::is_full`] first.
    pub fn slot(&mut self) -> &mut [u8] {
        &mut self.slots[self.datagrams.len()]
    }

    /// Takes the first `len` bytes of the slot as a datagram for `to`.
    ///
    /// # Panics
    /// If the batch is full or `len` exceeds [`SEND_SLOT`].
    pub fn commit(&mut self, len: usize, to: SocketAddr) {
        self.commit_marked(len, to, 0);
    }

    /// The same, with the byte of the IP header that routers look at (RFC 2474); 0 leaves it alone.
    ///
    /// # Panics
    /// As [`SendBatch::commit`].
    pub fn commit_marked(&mut self, len: usize, to: SocketAddr, mark: u8) {
        assert!(len <= SEND_SLOT && !self.is_full(), "a datagram is no longer than its slot");
        let number = self.datagrams.len() as u16;
        self.datagrams.push(Datagram { len: len as u16, next: NONE });
        let (place, run) = self.find(to);
        let joined = run.is_some_and(|run| {
            let one = &mut self.runs[run];
            let fits = !one.closed && one.mark == mark && len <= usize::from(one.len) && len > 0;
            if fits {
                self.datagrams[usize::from(one.last)].next = number;
                one.last = number;
                one.count += 1;
                one.bytes += len;
                one.closed = len < usize::from(one.len)
                    || usize::from(one.count) == MOST_OF_RUN
                    || one.bytes + usize::from(one.len) > LONGEST_RUN;
                self.likely = run + 1;
            }
            fits
        });
        if !joined {
            self.newest[usize::from(place)] = self.runs.len() as u16;
            self.runs.push(Run {
                to,
                mark,
                closed: !self.segments,
                first: number,
                last: number,
                count: 1,
                len: len as u16,
                bytes: len,
                place,
            });
            self.likely = self.runs.len();
        }
    }

    /// The newest run for a destination, and where the table names it, or may.
    fn find(&self, to: SocketAddr) -> (u16, Option<usize>) {
        let is_it = |run: &Run| run.to == to;
        if let Some(run) = self.runs.get(self.likely).filter(|run| is_it(run)) {
            let newest = usize::from(self.newest[usize::from(run.place)]);
            return (run.place, Some(newest));
        }
        let mut place = hash(to);
        loop {
            match self.newest[place] {
                NONE => return (place as u16, None),
                run if is_it(&self.runs[usize::from(run)]) => {
                    return (place as u16, Some(usize::from(run)));
                }
                _ => place = (place + 1) % PLACES,
            }
        }
    }

    /// Copies a datagram into the next slot; false if it is too long or the batch is full.
    pub fn push(&mut self, bytes: &[u8], to: SocketAddr) -> bool {
        if self.is_full() || bytes.len() > SEND_SLOT {
            return false;
        }
        self.slot()[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len(), to);
        true
    }

    /// Sends all datagrams and empties the batch. A full buffer drops the rest; a refused destination
    /// drops its datagram only.
    pub fn flush(&mut self, socket: &UdpSocket) -> SendStats {
        let mut stats = SendStats::default();
        self.arm();
        let mut from = 0;
        while from < self.runs.len() {
            // SAFETY: `arm` pointed the headers of all runs at what this batch owns.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.messages.headers[from..].as_mut_ptr(),
                    (self.runs.len() - from) as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if sent > 0 {
                let done = from + sent as usize;
                stats.messages += sent as usize;
                for run in &self.runs[from..done] {
                    stats.sent += usize::from(run.count);
                    stats.bytes += run.bytes;
                }
                from = done;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    let left = self.runs[from..].iter().map(|run| usize::from(run.count));
                    stats.dropped_full += left.sum::<usize>();
                    break;
                }
                // The error is that of the first message left, or one that an earlier datagram brought
                // back; either way the others still have a chance. A run has one in its pieces: they
                // may be too long for the way, or the kernel or the device cannot cut them up.
                error => {
                    if self.runs[from].count > 1 || error == Some(libc::EMSGSIZE) {
                        let one_by_one = self.send_pieces(socket, from);
                        let all = one_by_one.dropped_full + one_by_one.dropped_refused == 0;
                        if all && error != Some(libc::EMSGSIZE) {
                            tracing::info!(?error, "datagrams are sent one by one from here on");
                            self.segments = false;
                        }
                        stats += one_by_one;
                    } else {
                        stats.dropped_refused += 1;
                    }
                    from += 1;
                }
            }
        }
        self.clear();
        stats
    }

    /// Sends the datagrams of a run each by itself.
    fn send_pieces(&self, socket: &UdpSocket, run: usize) -> SendStats {
        let mut stats = SendStats::default();
        let to = self.runs[run].to;
        let mut next = self.runs[run].first;
        while next != NONE {
            let one = self.datagrams[usize::from(next)];
            let bytes = &self.slots[usize::from(next)][..usize::from(one.len)];
            match socket.send_to(bytes, to) {
                Ok(true) => {
                    stats.sent += 1;
                    stats.bytes += bytes.len();
                    stats.messages += 1;
                }
                Ok(false) => stats.dropped_full += 1,
                Err(_) => stats.dropped_refused += 1,
            }
            next = one.next;
        }
        stats
    }

    fn clear(&mut self) {
        for run in self.runs.drain(..) {
            self.newest[usize::from(run.place)] = NONE;
        }
        self.datagrams.clear();
        self.likely = 0;
    }

    fn arm(&mut self) {
        let Messages { addresses, vectors, controls, headers } = &mut self.messages;
        addresses.clear();
        vectors.clear();
        controls.clear();
        headers.clear();
        for run in &self.runs {
            let (address, address_len) = to_raw(run.to);
            addresses.push(address);
            controls.push(Control::new(run));
            let mut next = run.first;
            while next != NONE {
                let one = self.datagrams[usize::from(next)];
                let slot = &mut self.slots[usize::from(next)];
                vectors.push(libc::iovec {
                    iov_base: slot.as_mut_ptr().cast(),
                    iov_len: usize::from(one.len),
                });
                next = one.next;
            }
            let mut header = empty_header();
            header.msg_hdr.msg_namelen = address_len;
            header.msg_hdr.msg_iovlen = usize::from(run.count) as _;
            headers.push(header);
        }
        // From here on nothing moves.
        let mut vectors = &mut vectors[..];
        let parts = addresses.iter_mut().zip(controls).zip(headers).zip(&self.runs);
        for (((address, control), header), run) in parts {
            let (own, rest) = vectors.split_at_mut(usize::from(run.count));
            vectors = rest;
            let header = &mut header.msg_hdr;
            header.msg_name = std::ptr::from_mut(address).cast();
            header.msg_iov = own.as_mut_ptr();
            let (at, said) = match (run.mark != 0, run.count > 1) {
                (false, false) => continue,
                (true, false) => (std::ptr::from_mut(&mut control.mark).cast(), 1),
                (false, true) => (std::ptr::from_mut(&mut control.segment).cast(), 1),
                (true, true) => (std::ptr::from_mut(control).cast(), 2),
            };
            header.msg_control = at;
            header.msg_controllen = (said * size_of::<Said>()) as _;
        }
    }
}

impl Control {
    fn new(run: &Run) -> Self {
        let (level, kind) = match run.to.is_ipv4() {
            true => (libc::IPPROTO_IP, libc::IP_TOS),
            false => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        Self {
            mark: Said::new(level, kind, &libc::c_int::from(run.mark).to_ne_bytes()),
            segment: Said::new(libc::SOL_UDP, libc::UDP_SEGMENT, &run.len.to_ne_bytes()),
        }
    }
}

impl Said {
    fn new(level: libc::c_int, kind: libc::c_int, value: &[u8]) -> Self {
        // SAFETY: the head of a control message consists of integers, for which zero is a value.
        let mut head: libc::cmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        head.cmsg_len = (size_of::<libc::cmsghdr>() + value.len()) as _;
        head.cmsg_level = level;
        head.cmsg_type = kind;
        let mut said = Self { head, value: [0; 8] };
        said.value[..value.len()].copy_from_slice(value);
        said
    }
}

/// The place in the table where a search begins.
fn hash(to: SocketAddr) -> usize {
    let ip = match to.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 ^ ip.to_bits() as u64,
    };
    let mixed = (ip ^ u64::from(to.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize % PLACES
}
