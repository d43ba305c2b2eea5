//! ICE restarts between two sessions: what becomes of the call meanwhile.

use super::*;
use crate::transport::ice::Credentials;
use crate::transport::stun;

impl Net {
    /// One side's new credentials and its candidates reach the other with an offer; the answer comes
    /// back after `delay`. Media goes on meanwhile if `talking`.
    fn restart(&mut self, offerer: usize, delay: Duration, talk: &mut Talk) {
        let answerer = 1 - offerer;
        let credentials = [(); 2].map(|()| Credentials::generate().expect("randomness"));
        let line = |side: &Side| {
            let (ip, port) = (side.shown.ip(), side.shown.port());
            format!("candidate:1 1 udp 2113937151 {ip} {port} typ host")
        };
        for (side, other, wait) in [(answerer, offerer, delay), (offerer, answerer, delay)] {
            let (ours, theirs) = (credentials[side].clone(), &credentials[other]);
            let line = line(&self.sides[other]);
            let session = &mut self.sides[side].session;
            session.restart(self.now, ours.clone(), &theirs.ufrag, &theirs.pwd).expect("open");
            let line = format!("{line} ufrag {}", theirs.ufrag);
            session.add_remote_candidate(self.now, &line).expect("is of this generation");
            assert_eq!((session.ufrag(), session.pwd()), (&ours.ufrag[..], &ours.pwd[..]));
            if side == answerer {
                self.talk(wait, talk);
            }
        }
    }

    /// Runs for a while, with a packet from each side every 20 ms.
    fn talk(&mut self, time: Duration, talk: &mut Talk) {
        let end = self.now + time;
        while self.now < end {
            for from in 0..2 {
                let sequence = (talk.sent[from] as u16).to_be_bytes();
                let mut header = HEADER;
                header[2..4].copy_from_slice(&sequence);
                if self.sides[from].session.selected().is_none() {
                    talk.silent += 1;
                    continue;
                }
                self.send_media(from, &header, talk.sent[from]);
                talk.sent[from] += 1;
            }
            let step = Duration::from_millis(20).min(end - self.now);
            self.run_until(step, |_| false);
        }
    }

    fn selected_events(&self, side: usize) -> usize {
        let selected = |event: &&Event| matches!(event, Event::SelectedPair { .. });
        self.sides[side].events.iter().filter(selected).count()
    }

    fn states(&self, side: usize) -> Vec<IceState> {
        let events = self.sides[side].events.iter();
        events
            .filter_map(|event| if let Event::Ice(state) = event { Some(*state) } else { None })
            .collect()
    }
}

#[derive(Default)]
struct Talk {
    /// Packets that each side sent.
    sent: [u64; 2],
    /// How often a side had no pair to send over.
    silent: usize,
}

const SECOND: Duration = Duration::from_secs(1);

/// A call that was connected before, whose events of that are forgotten.
fn call(call: &Call) -> Net {
    let mut net = Net::connect(call);
    net.run_until(Duration::from_millis(300), |_| false);
    net.sides.iter_mut().for_each(|side| side.events.clear());
    net
}

#[test]
fn media_goes_on_through_restarts_as_long_as_the_old_way_lives() {
    for seed in 1..=24_u64 {
        let (offerer, controlling) = (seed as usize % 2, seed as usize / 2 % 2);
        let mut net = call(&Call { controlling, seed, ..CALL });
        let mut talk = Talk::default();
        let before = net.sides.each_ref().map(|side| side.session.ufrag().to_owned());
        let is_check = |flight: &(Instant, usize, SocketAddr, Vec<u8>)| {
            flight.1 == 0 && flight.3.starts_with(&[0, 1])
        };
        net.run_until(5 * SECOND, |net| net.flying.iter().any(is_check));
        let old_check = net.flying.iter().find(|flight| is_check(flight)).expect("flies").3.clone();
        // The answer may take longer than the patience with a way that nothing works over.
        let delay = Duration::from_millis(seed.pow(3) * 3);
        net.restart(offerer, delay, &mut talk);
        net.talk(4 * SECOND, &mut talk);
        for (side, before) in before.iter().enumerate() {
            assert_ne!(net.sides[side].session.ufrag(), before);
            assert_eq!(net.selected_events(side), 1, "seed {seed}, side {side}");
            assert_eq!(net.states(side), [], "seed {seed}: nothing was lost, so nothing is told");
            assert_eq!(net.sides[side].session.ice_state(), IceState::Ready);
        }
        net.run_until(SECOND, |_| false);
        assert_eq!(talk.silent, 0);
        for from in 0..2 {
            let received = net.sides[1 - from].received.len() as u64;
            assert_eq!(received, talk.sent[from], "seed {seed}: each packet arrived");
        }
        // The old credentials are of no use any more, and the new ones keep the consent.
        net.talk(40 * SECOND, &mut talk);
        assert!(net.states(0).is_empty() && net.states(1).is_empty());
        let from = net.sides[1].shown;
        net.sides[0].dropped.clear();
        net.deliver(0, from, old_check);
        assert_eq!(net.sides[0].dropped, [DropReason::StunUsername]);
    }
}

