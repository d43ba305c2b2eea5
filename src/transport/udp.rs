//! Shell: batches of datagrams over non-blocking UDP sockets (`recvmmsg`, `sendmmsg`).
//!
//! One socket per local address, so that the local address of a datagram is that of its socket. Left
//! out: segmentation offload, and waiting, which is the worker's.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Datagrams that one call receives.
pub const RECV_BATCH: usize = 32;
/// Bytes of a received datagram that are kept; a longer one is dropped as a whole.
pub const RECV_SLOT: usize = 2048;
/// Datagrams that a batch holds before it must be flushed.
pub const SEND_BATCH: usize = 128;
/// The longest datagram that a batch takes.
pub const SEND_SLOT: usize = 1500;
/// What is asked of the kernel for each direction; it may give less.
const SOCKET_BUFFER: libc::c_int = 4 << 20;

/// A UDP socket bound to one concrete address.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
}

impl UdpSocket {
    /// Binds to `addr`; port 0 takes any free one. The address is not shared with other sockets.
    ///
    /// # Errors
    /// What `socket`, `bind` or `getsockname` say.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::socket(family, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if addr.is_ipv6() {
            // Another socket has the IPv4 address.
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        for (forced, asked) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Only the privileged may exceed the system's limit; a smaller buffer works, too.
            let _ = set_option(&fd, libc::SOL_SOCKET, forced, SOCKET_BUFFER)
                .or_else(|_| set_option(&fd, libc::SOL_SOCKET, asked, SOCKET_BUFFER));
        }
        let (raw, len) = to_raw(addr);
        // SAFETY: `raw` is a socket address of at least `len` bytes.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut raw = zeroed_address();
        let mut len = ADDRESS_LEN;
        // SAFETY: `raw` has room for `len` bytes, and both outlive the call.
        let named =
            unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut raw).cast(), &raw mut len) };
        if named != 0 {
            return Err(io::Error::last_os_error());
        }
        let local = from_raw(&raw).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        Ok(Self { fd, local })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Receives up to [`RECV_BATCH`] datagrams into `batch`, which loses what it held; returns how many
    /// it holds now. 0 means that nothing was waiting.
    ///
    /// # Errors
    /// What `recvmmsg` says, except that a peer's port was unreachable, which a UDP server ignores.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.len = 0;
        loop {
            batch.arm();
            // SAFETY: `arm` pointed every header at an address and a slot that `batch` owns.
            let received = unsafe {
                libc::recvmmsg(
                    self.fd.as_raw_fd(),
                    batch.headers.as_mut_ptr(),
                    RECV_BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            if received >= 0 {
                batch.len = received as usize;
                return Ok(batch.len);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(0),
                Some(libc::EINTR | libc::ECONNREFUSED) => {}
                _ => return Err(error),
            }
        }
    }

    /// Sends one datagram; `false` if the socket's buffer is full.
    ///
    /// # Errors
    /// What `sendto` says.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<bool> {
        let (raw, len) = to_raw(to);
        // SAFETY: both pointers are valid for the lengths that go with them.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT,
                (&raw const raw).cast(),
                len,
            )
        };
        if sent >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS) => Ok(false),
            _ => Err(error),
        }
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Room for received datagrams, used again and again.
pub struct RecvBatch {
    slots: Box<[[u8; RECV_SLOT]; RECV_BATCH]>,
    addresses: Box<[libc::sockaddr_in6; RECV_BATCH]>,
    vectors: Box<[libc::iovec; RECV_BATCH]>,
    headers: Box<[libc::mmsghdr; RECV_BATCH]>,
    len: usize,
}

// SAFETY: the raw pointers are set and used within one call, and point into boxes of the same batch.
unsafe impl Send for RecvBatch {}

impl Default for RecvBatch {
    fn default() -> Self {
        Self {
            slots: Box::new([[0; RECV_SLOT]; RECV_BATCH]),
            addresses: Box::new([zeroed_address(); RECV_BATCH]),
            vectors: Box::new([EMPTY_VECTOR; RECV_BATCH]),
            headers: Box::new([empty_header(); RECV_BATCH]),
            len: 0,
        }
    }
}

