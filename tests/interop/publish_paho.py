"""Publishes readings with paho-mqtt and says which of them were acknowledged.

Usage: publish_paho.py HOST PORT CLIENT_ID 3.1|3.1.1|5 QOS FILE

Each line of FILE is one message; `\\n` in it stands for a line feed. Prints `version NAME VERSION`, then `acked N` for
each message, N counted from 0, as its acknowledgement comes (at QoS 0: as it was sent). Knows nothing of Eden.
"""

import importlib.metadata
import sys
import threading

from paho.mqtt import client as mqtt

PROTOCOLS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
PATIENCE_S = 60


def main(host, port, client_id, version, qos, file):
    print("version paho-mqtt", importlib.metadata.version("paho-mqtt"))
    with open(file, encoding="utf-8") as lines:
        messages = [line.rstrip("\n").replace("\\n", "\n") for line in lines]
    connected, all_done, lock = threading.Event(), threading.Event(), threading.Lock()
    numbers, early, acked = {}, [], 0

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=PROTOCOLS[version])
    client.max_inflight_messages_set(50)

    def on_connect(_client, _data, _flags, reason, _properties):
        if reason.is_failure:
            print("refused:", reason, file=sys.stderr)
            sys.exit(1)
        connected.set()

    def say(mid):
        nonlocal acked
        print("acked", numbers[mid])
        acked += 1
        if acked == len(messages):
            all_done.set()

    def on_publish(_client, _data, mid, reason, _properties):
        # In MQTT 5 an acknowledgement may be a refusal.
        if reason is not None and reason.is_failure:
            print("refused:", reason, file=sys.stderr)
            return
        with lock:
            say(mid) if mid in numbers else early.append(mid)

    client.on_connect, client.on_publish = on_connect, on_publish
    client.connect(host, int(port))
    client.loop_start()
    if not connected.wait(PATIENCE_S):
        sys.exit("no CONNACK")
    for number, message in enumerate(messages):
        mid = client.publish(f"eden/v1/{client_id}/lp", message, qos=int(qos)).mid
        with lock:
            numbers[mid] = number
            if mid in early:
                early.remove(mid)
                say(mid)
    if not all_done.wait(PATIENCE_S):
        sys.exit(f"{acked} of {len(messages)} messages were acknowledged")
    client.disconnect()
    client.loop_stop()


main(*sys.argv[1:])
