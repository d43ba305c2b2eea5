//! Shell: the sockets of a media thread's clients, read and written in batches.
//!
//! A server on the same machine is called from a few sockets only: all of 127.0.0.0/8 is this machine,
//! so each client has an address of its own there, and one socket bound to any address serves many of
//! them; the address goes along with each datagram (`IP_PKTINFO`, ip(7)). To servers elsewhere, each
//! client has a socket.
//!
//! What a server sent as one message (GSO, udp(7)) arrives as one where the kernel can (`UDP_GRO`), and
//! is cut up here; and the kernel says when it arrived, so that a thread that is late does not make
//! the server look slow.
//!
//! Left out: IPv6.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rivero::transport::interfaces::{Interface, Loopback, list};

/// Sockets that are shared by clients: what arrives at once is spread over their buffers.
pub const SHARED: usize = 4;
const RECV_BATCH: usize = 32;
/// The longest row of datagrams that the kernel hands over as one.
const RECV_SLOT: usize = 65_536;
const SEND_BATCH: usize = 64;
const SEND_SLOT: usize = 1_500;
/// Room for the address and the count of drops beside a datagram.
const CONTROL: usize = 128;
/// The length of an address of IPv4.
const NAME: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;
const BUFFER: libc::c_int = 32 << 20;
const READY: usize = 256;

/// A socket and, if it is one client's own, whose.
struct Socket {
    /// None when its owner has left.
    fd: Option<OwnedFd>,
    port: u16,
    owner: Option<usize>,
    /// Datagrams that found its buffer full, as far as the kernel has told, and those of sockets that
    /// had this place before.
    overflown: u32,
    gone: u64,
}

impl Socket {
    fn raw(&self) -> i32 {
        self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn overflown(&self) -> u64 {
        self.gone + u64::from(self.overflown)
    }
}

/// The sockets before their thread is there.
pub struct Bound {
    list: Vec<Socket>,
    rows: bool,
}

impl Bound {
    /// With or without rows of datagrams.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(rows: bool) -> io::Result<Self> {
        let list = (0..SHARED).map(|_| bind(None, rows)).collect::<io::Result<_>>()?;
        Ok(Self { list, rows })
    }
}

/// Where a client sends from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    socket: usize,
    pub address: SocketAddrV4,
}

/// Datagrams that arrived: the client's number, the sender and where the bytes lie.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub client: usize,
    pub from: SocketAddr,
    /// Since the kernel had it.
    pub waited: Duration,
    slot: usize,
    begin: usize,
    len: usize,
}

pub struct Sockets {
    list: Vec<Socket>,
    /// Places in the list whose owners have left.
    free: Vec<usize>,
    rows: bool,
    epoll: OwnedFd,
    ready: Vec<libc::epoll_event>,
    received: Batch,
    sending: Batch,
    /// The socket that the waiting datagrams leave by, and how many they are.
    leaving: usize,
    waiting: usize,
    /// Datagrams that the system did not take.
    pub refused: u64,
}

/// Headers of several datagrams and what they point to.
struct Batch {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<[u64; CONTROL / 8]>,
    bytes: Vec<u8>,
    slot: usize,
    /// Headers that the last call wrote into.
    used: usize,
}

/// The token of the thread's mailbox.
const MAILBOX: u64 = u64::MAX;