impl RecvBatch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The datagrams with their senders, in the order of arrival. What was cut to fit a slot is left
    /// out: none of the protocols here is of use in part.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let headers = &self.headers[..self.len];
        let addresses = &self.addresses[..self.len];
        let slots = self.slots.iter_mut();
        headers.iter().zip(addresses).zip(slots).filter_map(|((header, address), slot)| {
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let from = from_raw(address).filter(|_| whole)?;
            Some((from, &mut slot[..header.msg_len as usize]))
        })
    }

    /// How many datagrams of the batch were too long.
    pub fn truncated(&self) -> usize {
        let cut = |header: &&libc::mmsghdr| header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        self.headers[..self.len].iter().filter(cut).count()
    }

    fn arm(&mut self) {
        for at in 0..RECV_BATCH {
            self.vectors[at] =
                libc::iovec { iov_base: self.slots[at].as_mut_ptr().cast(), iov_len: RECV_SLOT };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.addresses[at]).cast();
            header.msg_namelen = ADDRESS_LEN;
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
        }
    }
}

/// What became of a flushed batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SendStats {
    pub sent: usize,
    pub bytes: usize,
    /// Dropped, for the socket's buffer was full.
    pub dropped_full: usize,
    /// Dropped, for the kernel refused this destination or datagram.
    pub dropped_refused: usize,
}

impl std::ops::AddAssign for SendStats {
    fn add_assign(&mut self, one: Self) {
        self.sent += one.sent;
        self.bytes += one.bytes;
        self.dropped_full += one.dropped_full;
        self.dropped_refused += one.dropped_refused;
    }
}

/// Datagrams to be sent in one go. Write into [`SendBatch::slot`], then [`SendBatch::commit`].
pub struct SendBatch {
    slots: Box<[[u8; SEND_SLOT]; SEND_BATCH]>,
    addresses: Box<[libc::sockaddr_in6; SEND_BATCH]>,
    vectors: Box<[libc::iovec; SEND_BATCH]>,
    headers: Box<[libc::mmsghdr; SEND_BATCH]>,
    /// The control message of those that are marked.
    marks: Box<[Option<Mark>; SEND_BATCH]>,
    len: usize,
}

/// A control message with the byte that routers look at: `cmsghdr`, then an `int`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Mark {
    head: libc::cmsghdr,
    value: libc::c_int,
}

// SAFETY: the raw pointers are set and used within one call, and point into boxes of the same batch.
unsafe impl Send for SendBatch {}

impl Default for SendBatch {
    fn default() -> Self {
        // Straight onto the heap: the slots are larger than some stacks like.
        let slots = vec![[0; SEND_SLOT]; SEND_BATCH].into_boxed_slice();
        Self {
            slots: slots.try_into().expect("the length is that of the array"),
            addresses: Box::new([zeroed_address(); SEND_BATCH]),
            vectors: Box::new([EMPTY_VECTOR; SEND_BATCH]),
            headers: Box::new([empty_header(); SEND_BATCH]),
            marks: Box::new([None; SEND_BATCH]),
            len: 0,
        }
    }
}

