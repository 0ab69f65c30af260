use tests::{scenario, settings};

/// P1; `cargo xtask soak mqtt-kills` runs 500 kills.
#[test]
fn acknowledged_publishes_survive_kills_and_broken_links() {
    let report = scenario::mqtt_kills(settings::seed(), settings::rounds(15), |_| {});
    println!("{report}");
}
