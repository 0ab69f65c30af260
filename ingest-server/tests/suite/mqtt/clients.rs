//! A client that nobody here wrote.

use serde_json::json;

use super::Setup;

#[test]
fn rumqttc_of_version_3_1_1_publishes_and_is_sent_commands() {
    use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
    let setup = Setup::start();
    let mut options = MqttOptions::new("pi-7", setup.mqtt.ip().to_string(), setup.mqtt.port());
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = Client::new(options, 16);
    client.subscribe("eden/v1/pi-7/cmd/#", QoS::AtLeastOnce).unwrap();
    for (qos, i) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1), (QoS::ExactlyOnce, 2)] {
        client.publish("lp/x", qos, false, format!("m,i=i{i} v=1 1000")).unwrap();
    }
    client.publish("eden/v1/pi-7/cmd/self", QoS::AtLeastOnce, false, "go").unwrap();
    let (mut acks, mut completes, mut commands) = (0, 0, 0);
    for event in connection.iter() {
        match event.unwrap() {
            Event::Incoming(Packet::PubAck(_)) => acks += 1,
            Event::Incoming(Packet::PubComp(_)) => completes += 1,
            Event::Incoming(Packet::Publish(publish)) => {
                assert_eq!((&*publish.topic, &publish.payload[..]), ("eden/v1/pi-7/cmd/self", &b"go"[..]));
                commands += 1;
            }
            _ => {}
        }
        if (acks, completes, commands) == (2, 1, 1) {
            break;
        }
    }
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[3]]));
}

#[test]
fn rumqttc_of_version_5_publishes_as_much_as_receive_maximum_allows() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
    let setup = Setup::start();
    let options = MqttOptions::new("c", setup.mqtt.ip().to_string(), setup.mqtt.port());
    let (client, mut connection) = Client::new(options, 16);
    let publishing = std::thread::spawn(move || {
        for i in 0..1_000 {
            client.publish("lp/x", QoS::AtLeastOnce, false, format!("m,i=i{i} v=1 1000")).unwrap();
        }
        client
    });
    let acks =
        connection.iter().filter(|event| matches!(event.as_ref().unwrap(), Event::Incoming(Incoming::PubAck(_))));
    assert_eq!(acks.take(1_000).count(), 1_000);
    publishing.join().unwrap();
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[1_000]]));
}
