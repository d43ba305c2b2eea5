//! Shell: batches of datagrams over non-blocking UDP sockets (`recvmmsg`, `sendmmsg`).
//!
//! One socket per local address, so that the local address of a datagram is that of its socket. Left
//! out: waiting, which is the worker's.

mod send;

pub use send::{SEND_BATCH, SEND_SLOT, SendBatch, SendStats};

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Datagrams that one call receives.
pub const RECV_BATCH: usize = 32;
/// Bytes of a received datagram that are kept; a longer one is dropped as a whole.
pub const RECV_SLOT: usize = 2048;
/// What is asked of the kernel for each direction; it may give less.
const SOCKET_BUFFER: libc::c_int = 4 << 20;

/// A UDP socket bound to one concrete address. A clone is the same socket, for another thread to send from.
#[derive(Clone, Debug)]
pub struct UdpSocket {
    fd: Arc<OwnedFd>,
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
        // Where this is not known, a datagram counts as arrived when it is read.
        let _ = set_option(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        if addr.is_ipv4() {
            // Where this is not known, packets have a number each as before.
            let _ = keep_whole(&fd, true);
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
        Ok(Self { fd: Arc::new(fd), local })
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

    /// Sends one datagram; `false` if the socket's buffer is full. One that is too long for its way is cut
    /// up by the system, see [`keep_whole`].
    ///
    /// # Errors
    /// What `sendto` says.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<bool> {
        match self.send_once(bytes, to) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && to.is_ipv4() => {
                keep_whole(&self.fd, false)?;
                let sent = self.send_once(bytes, to);
                keep_whole(&self.fd, true)?;
                sent
            }
            sent => sent,
        }
    }

    fn send_once(&self, bytes: &[u8], to: SocketAddr) -> io::Result<bool> {
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
    controls: Box<[Control; RECV_BATCH]>,
    len: usize,
}

/// Room for what the system says of a datagram: when it came.
type Control = [u64; 8];

/// A datagram that was received.
#[derive(Debug)]
pub struct Incoming<'a> {
    pub from: SocketAddr,
    /// When the system had it, by its clock, since the Unix epoch. It may have waited here since then.
    pub came: Option<Duration>,
    pub bytes: &'a mut [u8],
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
            controls: Box::new([Control::default(); RECV_BATCH]),
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