impl Sockets {
    /// # Errors
    /// What the system says.
    pub fn new(bound: Bound, mailbox: &impl AsRawFd) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        watch(&epoll, mailbox.as_raw_fd(), MAILBOX)?;
        for (number, socket) in bound.list.iter().enumerate() {
            watch(&epoll, socket.raw(), number as u64)?;
        }
        Ok(Self {
            list: bound.list,
            free: Vec::new(),
            rows: bound.rows,
            epoll,
            ready: vec![libc::epoll_event { events: 0, u64: 0 }; READY],
            received: Batch::new(RECV_BATCH, RECV_SLOT),
            sending: Batch::new(SEND_BATCH, SEND_SLOT),
            leaving: 0,
            waiting: 0,
            refused: 0,
        })
    }

    /// A place for a client that is to reach `server`.
    ///
    /// # Errors
    /// What the system says: it may have no more sockets.
    pub fn place(&mut self, client: usize, server: Ipv4Addr, local: bool) -> io::Result<Place> {
        if local {
            let socket = client % SHARED;
            let address = SocketAddrV4::new(shared_address(client), self.list[socket].port);
            return Ok(Place { socket, address });
        }
        let found = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        found.connect((server, 9))?;
        let SocketAddr::V4(own) = found.local_addr()? else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut socket = bind(Some(client), self.rows)?;
        let at = self.free.pop().unwrap_or(self.list.len());
        watch(&self.epoll, socket.raw(), at as u64)?;
        let address = SocketAddrV4::new(*own.ip(), socket.port);
        match self.list.get_mut(at) {
            Some(old) => {
                socket.gone = old.overflown();
                *old = socket;
            }
            None => self.list.push(socket),
        }
        Ok(Place { socket: at, address })
    }

    /// The client that had this place has left.
    pub fn leave(&mut self, place: &Place) {
        if self.list[place.socket].owner.is_some() {
            self.flush();
            self.list[place.socket].fd = None;
            self.free.push(place.socket);
        }
    }

    /// Room for the next datagram.
    pub fn slot(&mut self, from: &Place) -> &mut [u8] {
        if self.waiting == SEND_BATCH || (self.waiting > 0 && self.leaving != from.socket) {
            self.flush();
        }
        self.leaving = from.socket;
        self.sending.slot_mut(self.waiting)
    }

    /// Sends what was put into the slot, with the next flush.
    pub fn commit(&mut self, from: &Place, len: usize, to: SocketAddr) {
        let SocketAddr::V4(to) = to else { return };
        let at = self.waiting;
        self.sending.names[at] = raw(to);
        self.sending.vectors[at].iov_len = len;
        let source = self.list[from.socket].owner.is_none().then(|| *from.address.ip());
        self.sending.address_from(at, source);
        self.waiting += 1;
    }

    pub fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.waiting {
            self.sending.arm_to_send(self.waiting);
            let fd = self.list[self.leaving].raw();
            // SAFETY: the headers point to what `sending` owns, and so many are filled.
            let taken = unsafe {
                libc::sendmmsg(
                    fd,
                    self.sending.headers.as_mut_ptr().add(sent),
                    (self.waiting - sent) as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            // The one it stopped at is left out.
            sent += usize::try_from(taken).unwrap_or_else(|_| {
                self.refused += 1;
                1
            });
        }
        self.waiting = 0;
    }

    /// Waits until something arrives, the mailbox is called or the time is over; how many are ready.
    pub fn wait(&mut self, limit: Duration) -> usize {
        let limit = libc::timespec {
            tv_sec: limit.as_secs().min(60) as libc::time_t,
            tv_nsec: libc::c_long::from(limit.subsec_nanos() as i32),
        };
        // SAFETY: the array has room for so many events, and the time outlives the call.
        let ready = unsafe {
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                READY as libc::c_int,
                &raw const limit,
                std::ptr::null(),
            )
        };
        usize::try_from(ready).unwrap_or(0)
    }

    /// The socket that is ready; none for the mailbox.
    pub fn ready(&self, at: usize) -> Option<usize> {
        let token = self.ready[at].u64;
        (token != MAILBOX).then_some(token as usize)
    }

    /// Reads what waits at a socket, a batch of it; whether there may be more.
    pub fn receive(&mut self, socket: usize, arrivals: &mut Vec<Arrival>) -> bool {
        arrivals.clear();
        self.received.arm_to_receive();
        let Some(socket) = self.list.get_mut(socket) else { return false };
        // SAFETY: the headers point to what `received` owns, with its lengths.
        let count = unsafe {
            libc::recvmmsg(
                socket.raw(),
                self.received.headers.as_mut_ptr(),
                RECV_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        self.received.used = count;
        let now = wall_clock();
        for slot in 0..count {
            let told = self.received.told(slot);
            socket.overflown = socket.overflown.max(told.overflown.unwrap_or(0));
            let client = socket.owner.or_else(|| told.to.and_then(client_at));
            let Some(client) = client else { continue };
            let name = &self.received.names[slot];
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            let from = SocketAddr::from((ip, u16::from_be(name.sin_port)));
            let waited = told.at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
            let len = (self.received.headers[slot].msg_len as usize).min(RECV_SLOT);
            let piece = told.piece.filter(|piece| *piece > 0).unwrap_or(len.max(1));
            let mut begin = 0;
            while begin < len {
                let len = piece.min(len - begin);
                arrivals.push(Arrival { client, from, waited, slot, begin, len });
                begin += len;
            }
        }
        count == RECV_BATCH
    }

    pub fn bytes(&mut self, arrival: &Arrival) -> &mut [u8] {
        &mut self.received.slot_mut(arrival.slot)[arrival.begin..arrival.begin + arrival.len]
    }

    /// Datagrams that came faster than they were read.
    pub fn overflown(&self) -> u64 {
        self.list.iter().map(Socket::overflown).sum()
    }
}

impl Batch {
    fn new(count: usize, slot: usize) -> Self {
        // SAFETY: zeros are a valid value of these structs of numbers and null pointers.
        let (header, vector, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let mut batch = Self {
            headers: vec![header; count],
            vectors: vec![vector; count],
            names: vec![name; count],
            controls: vec![[0; CONTROL / 8]; count],
            bytes: vec![0; count * slot],
            slot,
            used: count,
        };
        // What they point to stays where it is, for none of it grows.
        for at in 0..count {
            batch.vectors[at] = libc::iovec {
                iov_base: batch.bytes[at * slot..].as_mut_ptr().cast(),
                iov_len: slot,
            };
            let header = &mut batch.headers[at].msg_hdr;
            header.msg_name = (&raw mut batch.names[at]).cast();
            header.msg_iov = &raw mut batch.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = batch.controls[at].as_mut_ptr().cast();
        }
        batch
    }

    fn slot_mut(&mut self, at: usize) -> &mut [u8] {
        &mut self.bytes[at * self.slot..(at + 1) * self.slot]
    }

    /// Makes the headers that were used since the last time fit to receive again.
    fn arm_to_receive(&mut self) {
        for header in &mut self.headers[..self.used] {
            header.msg_hdr.msg_namelen = NAME;
            header.msg_hdr.msg_controllen = CONTROL as _;
            header.msg_hdr.msg_flags = 0;
        }
        self.used = 0;
    }

    fn arm_to_send(&mut self, count: usize) {
        for header in &mut self.headers[..count] {
            header.msg_hdr.msg_namelen = NAME;
        }
    }

    /// Says which address a datagram leaves from; none for the socket's own.
    fn address_from(&mut self, at: usize, source: Option<Ipv4Addr>) {
        let header = &mut self.headers[at].msg_hdr;
        let Some(source) = source else {
            header.msg_controllen = 0;
            return;
        };
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let len = size_of::<libc::in_pktinfo>() as libc::c_uint;
        // SAFETY: the control buffer is aligned and longer than this one message.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(len) as _;
            let first = libc::CMSG_FIRSTHDR(header);
            (*first).cmsg_level = libc::IPPROTO_IP;
            (*first).cmsg_type = libc::IP_PKTINFO;
            (*first).cmsg_len = libc::CMSG_LEN(len) as _;
            libc::CMSG_DATA(first).cast::<libc::in_pktinfo>().write_unaligned(info);
        }
    }

    /// What the kernel says beside a datagram.
    fn told(&self, at: usize) -> Beside {
        let header = &self.headers[at].msg_hdr;
        let mut beside = Beside::default();
        // SAFETY: the kernel wrote the control messages, and the macros stay within their length.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                let data = libc::CMSG_DATA(message);
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        beside.to = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)));
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                        beside.overflown = Some(data.cast::<u32>().read_unaligned());
                    }
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        beside.at = Some(span(data.cast::<libc::timespec>().read_unaligned()));
                    }
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let piece = data.cast::<libc::c_int>().read_unaligned();
                        beside.piece = usize::try_from(piece).ok();
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        beside
    }
}

