// Publishes readings with MQTT.js and says which of them were acknowledged.
//
// Usage: publish_mqttjs.js HOST PORT CLIENT_ID 3.1|3.1.1|5 QOS FILE
//
// Each line of FILE is one message; `\n` in it stands for a line feed. Prints `version NAME VERSION`, then `acked N` for
// each message, N counted from 0, as its acknowledgement comes (at QoS 0: as it was sent). Knows nothing of Eden.

"use strict";

const fs = require("fs");
const mqtt = require("mqtt");

const PROTOCOLS = {
  "3.1": { protocolId: "MQIsdp", protocolVersion: 3 },
  "3.1.1": { protocolId: "MQTT", protocolVersion: 4 },
  5: { protocolId: "MQTT", protocolVersion: 5 },
};
const PATIENCE_MS = 60_000;

const [host, port, clientId, version, qos, file] = process.argv.slice(2);
console.log("version MQTT.js", require("mqtt/package.json").version);
const text = fs.readFileSync(file, "utf8").replace(/\n$/, "");
const messages = text.split("\n").map((line) => line.replaceAll("\\n", "\n"));

function fail(why) {
  console.error(String(why));
  process.exit(1);
}

setTimeout(() => fail("not all messages were acknowledged in time"), PATIENCE_MS).unref();
const client = mqtt.connect({ host, port: Number(port), clientId, reconnectPeriod: 0, ...PROTOCOLS[version] });
client.on("error", fail);
client.on("connect", () => {
  let open = messages.length;
  messages.forEach((message, number) => {
    client.publish(`eden/v1/${clientId}/lp`, message, { qos: Number(qos) }, (error, packet) => {
      // In MQTT 5 an acknowledgement may be a refusal.
      if (error) fail(error);
      if (packet && packet.reasonCode >= 0x80) fail(`refused: ${packet.reasonCode}`);
      console.log("acked", number);
      open -= 1;
      if (open === 0) client.end(false, {}, () => process.exit(0));
    });
  });
});
