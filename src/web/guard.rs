//! Who may come in: tokens, origins, and how many from one address.
//!
//! A token comes as `Authorization: Bearer` (RFC 6750 §2.1) or, since browsers cannot send that with
//! a WebSocket, as `access_token` or `token` in the query.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use hyper::header::{self, HeaderMap};

use crate::config::{Config, Origins, Secret};

/// The settings of the door, as they are now.
#[derive(Debug)]
pub struct Rules(RwLock<Arc<Config>>);

impl Rules {
    pub fn new(config: Config) -> Self {
        Self(RwLock::new(Arc::new(config)))
    }

    /// For a connection, or a request: what it began with holds for it.
    pub fn get(&self) -> Arc<Config> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, config: Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// Whether a request says the token, if one is asked for.
pub fn knows_token(token: Option<&Secret>, headers: &HeaderMap, query: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, said) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| said.trim().as_bytes().to_vec())
    });
    let queried = query.unwrap_or_default().split('&').filter_map(|pair| {
        let (name, said) = pair.split_once('=')?;
        ["access_token", "token"].contains(&name).then(|| decoded(said))
    });
    bearer.chain(queried).any(|said| same(token.expose().as_bytes(), &said))
}

/// Compares in a time that tells nothing of where two texts differ, nor of their lengths.
fn same(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (digest(&SHA256, one), digest(&SHA256, other));
    verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

/// With `%41` turned into `A` (RFC 3986 §2.1); what is no such escape stays.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// Whether the page that a browser names may connect.
pub fn welcomes(origins: &Origins, headers: &HeaderMap) -> bool {
    let Origins::Only(list) = origins else { return true };
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        list.iter().any(|known| known.eq_ignore_ascii_case(origin))
    })
}

/// How many connections each address has, or each /64 of IPv6. As many entries as there are connections.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// A place in the crowd, until it is dropped.
#[derive(Debug)]
pub struct Member {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    /// None when the address has `limit` already.
    pub fn join(self: &Arc<Self>, address: IpAddr, limit: Option<usize>) -> Option<Member> {
        let address = household(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        // A fresh entry of 0 cannot stay: no limit is below 1.
        if limit.is_some_and(|limit| *count >= limit.max(1)) {
            return None;
        }
        *count += 1;
        Some(Member { crowd: self.clone(), address })
    }
}

/// The same for all addresses that one peer can have: whoever has one of IPv6 has, as a rule, all
/// with its first 64 bits (RFC 6177 §2).
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(list: &[(HeaderName, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_token_is_heard_in_the_header_and_in_the_query() {
        let token = Secret::new("k+y=1");
        let none = headers(&[]);
        let says = |headers: &HeaderMap, query| knows_token(Some(&token), headers, query);
        assert!(says(&headers(&[(header::AUTHORIZATION, "bearer k+y=1")]), None));
        assert!(says(&none, Some("x=1&access_token=k+y=1")));
        assert!(says(&none, Some("token=k%2By%3D1")));
        for query in [
            None,
            Some(""),
            Some("token"),
            Some("token=k"),
            Some("token=k+y=12"),
            Some("a_token=k+y=1"),
        ] {
            assert!(!says(&none, query), "{query:?}");
        }
        assert!(!says(&headers(&[(header::AUTHORIZATION, "Basic k+y=1")]), None));
        assert!(knows_token(None, &none, None));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decoded("%zz%4%41%"), b"%zz%4A%");
    }

    #[test]
    fn only_pages_of_the_list_come_in_and_whoever_is_no_browser() {
        let only = Origins::Only(vec!["https://a.example".to_owned()]);
        assert!(welcomes(&only, &headers(&[])));
        assert!(welcomes(&only, &headers(&[(header::ORIGIN, "https://A.example")])));
        assert!(!welcomes(&only, &headers(&[(header::ORIGIN, "https://a.example.evil")])));
        assert!(!welcomes(&only, &headers(&[(header::ORIGIN, "null")])));
        assert!(welcomes(&Origins::Any, &headers(&[(header::ORIGIN, "null")])));
    }

    #[test]
    fn an_address_has_as_many_places_as_it_is_given_and_gets_them_back() {
        let crowd = Arc::new(Crowd::default());
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = crowd.join(address("1.2.3.4"), Some(2)).expect("free");
        let _second = crowd.join(address("::ffff:1.2.3.4"), Some(2)).expect("free");
        assert!(crowd.join(address("1.2.3.4"), Some(2)).is_none());
        let other = crowd.join(address("1.2.3.5"), Some(2)).expect("another address");
        let _six = crowd.join(address("2001:db8::1"), Some(1)).expect("another family");
        assert!(crowd.join(address("2001:db8::ffff:0:0:1"), Some(1)).is_none());
        drop(crowd.join(address("2001:db8:0:1::1"), Some(1)).expect("another network"));
        drop((first, other));
        assert!(crowd.join(address("1.2.3.4"), Some(2)).is_some());
        assert_eq!(crowd.0.lock().expect("nobody panicked").len(), 2);
    }
}
