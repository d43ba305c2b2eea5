//! An association that has nothing to do any more, in a few hundred bytes.
//!
//! Once the keys for SRTP are exported, and where no data channels are carried, DTLS only waits for the
//! end of the call, and the library keeps more than ten kilobytes for it: all messages of the handshake,
//! flights, configuration, ciphers. What is left here is what the library needs to go on: secrets and
//! numbers. It is made anew for each record that may end the call, and for our own goodbye.
//!
//! The peer repeats its last flight when ours was lost (RFC 6347 §4.2.4). That flight is kept as it was,
//! for the peer has not seen its numbers, and is sent again without looking into what asks for it: only
//! to an address of the peer, only a few times, and it is shorter than the flight that asks.
//!
//! Left out: the window against replays. What could be replayed is what ended the association.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rtc::dtls::config::HandshakeConfig;
use rtc::dtls::endpoint::Endpoint;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;

use super::PEER;
use crate::transport::certificate::Certificate;

/// How often the last flight is sent again.
const REPETITIONS: u8 = 7;
/// What the library's form of its state has to be aligned to.
const ALIGNMENT: usize = 16;

pub(super) struct Asleep {
    state: Box<[u8]>,
    /// Our last flight, if the peer may still wait for it.
    flight: Box<[BytesMut]>,
    repeated: u8,
}

impl Asleep {
    /// What is left of an association that is complete; `None` if the library cannot tell.
    pub(super) fn of(endpoint: &Endpoint, flight: &[BytesMut]) -> Option<Self> {
        let state = endpoint.get_connection_state(PEER)?.marshal_binary().ok()?;
        // A copy of its own: the datagram may lie in a larger buffer.
        let flight = flight.iter().map(|datagram| BytesMut::from(&datagram[..])).collect();
        Some(Self { state: state.into(), flight, repeated: 0 })
    }

    /// The same after it was awake for a while.
    pub(super) fn renewed(self, endpoint: &Endpoint) -> Option<Self> {
        let state = endpoint.get_connection_state(PEER)?.marshal_binary().ok()?;
        Some(Self { state: state.into(), ..self })
    }

    /// The association as it was.
    pub(super) fn wake(
        &self,
        now: Instant,
        certificate: &Certificate,
        config: Arc<HandshakeConfig>,
    ) -> Option<Endpoint> {
        let mut room = vec![0; self.state.len() + ALIGNMENT];
        let at = room.as_ptr().align_offset(ALIGNMENT);
        let aligned = room.get_mut(at..at + self.state.len())?;
        aligned.copy_from_slice(&self.state);
        // Who was client is part of the state.
        let mut state = State::new(certificate.provider.clone(), true);
        state.unmarshal_binary(aligned).ok()?;
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        endpoint.connect(now, PEER, config, Some(state)).ok()?;
        Some(endpoint)
    }

    /// Our last flight once more; empty if the peer needs none, or asked too often.
    pub(super) fn repeat(&mut self) -> &[BytesMut] {
        self.repeated = self.repeated.saturating_add(1);
        if self.repeated > REPETITIONS { &[] } else { &self.flight }
    }
}
