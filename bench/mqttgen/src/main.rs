//! Load over MQTT.

fn main() {}
