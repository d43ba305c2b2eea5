//! What a stranger can see of a server, and send to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::client::get;

/// What was dropped on the media side so far, by reason, as the metrics tell it.
pub async fn media_drops(address: SocketAddr) -> BTreeMap<String, u64> {
    let (_, text) = get(address, "/metrics").await;
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("rivero_media_dropped_total{reason=\""));
    lines
        .map(|line| line.split_once("\"} ").expect("a reason and a number"))
        .map(|(reason, count)| (reason.to_owned(), count.parse().expect("a number")))
        .collect()
}

/// A STUN binding request for the receiver with user fragment `ufrag` (RFC 8489 §5), followed by
/// `attributes`; without them nothing in it proves that its sender knows a password.
pub fn binding_request(ufrag: &str, attributes: &[u8]) -> Vec<u8> {
    let mut username = format!("{ufrag}:peer").into_bytes();
    let len = username.len() as u16;
    username.resize(username.len().next_multiple_of(4), 0);
    let mut bytes = vec![0, 1];
    bytes.extend((4 + username.len() as u16 + attributes.len() as u16).to_be_bytes());
    bytes.extend(0x2112_a442_u32.to_be_bytes());
    bytes.extend([7; 12]);
    bytes.extend([0, 6]);
    bytes.extend(len.to_be_bytes());
    bytes.extend(username);
    bytes.extend(attributes);
    bytes
}

/// The first value of an attribute in a session description.
pub fn attribute<'a>(description: &'a str, name: &str) -> &'a str {
    let start = format!("a={name}:");
    let line = description.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {name} in {description}"))
}

/// The server's media address, from a description with candidates.
pub fn media_address(description: &str) -> SocketAddr {
    let words: Vec<_> = attribute(description, "candidate").split(' ').collect();
    SocketAddr::new(words[4].parse().expect("an address"), words[5].parse().expect("a port"))
}
