use tests::{scenario, settings};

/// P1; `EDEN_SEEDS=500` for the long run.
#[test]
fn acknowledged_readings_survive_kills_at_random_moments() {
    let report = scenario::kills(settings::seed(), settings::rounds(30), |_| {});
    println!("{report}");
}
