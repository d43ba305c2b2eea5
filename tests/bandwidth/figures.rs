use super::flow::{Flow, Receiver, Simulation, Source};
use super::link::{Conditions, MS, SECOND};

const M: f64 = 1e6;

fn steps() -> Conditions {
    Conditions::rate(4.0 * M).then(20 * SECOND, M).then(40 * SECOND, 4.0 * M)
}

fn one(seed: u64, conditions: Conditions, source: Source, seconds: i64) -> Flow {
    Simulation::new(seed, conditions).flow(source).run(seconds * SECOND).flows.remove(0)
}

fn ratio(conditions: Conditions, source: Source, seed: u64) -> (f64, f64) {
    let both = Simulation::new(seed, conditions)
        .flow(source.clone())
        .flow(source)
        .later(10 * SECOND)
        .run(90 * SECOND);
    let rate = |flow: &Flow| flow.mean(30 * SECOND, 90 * SECOND, |sample| sample.arrived);
    (rate(&both.flows[0]), rate(&both.flows[1]))
}

#[test]
fn explore() {
    let which = std::env::var("SIM").unwrap_or_default();
    let flow = match which.as_str() {
        "steps" => one(1, steps(), Source::Follows { most: 5.0 * M }, 60),
        "layers" => one(1, steps(), Source::Layers(vec![0.15 * M, 0.5 * M, 2.5 * M]), 60),
        "start" => one(1, Conditions::rate(1000.0 * M), Source::Follows { most: 2.5 * M }, 10),
        "loss10" => one(1, Conditions { loss_per_mille: 100, ..Conditions::rate(100.0 * M) }, Source::Follows { most: 2.5 * M }, 30),
        "fair" => { let mut s = Simulation::new(1, Conditions::rate(4.0*M)).flow(Source::Follows { most: 5.0 * M }).flow(Source::Follows { most: 5.0 * M }).later(10*SECOND).run(90*SECOND); println!("{}", s.flows[0].table()); s.flows.remove(1) }
        "late" => Simulation::new(1, steps()).flow_to(Source::Follows { most: 5.0 * M }, Receiver { late_by: 300 * MS, ..Receiver::default() }, Default::default()).run(60*SECOND).flows.remove(0),
        "half" => Simulation::new(1, steps()).flow_to(Source::Follows { most: 5.0 * M }, Receiver { feedback_lost_per_mille: 500, ..Receiver::default() }, Default::default()).run(60*SECOND).flows.remove(0),
        "lay" => one(2, Conditions { jitter: 10 * MS, ..steps() }, Source::Layers(vec![0.15 * M, 0.5 * M, 1.2*M, 3.3 * M]), 60),
        "lay4" => one(4, Conditions { queue: 100*MS, jitter: 10 * MS, ..steps() }, Source::Layers(vec![0.15 * M, 0.5 * M, 1.2*M, 3.3 * M]), 60),
        "ratios" => {
            for seed in 1..9 {
                println!("probe 4M {:?} 1M {:?} 10M {:?}", ratio(Conditions::rate(4.0*M), Source::Follows { most: 5.0 * M }, seed), ratio(Conditions::rate(1.0*M), Source::Follows { most: 2.5 * M }, seed),ratio(Conditions::rate(10.0*M), Source::Follows { most: 15.0 * M }, seed));
            }
            return;
        }
        "figs" => {
            for seed in 1..6 { for queue in [50, 400, 1000] { for (n, source) in [Source::Follows { most: 5.0 * M }, Source::Layers(vec![0.15 * M, 0.5 * M, 1.2*M, 3.3 * M])].into_iter().enumerate() { for jitter in [0, 10] {
                let f = one(seed, Conditions { queue: queue * MS, jitter: jitter * MS, ..steps() }, source.clone(), 60);
                println!("probe seed {seed} queue {queue} source {n} jitter {jitter}: below {:?} short {:?} rise {:?} mean20 {:.0} mean40 {:.0}", f.first(20*SECOND, |s| s.target < M), f.first(20*SECOND+200*MS, |s| s.queue < 100*MS), f.first(40*SECOND, |s| s.target >= 3.2*M), f.mean(25*SECOND, 40*SECOND, |s| s.arrived)/1e3, f.mean(5*SECOND, 20*SECOND, |s| s.arrived)/1e3);
            } } } }
            return;
        }
        _ => return,
    };
    println!("{}\nprobe bytes {} {:?} dropped {}", flow.table(), flow.probe_bytes, flow.bandwidth.counts(), flow.dropped);
}