#[test]
fn a_restart_gets_through_loss() {
    for seed in 1..=20 {
        let mut net = call(&Call { seed, controlling: seed as usize % 2, ..CALL });
        net.loss_per_mille = 250;
        let mut talk = Talk::default();
        net.restart(seed as usize / 2 % 2, Duration::from_millis(100), &mut talk);
        let done = |net: &Net| (0..2).all(|side| net.selected_events(side) == 1);
        assert!(net.run_until(5 * SECOND, done), "seed {seed}");
        net.talk(10 * SECOND, &mut talk);
        assert_eq!(talk.silent, 0);
        for from in 0..2 {
            let received = net.sides[1 - from].received.len() as u64;
            assert!(received * 10 > talk.sent[from] * 6, "{received} of {}", talk.sent[from]);
        }
    }
}

#[test]
fn a_restart_finds_the_way_when_the_old_one_is_dead() {
    use IceState::{Connected, Connecting, Disconnected, Failed, Ready};
    // Before the silence is noticed, after that, and when the peer is given up.
    for dead_for in [1, 8, 40] {
        for offerer in 0..2 {
            let mut net = call(&Call { controlling: 1 - offerer, ..CALL });
            // The address of before belongs to nobody any more.
            net.sides[0].shown = "10.0.0.3:7000".parse().expect("an address");
            net.loss_per_mille = 1_000;
            net.flying.clear();
            net.run_until(dead_for * SECOND, |_| false);
            net.loss_per_mille = 0;
            let mut talk = Talk::default();
            net.restart(offerer, Duration::from_millis(40), &mut talk);
            let done = |net: &Net| (0..2).all(|side| net.selected_events(side) == 1);
            assert!(net.run_until(2 * SECOND, done), "dead for {dead_for} s");
            let before = net.sides.each_ref().map(|side| side.received.len());
            net.talk(SECOND, &mut talk);
            net.run_until(SECOND, |_| false);
            for (side, before) in net.sides.iter().zip(before) {
                assert_eq!(side.session.ice_state(), Ready);
                assert_eq!(side.received.len() - before, 50);
            }
            let told = match dead_for {
                1 => vec![],
                8 => vec![Disconnected, Connected, Ready],
                _ => vec![Disconnected, Failed, Connecting, Connected, Ready],
            };
            assert_eq!(net.states(0), told);
        }
    }
}

#[test]
fn a_peer_that_moves_while_it_restarts_is_found() {
    for offerer in 0..2 {
        let mut net = call(&CALL);
        let mut talk = Talk::default();
        net.sides[offerer].shown = "10.0.0.3:7000".parse().expect("an address");
        // Nobody is told of the new address: only its checks tell.
        let hidden = net.sides[offerer].shown;
        let line_of = "10.0.0.9:9".parse().expect("an address");
        net.sides[offerer].shown = line_of;
        net.restart(offerer, Duration::ZERO, &mut talk);
        net.sides[offerer].shown = hidden;
        let done = |net: &Net| (0..2).all(|side| net.selected_events(side) == 1);
        assert!(net.run_until(2 * SECOND, done));
        let other = net.sides[1 - offerer].session.selected();
        assert_eq!(other.map(|pair| pair.1), Some(hidden));
        let before = net.sides.each_ref().map(|side| side.received.len());
        net.talk(SECOND, &mut talk);
        net.run_until(SECOND, |_| false);
        for (side, before) in net.sides.iter().zip(before) {
            assert_eq!(side.received.len() - before, 50);
        }
    }
}