    /// The datagrams in the order of arrival. What was cut to fit a slot is left out: none of the
    /// protocols here is of use in part.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Incoming<'_>> {
        let headers = &self.headers[..self.len];
        let addresses = &self.addresses[..self.len];
        let slots = self.slots.iter_mut();
        headers.iter().zip(addresses).zip(slots).filter_map(|((header, address), slot)| {
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let from = from_raw(address).filter(|_| whole)?;
            let bytes = &mut slot[..header.msg_len as usize];
            Some(Incoming { from, came: time_of(&header.msg_hdr), bytes })
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
            header.msg_control = self.controls[at].as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
    }
}

/// The time of arrival in the control messages of a received header.
fn time_of(header: &libc::msghdr) -> Option<Duration> {
    // SAFETY: the header's control messages were written by the kernel into room that still exists; the
    // macro gives null if there is none.
    let first = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    let kind = (first.cmsg_level, first.cmsg_type);
    let room = size_of::<libc::timespec>() + size_of::<libc::cmsghdr>();
    if kind != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) || (first.cmsg_len as usize) < room {
        return None;
    }
    // SAFETY: the kind says what was written here, and its length was looked at.
    let time = unsafe { libc::CMSG_DATA(first).cast::<libc::timespec>().read_unaligned() };
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
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

/// Forbids or allows to cut datagrams of IPv4 up. One that may be cut up has a number, and to make a new
/// one takes the system as long as all else it does for its header. What is too long for a way is refused
/// then, and allowed for that datagram alone.
fn keep_whole(fd: &OwnedFd, whole: bool) -> io::Result<()> {
    let how = if whole { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_WANT };
    set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, how)
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
        batch.iter_mut().map(|one| (one.from, one.bytes.to_vec())).collect()
    }

    #[test]
    fn a_batch_goes_out_and_comes_in() {
        for ip in ["127.0.0.1", "::1"] {
            let (ours, theirs) = pair(ip);
            let to = theirs.local_addr().expect("bound");
            let mut batch = SendBatch::new();
            // More than one run of the kernel's, and fewer than its buffer has room for.
            for number in 0..100 {
                assert!(batch.push(&[number; 40], to));
            }
            let stats = batch.flush(&ours);
            assert_eq!((stats.sent, stats.bytes, stats.messages), (100, 4_000, 2));
            assert!(batch.is_empty());
            let mut bytes = [0; 100];
            for number in 0..100 {
                let (len, from) = theirs.recv_from(&mut bytes).expect("arrives");
                assert_eq!((len, bytes[0], from), (40, number, ours.local_addr()));
            }
            theirs.send_to(b"back", ours.local_addr()).expect("sends");
            assert_eq!(received(&ours), [(to, b"back".to_vec())]);
            assert_eq!(received(&ours), []);
        }
    }

    #[test]
    fn datagrams_tell_when_they_came_however_late_they_are_read() {
        for ip in ["127.0.0.1", "::1"] {
            let (ours, theirs) = pair(ip);
            theirs.set_read_timeout(Some(Duration::from_millis(20))).expect("sets");
            for _ in 0..2 {
                theirs.send_to(b"x", ours.local_addr()).expect("sends");
                theirs.recv_from(&mut [0; 10]).expect_err("nothing comes in that time");
            }
            let mut batch = RecvBatch::new();
            assert_eq!(ours.recv_batch(&mut batch).expect("receives"), 2);
            let came: Vec<_> = batch.iter_mut().map(|one| one.came.expect("a time")).collect();
            assert!(came[1] - came[0] >= Duration::from_millis(10), "{came:?}");
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
        let lens: Vec<usize> = batch.iter_mut().map(|one| one.bytes.len()).collect();
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

    /// The one byte of the next datagram, and the mark in its header.
    fn received_mark(fd: &OwnedFd, level: libc::c_int, kind: libc::c_int) -> (u8, u8) {
        let (mut byte, mut control) = ([0_u8; 1], [0_u64; 8]);
        let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
        let mut header = empty_header().msg_hdr;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the header points to places that outlive the call, with their lengths.
        let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) };
        assert_eq!(len, 1);
        // SAFETY: the kernel wrote the control messages that the macro walks over.
        let first = unsafe { &*libc::CMSG_FIRSTHDR(&raw const header) };
        assert_eq!((first.cmsg_level, first.cmsg_type), (level, kind));
        // SAFETY: the message holds at least the byte that was asked for.
        (byte[0], unsafe { *libc::CMSG_DATA(first) })
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
                assert_eq!(received_mark(&fd, level, kind), (expected, expected));
            }
        }
    }

    #[test]
    fn datagrams_of_one_length_leave_as_one_message_and_arrive_one_by_one() {
        for ip in ["127.0.0.1", "::1"] {
            let (ours, first) = pair(ip);
            let (_, second) = pair(ip);
            let mut batch = SendBatch::new();
            // Lengths for each of two, taking turns: a shorter one ends a run, a longer one begins one.
            let lengths = [40, 40, 30, 40, 50, 50, 50, 1];
            for (number, len) in lengths.into_iter().enumerate() {
                for to in [&first, &second] {
                    let to = to.local_addr().expect("bound");
                    assert!(batch.push(&vec![number as u8; len], to));
                }
            }
            let stats = batch.flush(&ours);
            assert_eq!((stats.sent, stats.messages), (16, 6), "{stats:?}");
            assert_eq!(stats.bytes, 2 * lengths.iter().sum::<usize>());
            for socket in [first, second] {
                let mut bytes = [0; 100];
                for (number, len) in lengths.into_iter().enumerate() {
                    let (arrived, _) = socket.recv_from(&mut bytes).expect("arrives");
                    assert_eq!((arrived, bytes[0]), (len, number as u8));
                }
            }
        }
    }

    #[test]
    fn a_batch_takes_so_much_and_no_more() {
        let (ours, _) = pair("127.0.0.1");
        let mut batch = SendBatch::new();
        let to = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(!batch.push(&[0; SEND_SLOT + 1], to(1)));
        for number in 0..SEND_BATCH {
            assert!(batch.push(&[], to(1_000 + number as u16)));
        }
        assert!(batch.is_full() && !batch.push(&[], to(1)));
        let stats = batch.flush(&ours);
        assert_eq!(stats.sent + stats.dropped_refused, SEND_BATCH, "{stats:?}");
        assert!(batch.is_empty() && batch.push(&[], to(1)));
    }

    #[test]
    fn a_run_that_is_refused_is_sent_one_by_one() {
        let (ours, theirs) = pair("127.0.0.1");
        let to = theirs.local_addr().expect("bound");
        let closed = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut batch = SendBatch::new();
        for to in [closed, to, closed, to] {
            batch.push(&[7; 1_400], to);
        }
        // Port 0 is refused in pieces as well; the other destination is not held up.
        let stats = batch.flush(&ours);
        assert_eq!((stats.sent, stats.dropped_refused), (2, 2), "{stats:?}");
        batch.push(&[8; 10], to);
        batch.push(&[9; 10], to);
        // And runs are still sent as such.
        assert_eq!(batch.flush(&ours).messages, 1);
    }

    /// Makes the loopback device of a network of this thread's own so narrow; false where that is not
    /// allowed.
    fn narrow_network(mtu: libc::c_int) -> bool {
        // SAFETY: no pointers; the thread has nothing of the network it leaves.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return false;
        }
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("binds");
        // SAFETY: the request consists of integers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
        request.ifr_name[..2].copy_from_slice(&[b'l' as _, b'o' as _]);
        let ask = |what, request: &mut libc::ifreq| {
            // SAFETY: the request outlives the call and has what this kind of it needs.
            unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_mut(request)) == 0 }
        };
        request.ifr_ifru.ifru_mtu = mtu;
        let narrow = ask(libc::SIOCSIFMTU, &mut request);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        narrow && ask(libc::SIOCSIFFLAGS, &mut request)
    }

    #[test]
    fn what_is_too_long_for_its_way_arrives_all_the_same() {
        let network = std::thread::spawn(|| {
            if !narrow_network(1_280) {
                return;
            }
            let (ours, theirs) = pair("127.0.0.1");
            let to = theirs.local_addr().expect("bound");
            let mut batch = SendBatch::new();
            let lengths = [1_400, 1_400, 1_300, 200, 200, 1_400];
            for len in lengths {
                batch.push(&vec![7; len], to);
            }
            let stats = batch.flush(&ours);
            assert_eq!((stats.sent, stats.dropped_refused), (6, 0), "{stats:?}");
            let mut bytes = [0; 1_500];
            for len in lengths {
                assert_eq!(theirs.recv_from(&mut bytes).expect("arrives").0, len);
            }
            // What fits goes on in runs.
            (0..3).for_each(|_| assert!(batch.push(&[8; 1_000], to)));
            assert_eq!(batch.flush(&ours).messages, 1);
        });
        network.join().expect("a network that carries it");
    }

    #[test]
    fn marks_and_runs_go_together() {
        let (ours, theirs) = pair("127.0.0.1");
        let to = theirs.local_addr().expect("bound");
        let fd = OwnedFd::from(theirs);
        set_option(&fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1).expect("sets");
        let mut batch = SendBatch::new();
        for mark in [46 << 2, 46 << 2, 0, 0] {
            batch.slot()[0] = mark;
            batch.commit_marked(1, to, mark);
        }
        assert_eq!(batch.flush(&ours).messages, 2);
        for expected in [46 << 2, 46 << 2, 0, 0] {
            assert_eq!(received_mark(&fd, libc::IPPROTO_IP, libc::IP_TOS), (expected, expected));
        }
    }

    #[test]
    fn an_address_is_not_shared() {
        let (ours, _) = pair("127.0.0.1");
        let error = UdpSocket::bind(ours.local_addr()).expect_err("is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