/// What the kernel says beside a datagram.
#[derive(Clone, Copy, Default)]
struct Beside {
    /// The address it was sent to.
    to: Option<Ipv4Addr>,
    /// How many the socket lost so far.
    overflown: Option<u32>,
    /// When it arrived, by the wall clock.
    at: Option<Duration>,
    /// The length of each of a row of datagrams.
    piece: Option<usize>,
}

/// The wall clock, which the kernel's times of arrival are told by.
fn wall_clock() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is valid for the call, which writes nothing else. It cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    span(time)
}

fn span(time: libc::timespec) -> Duration {
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// A socket on any address; a shared one is told where each datagram was sent to.
fn bind(owner: Option<usize>, rows: bool) -> io::Result<Socket> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked before it is used.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is open and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if owner.is_none() {
        set_option(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    if rows {
        // An older kernel cuts them up itself.
        let _ = set_option(&fd, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    for (forced, asked) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Only the privileged may exceed the system's limit; a smaller buffer works, too.
        let _ = set_option(&fd, libc::SOL_SOCKET, forced, BUFFER)
            .or_else(|_| set_option(&fd, libc::SOL_SOCKET, asked, BUFFER));
    }
    let any = raw(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut len = NAME;
    let mut name = any;
    // SAFETY: both names are socket addresses of `len` bytes that outlive the calls.
    let done = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const any).cast(), len) == 0
            && libc::getsockname(fd.as_raw_fd(), (&raw mut name).cast(), &raw mut len) == 0
    };
    if !done {
        return Err(io::Error::last_os_error());
    }
    Ok(Socket { fd: Some(fd), port: u16::from_be(name.sin_port), owner, overflown: 0, gone: 0 })
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int that outlives the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn watch(epoll: &OwnedFd, fd: i32, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
    // SAFETY: both descriptors are open, and the event outlives the call.
    let result =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn raw(address: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: zeros are a valid address of no family.
    let mut raw: libc::sockaddr_in = unsafe { zeroed() };
    raw.sin_family = libc::AF_INET as libc::sa_family_t;
    raw.sin_port = address.port().to_be();
    raw.sin_addr.s_addr = u32::from(*address.ip()).to_be();
    raw
}

/// 127.64.0.1 and on, for the first client and on; the low octet is never 0 or 255.
fn shared_address(client: usize) -> Ipv4Addr {
    let (high, low) = (client / 250, client % 250);
    Ipv4Addr::new(127, 64 + (high / 250 % 64) as u8, (high % 250) as u8, 1 + low as u8)
}

fn client_at(address: Ipv4Addr) -> Option<usize> {
    let [_, top, high, low] = address.octets().map(usize::from);
    Some((top.checked_sub(64)? * 250 + high) * 250 + low.checked_sub(1)?)
}

/// Whether an address is this machine's, so that all of its loopback addresses reach it.
pub fn is_own(address: Ipv4Addr) -> bool {
    let own = |all: Vec<Interface>| all.iter().any(|one| one.addr == IpAddr::V4(address));
    address.is_loopback() || list(Loopback::Always).is_ok_and(own)
}

/// Something that ends an epoll wait.
pub struct Waker(std::fs::File);

impl Waker {
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }.into()))
    }

    pub fn wake(&self) {
        // A full counter wakes as well.
        let _ = io::Write::write(&mut &self.0, &1_u64.to_ne_bytes());
    }

    pub fn clear(&self) {
        let _ = io::Read::read(&mut &self.0, &mut [0; 8]);
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_addresses_of_their_own_and_are_found_by_them() {
        for client in [0, 1, 249, 250, 62_499, 62_500, 1_000_000] {
            let address = shared_address(client);
            assert!(address.is_loopback());
            assert_eq!(client_at(address), Some(client), "{address}");
        }
        assert_eq!(client_at(Ipv4Addr::new(127, 0, 0, 1)), None);
        assert_eq!(client_at(Ipv4Addr::new(127, 64, 0, 0)), None);
    }

    #[test]
    fn datagrams_leave_from_the_clients_address_and_come_back_to_it() {
        let waker = Waker::new().expect("an eventfd");
        let mut sockets = Sockets::new(Bound::new(true).expect("sockets"), &waker).expect("epoll");
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let to = server.local_addr().expect("is bound");
        for (client, local) in [(3, true), (300, true), (7, false)] {
            let place = sockets.place(client, Ipv4Addr::LOCALHOST, local).expect("a place");
            sockets.slot(&place)[..2].copy_from_slice(b"hi");
            sockets.commit(&place, 2, to);
            sockets.flush();
            let mut bytes = [0; 10];
            let (len, from) = server.recv_from(&mut bytes).expect("arrives");
            assert_eq!((len, from), (2, SocketAddr::V4(place.address)));
            server.send_to(b"you", from).expect("sends");
            let ready = sockets.wait(Duration::from_secs(10));
            assert_eq!(ready, 1);
            let (socket, mut arrivals) = (sockets.ready(0).expect("a socket"), Vec::new());
            sockets.receive(socket, &mut arrivals);
            assert_eq!(arrivals.len(), 1);
            assert_eq!((arrivals[0].client, arrivals[0].from), (client, to));
            assert_eq!(sockets.bytes(&arrivals[0]), b"you");
        }
        assert_eq!((sockets.refused, sockets.overflown()), (0, 0));
    }

    #[test]
    fn a_row_of_datagrams_is_cut_up_and_each_tells_how_long_it_waited() {
        let waker = Waker::new().expect("an eventfd");
        let mut sockets = Sockets::new(Bound::new(true).expect("sockets"), &waker).expect("epoll");
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let place = sockets.place(5, Ipv4Addr::LOCALHOST, true).expect("a place");
        // Each three bytes are a datagram from here on.
        let size: libc::c_int = 3;
        // SAFETY: the value is an int that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                server.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                (&raw const size).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        server.send_to(b"abcdefgh", SocketAddr::V4(place.address)).expect("sends");
        let (mut arrivals, mut texts) = (Vec::new(), Vec::new());
        while texts.len() < 3 {
            assert_eq!(sockets.wait(Duration::from_secs(10)), 1);
            let socket = sockets.ready(0).expect("a socket");
            sockets.receive(socket, &mut arrivals);
            for arrival in &arrivals {
                assert!(arrival.client == 5 && arrival.waited > Duration::ZERO);
                texts.push(sockets.bytes(arrival).to_vec());
            }
        }
        assert_eq!(texts, [b"abc".to_vec(), b"def".to_vec(), b"gh".to_vec()]);
    }

    #[test]
    fn the_socket_of_a_client_that_left_serves_another() {
        let waker = Waker::new().expect("an eventfd");
        let mut sockets = Sockets::new(Bound::new(false).expect("sockets"), &waker).expect("epoll");
        let first = sockets.place(1, Ipv4Addr::LOCALHOST, false).expect("a place");
        sockets.leave(&first);
        let second = sockets.place(2, Ipv4Addr::LOCALHOST, false).expect("a place");
        assert_eq!((first.socket, second.socket), (SHARED, SHARED));
        // Those that are shared stay.
        let shared = sockets.place(3, Ipv4Addr::LOCALHOST, true).expect("a place");
        sockets.leave(&shared);
        assert_eq!(sockets.place(3, Ipv4Addr::LOCALHOST, true).expect("a place"), shared);
    }
}