impl SendBatch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the batch must be flushed before the next slot.
    pub fn is_full(&self) -> bool {
        self.len == SEND_BATCH
    }

    /// Room for the next datagram. It stays the same until [`SendBatch::commit`].
    ///
    /// # Panics
    /// If the batch is full: ask [`SendBatch::is_full`] first.
    pub fn slot(&mut self) -> &mut [u8] {
        &mut self.slots[self.len]
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
        assert!(len <= SEND_SLOT, "a datagram is no longer than its slot");
        let (raw, address_len) = to_raw(to);
        self.addresses[self.len] = raw;
        self.vectors[self.len].iov_len = len;
        self.headers[self.len].msg_hdr.msg_namelen = address_len;
        self.marks[self.len] = (mark != 0).then(|| Mark::new(mark, to.is_ipv4()));
        self.len += 1;
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
        while from < self.len {
            let left = (self.len - from) as libc::c_uint;
            // SAFETY: `arm` pointed the headers up to `len` at addresses and slots that this batch
            // owns.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers[from..].as_mut_ptr(),
                    left,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if sent > 0 {
                let done = from + sent as usize;
                stats.sent += sent as usize;
                stats.bytes +=
                    self.vectors[from..done].iter().map(|vector| vector.iov_len).sum::<usize>();
                from = done;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    stats.dropped_full += self.len - from;
                    break;
                }
                // The error is that of the first datagram left, or one that an earlier datagram
                // brought back; either way the others still have a chance.
                _ => {
                    stats.dropped_refused += 1;
                    from += 1;
                }
            }
        }
        self.len = 0;
        stats
    }

    fn arm(&mut self) {
        for at in 0..self.len {
            self.vectors[at].iov_base = self.slots[at].as_mut_ptr().cast();
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.addresses[at]).cast();
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
            (header.msg_control, header.msg_controllen) = match &mut self.marks[at] {
                Some(mark) => ((mark as *mut Mark).cast(), size_of::<Mark>() as _),
                None => (std::ptr::null_mut(), 0),
            };
        }
    }
}

impl Mark {
    fn new(mark: u8, ipv4: bool) -> Self {
        let (level, kind) = match ipv4 {
            true => (libc::IPPROTO_IP, libc::IP_TOS),
            false => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        // SAFETY: the head of a control message consists of integers, for which zero is a value.
        let mut head: libc::cmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        head.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<libc::c_int>()) as _;
        head.cmsg_level = level;
        head.cmsg_type = kind;
        Self { head, value: mark.into() }
    }
}

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
/// Enough for IPv4 as well: its address is the shorter one.
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

