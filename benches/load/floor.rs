//! What a packet takes on this machine without a server: sealed with AES-GCM (RFC 7714) and given to the
//! system in runs, by a loop that does nothing else. Machines differ, and one that others use as well is not
//! equally fast at all times; this is a hint of how fast it was, and no calibration.

use rivero::clock::Clock;
use rivero::transport::srtp::{Profile, Sender};
use rivero::transport::udp::{RecvBatch, SEND_BATCH, SendBatch, UdpSocket};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// Packets of a picture, which leave for one viewer together.
const RUN: usize = 8;
const VIEWERS: usize = SEND_BATCH / RUN;
const HEADER: usize = 28;
const PAYLOAD: usize = 1_000;
/// Enough for a median that others of the machine do not disturb, in less than a tenth of a second.
const ROUNDS: usize = 301;

/// Microseconds for each packet.
///
/// # Errors
/// What the sockets say, or that not all of it could be sealed and sent.
pub fn microseconds_per_packet(clock: &Clock) -> io::Result<f64> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let ours = UdpSocket::bind(any)?;
    let viewers = (0..VIEWERS).map(|_| UdpSocket::bind(any)).collect::<io::Result<Vec<_>>>()?;
    let (mut batch, mut received) = (SendBatch::new(), RecvBatch::new());
    let mut senders = (0..VIEWERS as u8).map(sender).collect::<io::Result<Vec<_>>>()?;
    let payload = [0xab; PAYLOAD];
    let mut taken = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS as u64 {
        let began = clock.now();
        for (sender, viewer) in senders.iter_mut().zip(&viewers) {
            for number in 0..RUN as u64 {
                let index = round * RUN as u64 + number;
                let sealed = sender.seal_rtp(&header(index), &payload, index, batch.slot());
                batch.commit(sealed.map_err(io::Error::other)?, viewer.local_addr());
            }
        }
        let sent = batch.flush(&ours).sent;
        if sent < VIEWERS * RUN {
            return Err(io::Error::other("the system did not take all datagrams"));
        }
        taken.push(clock.now().saturating_duration_since(began));
        for viewer in &viewers {
            while viewer.recv_batch(&mut received)? > 0 {}
        }
    }
    taken.sort_unstable();
    Ok(taken[ROUNDS / 2].as_secs_f64() * 1e6 / (VIEWERS * RUN) as f64)
}

fn sender(number: u8) -> io::Result<Sender> {
    let profile = Profile::AeadAes128Gcm;
    Sender::new(profile, &[number; 16], &[number; 12]).map_err(io::Error::other)
}

/// With room for the extensions that a browser negotiates.
fn header(index: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&[0x90, 96]);
    header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
    // An extension of three words.
    header[12..16].copy_from_slice(&[0xbe, 0xde, 0, 3]);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_can_be_sealed() {
        let mut slot = [0; HEADER + PAYLOAD + 16];
        for mut one in (0..VIEWERS as u8).map(|number| sender(number).expect("a key")) {
            let sealed = one.seal_rtp(&header(70_000), &[0xab; PAYLOAD], 70_000, &mut slot);
            assert_eq!(sealed, Ok(slot.len()));
        }
        let time = microseconds_per_packet(&Clock::start()).expect("sockets work");
        assert!(time > 0.0 && time.is_finite());
    }
}
