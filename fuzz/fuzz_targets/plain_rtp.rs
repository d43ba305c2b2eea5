//! A way of plain RTP survives whatever arrives at its two ports, from its peer and from strangers, in
//! the clear and sealed, and sends to nobody but whom it may.
#![no_main]

use std::net::SocketAddr;
use std::time::Instant;

use rivero::transport::plain::{Key, Remote, Session};
use rivero::transport::ports::Pair;
use rivero::transport::srtp::Profile;
use rivero_fuzz::datagrams;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
    let peer = |port: u16| SocketAddr::from(([192, 0, 2, 9], port));
    let pair = Pair { rtp: at(5_000), rtcp: at(5_001) };
    let profile = Profile::Aes128CmHmacSha1_32;
    let key = || Key { profile, material: vec![7; 30], lifetime: Some(20) };
    let learns = choice & 1 != 0;
    let remote = Remote {
        awaited: None,
        address: Some(peer(0).ip()),
        rtp: Some(peer(7_000)),
        rtcp: Some(peer(7_001)),
        learns,
        keys: (choice & 2 != 0).then(|| (key(), key())),
        formats: vec![0, 96],
    };
    let mut session = Session::new(pair);
    session.start(remote).expect("keys of the right length");
    let now = Instant::now();
    for (number, datagram) in datagrams(rest).enumerate() {
        let local = if number % 2 == 0 { pair.rtp } else { pair.rtcp };
        let from = if number % 5 == 4 { at(9) } else { peer(40_000 + number as u16 / 16) };
        session.handle_datagram(now, local, from, &mut datagram.to_vec());
        while session.poll_event().is_some() {}
        for to in [session.rtp_path(), session.rtcp_path()].into_iter().flatten() {
            assert_eq!(to.1.ip(), peer(0).ip());
            assert!(learns || to.1.port() < 8_000);
        }
    }
});