fn zeroed_address() -> libc::sockaddr_in6 {
    // SAFETY: a socket address consists of integers, for which zero is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a header consists of integers and raw pointers, for which zero is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

pub(super) fn to_raw(addr: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    let mut raw = zeroed_address();
    match addr {
        SocketAddr::V4(addr) => {
            // SAFETY: zero is a value for its integers.
            let mut v4: libc::sockaddr_in = unsafe { MaybeUninit::zeroed().assume_init() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = addr.port().to_be();
            v4.sin_addr.s_addr = u32::from_ne_bytes(addr.ip().octets());
            // SAFETY: an IPv4 address is shorter than the place it is written to.
            unsafe { (&raw mut raw).cast::<libc::sockaddr_in>().write_unaligned(v4) };
            (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(addr) => {
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = addr.port().to_be();
            raw.sin6_addr.s6_addr = addr.ip().octets();
            raw.sin6_scope_id = addr.scope_id();
            raw.sin6_flowinfo = addr.flowinfo().to_be();
            (raw, ADDRESS_LEN)
        }
    }
}

fn from_raw(raw: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match i32::from(raw.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the family says what was written here, and it is shorter than the place.
            let v4 =
                unsafe { std::ptr::from_ref(raw).cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(ip, port, 0, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value outlives the call and has the length that is passed.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pair(ip: &str) -> (UdpSocket, std::net::UdpSocket) {
        let any = SocketAddr::new(ip.parse().expect("address"), 0);
        let ours = UdpSocket::bind(any).expect("binds");
        let theirs = std::net::UdpSocket::bind(any).expect("binds");
        theirs.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
        (ours, theirs)
    }

    /// Loopback delivers before the sender returns, so nothing has to be waited for.
    fn received(socket: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut batch = RecvBatch::new();
        socket.recv_batch(&mut batch).expect("receives");
        batch.iter_mut().map(|(from, bytes)| (from, bytes.to_vec())).collect()
    }

    #[test]
    fn a_batch_goes_out_and_comes_in() {
        for ip in ["127.0.0.1", "::1"] {
            let (ours, theirs) = pair(ip);
            let to = theirs.local_addr().expect("bound");
            let mut batch = SendBatch::new();
            for number in 0..SEND_BATCH {
                assert!(batch.push(&[number as u8; 40], to));
            }
            assert!(batch.is_full() && !batch.push(&[0], to));
            let stats = batch.flush(&ours);
            assert_eq!((stats.sent, stats.bytes), (SEND_BATCH, 40 * SEND_BATCH), "{stats:?}");
            assert!(batch.is_empty());
            let mut bytes = [0; 100];
            for number in 0..SEND_BATCH {
                let (len, from) = theirs.recv_from(&mut bytes).expect("arrives");
                assert_eq!((len, bytes[0], from), (40, number as u8, ours.local_addr()));
            }
            theirs.send_to(b"back", ours.local_addr()).expect("sends");
            assert_eq!(received(&ours), [(to, b"back".to_vec())]);
            assert_eq!(received(&ours), []);
        }
    }

    #[test]
    fn a_datagram_that_does_not_fit_is_left_out() {
        let (ours, theirs) = pair("127.0.0.1");
        for len in [RECV_SLOT + 1, RECV_SLOT, 0] {
            theirs.send_to(&vec![7; len], ours.local_addr()).expect("sends");
        }
        let mut batch = RecvBatch::new();
        assert_eq!(ours.recv_batch(&mut batch).expect("receives"), 3);
        assert_eq!(batch.truncated(), 1);
        let lens: Vec<usize> = batch.iter_mut().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lens, [RECV_SLOT, 0]);
    }

    #[test]
    fn a_refused_destination_does_not_stop_the_others() {
        let (ours, theirs) = pair("127.0.0.1");
        let good = theirs.local_addr().expect("bound");
        let closed = {
            let (_, gone) = pair("127.0.0.1");
            gone.local_addr().expect("bound")
        };
        let mut batch = SendBatch::new();
        // Port 0 is refused at once; a closed port is told of by the next call.
        for to in [closed, good, SocketAddr::from(([127, 0, 0, 1], 0)), good, closed, good] {
            batch.push(b"x", to);
        }
        let stats = batch.flush(&ours);
        assert_eq!(stats.sent + stats.dropped_refused, 6);
        assert!(stats.dropped_refused >= 1);
        theirs.recv_from(&mut [0; 10]).expect("arrives");
        received(&ours);
        assert!(batch.push(b"y", good));
        batch.flush(&ours);
        received(&ours);
    }

    #[test]
    fn a_mark_reaches_the_header_of_its_packet_only() {
        for (ip, level, ask, kind) in [
            ("127.0.0.1", libc::IPPROTO_IP, libc::IP_RECVTOS, libc::IP_TOS),
            ("::1", libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, libc::IPV6_TCLASS),
        ] {
            let (ours, theirs) = pair(ip);
            let to = theirs.local_addr().expect("bound");
            let fd = OwnedFd::from(theirs);
            set_option(&fd, level, ask, 1).expect("sets");
            let mut batch = SendBatch::new();
            for mark in [0, 46 << 2, 0] {
                batch.slot()[0] = mark;
                batch.commit_marked(1, to, mark);
            }
            assert_eq!(batch.flush(&ours).sent, 3);
            for expected in [0, 46 << 2, 0] {
                let (mut byte, mut control) = ([0_u8; 1], [0_u64; 8]);
                let mut vector =
                    libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
                let mut header = empty_header().msg_hdr;
                header.msg_iov = &raw mut vector;
                header.msg_iovlen = 1;
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = size_of_val(&control) as _;
                // SAFETY: the header points to places that outlive the call, with their lengths.
                let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) };
                assert_eq!((len, byte[0]), (1, expected));
                // SAFETY: the kernel wrote the control messages that the macro walks over.
                let first = unsafe { &*libc::CMSG_FIRSTHDR(&raw const header) };
                assert_eq!((first.cmsg_level, first.cmsg_type), (level, kind));
                // SAFETY: the message holds at least the byte that was asked for.
                let value = unsafe { *libc::CMSG_DATA(first) };
                assert_eq!(value, expected);
            }
        }
    }

    #[test]
    fn an_address_is_not_shared() {
        let (ours, _) = pair("127.0.0.1");
        let error = UdpSocket::bind(ours.local_addr()).expect_err("is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
