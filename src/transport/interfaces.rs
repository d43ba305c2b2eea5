//! Shell: the addresses of this machine that peers may reach (RFC 8445 §5.1.1.1).
//!
//! Unicast addresses of interfaces that are up: IPv4, and IPv6 without link-local and other addresses
//! that need a zone. Loopback is listed only on request, or when there is nothing else.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// Whether loopback addresses are listed beside others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Loopback {
    #[default]
    OnlyIfAlone,
    Always,
}

/// An address and the interface that has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    pub name: String,
    pub addr: IpAddr,
}

/// The machine's unicast addresses, IPv4 first, in the kernel's order.
///
/// # Errors
/// What `getifaddrs` says.
pub fn list(loopback: Loopback) -> io::Result<Vec<Interface>> {
    Ok(choose(read()?, loopback))
}

fn choose(mut all: Vec<Interface>, loopback: Loopback) -> Vec<Interface> {
    all.retain(|interface| is_usable(interface.addr));
    let alone = all.iter().all(|interface| interface.addr.is_loopback());
    all.retain(|interface| alone || loopback == Loopback::Always || !interface.addr.is_loopback());
    all.sort_by_key(|interface| interface.addr.is_ipv6());
    all
}

fn is_usable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !(addr.is_unspecified() || addr.is_multicast() || addr.is_link_local()),
        IpAddr::V6(addr) => {
            let global = !(addr.is_unspecified() || addr.is_multicast());
            global && !addr.is_unicast_link_local() && addr.to_ipv4_mapped().is_none()
        }
    }
}

fn read() -> io::Result<Vec<Interface>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `first` is a valid place for the list's head; the list is freed below, once.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut entry = first;
    while !entry.is_null() {
        // SAFETY: `entry` is a node of the list that `getifaddrs` made and nobody freed yet.
        let node = unsafe { &*entry };
        let up = node.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
        // SAFETY: the kernel's answer, null or an address of the family it names.
        if let Some(addr) = unsafe { ip_of(node.ifa_addr) }.filter(|_| up) {
            // SAFETY: `ifa_name` is a C string that lives as long as the list.
            let name = unsafe { CStr::from_ptr(node.ifa_name) };
            found.push(Interface { name: name.to_string_lossy().into_owned(), addr });
        }
        entry = node.ifa_next;
    }
    // SAFETY: `first` came from `getifaddrs`, and no reference into the list is left.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// The IP address behind a socket address of any family.
///
/// # Safety
/// `addr` is null or points to a socket address of the family it names.
unsafe fn ip_of(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: not null, and every socket address begins with its family.
    let family = unsafe { (*addr).sa_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says so.
            let addr = unsafe { ptr::read_unaligned(addr.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(addr.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says so.
            let addr = unsafe { ptr::read_unaligned(addr.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(addr.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(addrs: &[&str]) -> Vec<Interface> {
        let interface = |addr: &&str| Interface {
            name: "eth0".to_owned(),
            addr: addr.parse().expect("address"),
        };
        addrs.iter().map(interface).collect()
    }

    fn chosen(addrs: &[&str], loopback: Loopback) -> Vec<String> {
        let chosen = choose(interfaces(addrs), loopback);
        chosen.into_iter().map(|interface| interface.addr.to_string()).collect()
    }

    #[test]
    fn loopback_is_listed_only_alone_or_on_request() {
        let all = ["127.0.0.1", "::1", "2001:db8::1", "fe80::1", "10.0.0.1", "169.254.0.9"];
        assert_eq!(chosen(&all, Loopback::OnlyIfAlone), ["10.0.0.1", "2001:db8::1"]);
        let with = ["127.0.0.1", "10.0.0.1", "::1", "2001:db8::1"];
        assert_eq!(chosen(&all, Loopback::Always), with);
        assert_eq!(
            chosen(&["::1", "127.0.0.1", "fe80::1"], Loopback::OnlyIfAlone),
            ["127.0.0.1", "::1"]
        );
    }

    #[test]
    fn this_machine_has_an_address() {
        assert!(!list(Loopback::Always).expect("lists").is_empty());
    }
}
