use super::*;

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed, and any will do")]
    Instant::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn kbps(kbps: u64) -> Option<Bitrate> {
    Some(Bitrate::from_kbps(kbps))
}

fn target(bandwidth: &Bandwidth) -> (u64, Limit) {
    let estimate = bandwidth.estimate();
    (estimate.target.kbps(), estimate.reason)
}

#[test]
fn bounds_hold_at_once_and_the_maximum_wins() {
    let now = start();
    let bounds = Bounds { start: kbps(800), ..Bounds::default() };
    let mut bandwidth = Bandwidth::new(now, Means::TransportWide, bounds);
    assert_eq!(target(&bandwidth), (800, Limit::Start));
    bandwidth.set_bounds(now, Bounds { max: kbps(500), ..bounds });
    assert_eq!(target(&bandwidth), (500, Limit::Maximum));
    bandwidth.set_bounds(now, Bounds { min: kbps(900), ..bounds });
    assert_eq!(target(&bandwidth), (900, Limit::Minimum));
    bandwidth.set_bounds(now, Bounds { min: kbps(900), max: kbps(500), ..bounds });
    assert_eq!(target(&bandwidth), (500, Limit::Maximum));
    bandwidth.set_bounds(now, bounds);
    assert_eq!(target(&bandwidth), (800, Limit::Start));
}

#[test]
fn a_remb_holds_for_ten_seconds_and_within_the_bounds() {
    let now = start();
    let bounds = Bounds { min: kbps(100), max: kbps(2_000), start: None };
    let mut bandwidth = Bandwidth::new(now, Means::Remb, bounds);
    assert_eq!(target(&bandwidth), (300, Limit::Start));
    bandwidth.handle_remb(now, Bitrate::from_kbps(700));
    assert_eq!(target(&bandwidth), (700, Limit::Remb));
    bandwidth.handle_remb(now, Bitrate::from_bps(0));
    assert_eq!(target(&bandwidth), (100, Limit::Minimum));
    bandwidth.handle_remb(now, Bitrate::from_bps(1 << 63));
    assert_eq!(target(&bandwidth), (2_000, Limit::Maximum));
    bandwidth.handle_remb(now, Bitrate::from_kbps(700));
    bandwidth.handle_timeout(now + ms(9_900));
    assert_eq!(target(&bandwidth), (700, Limit::Remb));
    let due = bandwidth.poll_timeout(now + ms(9_900)).expect("the end of the REMB");
    bandwidth.handle_timeout(due);
    assert_eq!(
        target(&bandwidth),
        (2_000, Limit::Maximum),
        "a receiver that is silent limits nothing"
    );
}

#[test]
fn a_remb_bounds_what_feedback_allows() {
    let now = start();
    let mut bandwidth = Bandwidth::new(now, Means::TransportWide, Bounds::default());
    bandwidth.sent(now, 1, 1_200);
    let fate = Fate { seq: 1, size: 1_200, sent_at: now, received_at: Some(ms(5)) };
    bandwidth.handle_feedback(now + ms(50), [fate]);
    bandwidth.handle_remb(now + ms(50), Bitrate::from_kbps(200));
    assert_eq!(target(&bandwidth), (200, Limit::Remb));
    assert_eq!(bandwidth.round_trip(), Some(ms(50)));
}

#[test]
fn reports_of_a_share_that_is_always_lost_limit_nothing() {
    let now = start();
    let mut bandwidth = Bandwidth::new(now, Means::Reports, Bounds::default());
    for second in 0..60 {
        // 1 to 1.6 Mbit/s, of which a tenth is lost.
        for packet in 0..100 + second % 4 * 20 {
            bandwidth.sent(now + ms(second * 1_000 + packet * 5), 0, 1_250);
        }
        bandwidth.handle_report(now + ms(second * 1_000 + 999), 26, Some(ms(100)));
    }
    assert!(target(&bandwidth).0 > 1_600, "{:?}", bandwidth.estimate());
    assert_eq!(bandwidth.round_trip(), Some(ms(100)));
}

#[test]
fn a_peer_that_agreed_to_report_and_does_not_is_waited_for_and_then_not_limited() {
    for means in [Means::TransportWide, Means::Remb, Means::Reports] {
        let now = start();
        let mut bandwidth = Bandwidth::new(now, means, Bounds::default());
        bandwidth.handle_timeout(now + ms(60_000));
        assert_eq!(target(&bandwidth), (300, Limit::Start), "nothing was sent yet");
        let first = now + ms(60_000);
        bandwidth.sent(first, 1, 1_200);
        let due = bandwidth.poll_timeout(first).expect("the end of the start");
        bandwidth.handle_timeout(due - ms(1));
        assert_eq!(target(&bandwidth).1, Limit::Start);
        bandwidth.handle_timeout(due);
        assert_eq!(target(&bandwidth), (10_000_000, Limit::Nothing));
        assert_eq!(due, first + ms(10_000));
    }
}

#[test]
fn feedback_on_what_was_never_sent_is_refused_and_counted() {
    let now = start();
    let mut bandwidth = Bandwidth::new(now, Means::TransportWide, Bounds::default());
    bandwidth.sent(now, 7, 1_200);
    let fate = |seq, sent_at| Fate { seq, size: 1_200, sent_at, received_at: Some(ms(5)) };
    bandwidth.handle_feedback(now, [fate(8, now), fate(7, now + ms(1))]);
    assert_eq!(bandwidth.counts().refused, 2);
    assert_eq!(target(&bandwidth), (300, Limit::Start));
}

#[test]
fn a_receiver_that_falls_silent_gets_less_step_by_step() {
    let now = start();
    let mut bandwidth = Bandwidth::new(now, Means::TransportWide, Bounds::default());
    bandwidth.sent(now, 1, 1_200);
    let fate = Fate { seq: 1, size: 1_200, sent_at: now, received_at: Some(ms(5)) };
    bandwidth.handle_feedback(now + ms(50), [fate]);
    assert_eq!(bandwidth.poll_timeout(now + ms(60)), None, "nothing is unanswered");
    bandwidth.sent(now + ms(100), 2, 1_200);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let due = bandwidth.poll_timeout(now + ms(100)).expect("a time to slow down");
        bandwidth.handle_timeout(due);
        seen.push(target(&bandwidth));
    }
    assert_eq!(seen, [(240, Limit::Silence), (192, Limit::Silence), (153, Limit::Silence)]);
}

#[test]
fn reasons_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> =
        Limit::ALL.iter().map(|limit| limit.as_str()).collect();
    assert_eq!(names.len(), Limit::ALL.len());
}