#[test]
fn restarts_in_a_row_leave_the_last_one_in_use() {
    for between in [0, 10, 30, 60, 200, 2_000] {
        let mut net = call(&CALL);
        let mut talk = Talk::default();
        for number in 0..5 {
            net.restart(number % 2, Duration::from_millis(15), &mut talk);
            net.talk(Duration::from_millis(between), &mut talk);
        }
        net.talk(4 * SECOND, &mut talk);
        net.run_until(SECOND, |_| false);
        assert_eq!(talk.silent, 0);
        for from in 0..2 {
            assert_eq!(net.sides[1 - from].received.len() as u64, talk.sent[from], "{between}");
            assert!(net.selected_events(from) >= 1 && net.states(from).is_empty());
        }
    }
}

#[test]
fn a_restart_that_leads_nowhere_leaves_the_call_as_it_was() {
    let mut net = call(&CALL);
    let mut talk = Talk::default();
    // The other side never hears of it.
    let (ours, theirs) = [(); 2].map(|()| Credentials::generate().expect("randomness")).into();
    let now = net.now;
    let session = &mut net.sides[0].session;
    session.restart(now, ours, &theirs.ufrag, &theirs.pwd).expect("open");
    let line = format!("candidate:1 1 udp 9 10.0.0.77 9 typ host ufrag {}", theirs.ufrag);
    session.add_remote_candidate(now, &line).expect("is of this generation");
    net.talk(90 * SECOND, &mut talk);
    net.run_until(SECOND, |_| false);
    assert_eq!((talk.silent, net.states(0), net.states(1)), (0, vec![], vec![]));
    for from in 0..2 {
        assert_eq!(net.sides[1 - from].received.len() as u64, talk.sent[from]);
    }
    let before = net.sides[0].sent;
    net.run_until(20 * SECOND, |_| false);
    assert!(net.sides[0].sent - before <= 33, "and the search for it is over");
}

#[test]
fn candidates_are_of_their_generation() {
    let mut net = call(&CALL);
    let now = net.now;
    let old = net.sides[1].session.ufrag().to_owned();
    let session = &mut net.sides[0].session;
    let ours = Credentials::generate().expect("randomness");
    let line =
        |port: u16, more: &str| format!("candidate:1 1 udp 9 10.0.0.9 {port} typ host {more}");
    session.restart(now, ours.clone(), "newu", "password of the peer, new").expect("open");
    let mut add = |line: String| session.add_remote_candidate(now, &line);
    let refused = Err(TransportError::OldCandidate);
    assert_eq!(add(line(1, &format!("generation 0 ufrag {old}"))), refused);
    assert_eq!(add(line(2, "generation 0")), refused);
    assert_eq!(add(line(3, "generation 1")), Ok(()));
    assert_eq!(add(line(4, "")), Ok(()));
    assert_eq!(add(line(5, "generation 0 ufrag newu")), Ok(()));
    // It may be that of the next restart, of which we shall be told.
    assert_eq!(add(line(6, "ufrag soon")), Ok(()));
    let ports = |session: &Session| {
        let mut ports: Vec<_> =
            session.report().remotes.iter().map(|one| one.address.port()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(session), [3, 4, 5, 9_000], "and the way that is in use");
    session.restart(now, ours, "soon", "password of the peer, newest").expect("open");
    assert_eq!(ports(session), [6, 9_000]);
    for port in 100..300 {
        let _ = session.add_remote_candidate(now, &line(port, "ufrag late"));
    }
    assert_eq!(ports(session), [6, 9_000]);
}

#[test]
fn roles_are_kept_over_a_restart() {
    for (controlling, offerer) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut net = call(&Call { controlling, ..CALL });
        net.restart(offerer, Duration::from_millis(40), &mut Talk::default());
        let mut asked = [0; 2];
        for _ in 0..100 {
            net.run_until(Duration::from_millis(10), |_| false);
            let checks = net.flying.iter().filter(|flight| flight.3.starts_with(&[0, 1]));
            for (_, to, _, bytes) in checks {
                let controls = stun::attribute(bytes, stun::ICE_CONTROLLING).is_some();
                assert_eq!(controls, *to != controlling, "who controlled goes on to");
                asked[*to] += 1;
            }
        }
        assert!(asked[0] > 0 && asked[1] > 0);
        assert_eq!([0, 1].map(|side| net.selected_events(side)), [1; 2]);
    }
}
