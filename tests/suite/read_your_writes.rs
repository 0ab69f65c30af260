use tests::scenario;

/// P6; `cargo xtask soak read-your-writes` runs 100 000 pairs.
#[test]
fn a_query_after_an_ack_sees_the_reading() {
    scenario::read_your_writes(2_000);
}
