"""An edge node of Sparkplug B with one device, by pysparkplug, which does what it is told and says what it has said.

Usage: edge_node.py HOST PORT GROUP EDGE_NODE PRIMARY_HOST

Each line of standard input is an order, each is answered by one line of JSON:
    born               waits until it is born on its connection: {}
    data COUNT QOS     speaks by aliases alone, for itself and its device: the rows
    named COUNT        speaks by names: the rows
    lose               a message gets lost, of which the node knows nothing: {}
    rebirth            is born again as it was asked to, with other aliases: the rows
    gone               waits until its connection is broken, and takes other aliases for its next birth: {}
    kept               sends what it could not send, as historical: the rows
    asked              how often it was asked for a rebirth: {"asked": n}
    host               what its primary host has said of itself, to a client beside it: {"said": [{"online", "timestamp"}]}
A row is {"time_ms", "device", "fields", "message": {"topic", "bytes"}}, the message null if it could not be sent. When its input
ends, it dies without a word. Knows nothing of Eden.
"""

import dataclasses
import importlib.metadata
import itertools
import json
import os
import sys
import time

import paho.mqtt.client as paho
import pysparkplug as sparkplug
from pysparkplug import DataType, Message, MessageType, Metric, QoS, Topic

PATIENCE_S = 30
START_MS = 1_780_272_000_000
DEVICE = "press"
NODE_METRICS = {
    "temperature": (DataType.FLOAT, lambda n: round(20 + n / 10, 1)),
    "pressure": (DataType.DOUBLE, lambda n: 0.5 + n),
    "offset": (DataType.INT16, lambda n: -n),
    "parts": (DataType.INT64, lambda n: -(2**40) - n),
    "total": (DataType.UINT64, lambda n: 2**64 - 1 - n),
    "running": (DataType.BOOLEAN, lambda n: n % 2 == 0),
    "product": (DataType.STRING, lambda n: f"süß {n}"),
}
DEVICE_METRICS = {
    "force/x": (DataType.INT32, lambda n: -70_000 - n),
    "force/y": (DataType.UINT32, lambda n: 2**32 - 1 - n),
    "valve": (DataType.UINT8, lambda n: n % 256),
    "note": (DataType.TEXT, lambda n: f"\" {n}"),
}
ALL = NODE_METRICS | DEVICE_METRICS


class Wire(sparkplug.Client):
    """The library's client, on which a message can get lost, and which notes births."""

    def __init__(self, client_id):
        options = sparkplug.ClientOptions(reconnection_delay_min=1, reconnection_delay_max=1)
        super().__init__(client_id=client_id, client_options=options)
        self.loses, self.is_born, self.bd_seq = False, False, None

    def publish(self, message, *, include_dtypes=False):
        if self.loses:
            self.loses = False
            return
        super().publish(message, include_dtypes=include_dtypes)
        if message.topic.message_type == MessageType.NBIRTH:
            self.bd_seq = next(metric for metric in message.payload.metrics if metric.name == "bdSeq")
        self.is_born |= message.topic.message_type == MessageType.DBIRTH

    def is_connected(self):
        return self._client.is_connected()


class Node(sparkplug.EdgeNode):
    def __init__(self, group, name):
        self.n, self.shift, self.times_asked, self.kept = 0, 0, 0, []
        self.wire = Wire(f"edge-{name}")
        super().__init__(group, name, self.full(NODE_METRICS, 0), client=self.wire, cmd_callback=Node.is_told)
        self.register(sparkplug.Device(DEVICE, self.full(DEVICE_METRICS, 0)))

    def is_told(self, message):
        wanted = [metric for metric in message.payload.metrics if metric.name == "Node Control/Rebirth"]
        self.times_asked += sum(metric.value is True for metric in wanted)

    def alias(self, name):
        return (list(ALL).index(name) + self.shift) % len(ALL) + 1

    def full(self, metrics, n):
        return [
            Metric(timestamp=START_MS + n, name=name, datatype=kind, value=of(n), alias=self.alias(name))
            for name, (kind, of) in metrics.items()
        ]

    def say(self, kind, metrics, qos=QoS.AT_MOST_ONCE):
        device = DEVICE if kind.name.startswith("D") else None
        topic = Topic(message_type=kind, group_id=self.group_id, edge_node_id=self.edge_node_id, device_id=device)
        payload = kind.payload(timestamp=int(time.time() * 1000), seq=self._seq, metrics=tuple(metrics))
        self._client.publish(Message(topic=topic, payload=payload, qos=qos, retain=False))
        return {"topic": str(topic), "bytes": len(payload.encode())}

    def row(self, device, metrics, n, message):
        fields = {name: of(n) for name, (_, of) in metrics.items()}
        return {"time_ms": START_MS + n, "device": device, "fields": fields, "message": message}

    def data(self, count, qos):
        for _ in range(int(count)):
            self.n += 1
            for device, metrics, kind in (
                (None, NODE_METRICS, MessageType.NDATA),
                (DEVICE, DEVICE_METRICS, MessageType.DDATA),
            ):
                nameless = [dataclasses.replace(metric, name=None) for metric in self.full(metrics, self.n)]
                try:
                    message = self.say(kind, nameless, QoS(int(qos)))
                except sparkplug.MQTTError:
                    message = None
                    self.kept.append((kind, device, metrics, self.n))
                yield self.row(device, metrics, self.n, message)

    def named(self, count):
        for _ in range(int(count)):
            self.n += 1
            self.update(self.full(NODE_METRICS, self.n))
            yield self.row(None, NODE_METRICS, self.n, {})

    def lose(self):
        self.wire.loses = True
        self.say(MessageType.NDATA, [])
        return {}

    def rebirth(self):
        self.n += 1
        self.shift += 1
        # The library does so only when it connects.
        self._EdgeNode__seq_cycler = itertools.cycle(range(256))
        node, device = self.full(NODE_METRICS, self.n), self.full(DEVICE_METRICS, self.n)
        yield self.row(None, NODE_METRICS, self.n, self.say(MessageType.NBIRTH, [*node, self.wire.bd_seq]))
        yield self.row(DEVICE, DEVICE_METRICS, self.n, self.say(MessageType.DBIRTH, device))

    def gone(self):
        wait(lambda: not self.wire.is_connected(), "the connection stays")
        self.wire.is_born = False
        self.shift += 1
        self._metrics = {metric.name: metric for metric in self.full(NODE_METRICS, 0)}
        self.devices[DEVICE].update(self.full(DEVICE_METRICS, 0))
        return {}

    def send_kept(self):
        kept, self.kept = self.kept, []
        for kind, device, metrics, n in kept:
            old = [dataclasses.replace(one, name=None, is_historical=True) for one in self.full(metrics, n)]
            yield self.row(device, metrics, n, self.say(kind, old))

    def born(self):
        wait(lambda: self.wire.is_born, "it is not born")
        return {}

    def asked(self):
        return {"asked": self.times_asked}


class Watch:
    """What a host says of itself, as an edge node hears it that waits for it."""

    def __init__(self, address, port, host_id):
        self.said, topic = [], f"spBv1.0/STATE/{host_id}"
        self.client = paho.Client(client_id="watch")
        self.client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self.client.on_message = lambda _client, _data, message: self.said.append(json.loads(message.payload))
        self.client.reconnect_delay_set(1, 1)
        self.client.connect(address, port)
        self.client.loop_start()

    def host(self):
        return {"said": self.said}


def wait(is_true, what):
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        if time.monotonic() > deadline:
            sys.exit(what)
        time.sleep(0.01)


def main(host, port, group, name, primary):
    node = Node(group, name)
    watch = Watch(host, int(port), primary)
    node.connect(host, port=int(port))
    born = [node.row(None, NODE_METRICS, 0, {}), node.row(DEVICE, DEVICE_METRICS, 0, {})]
    version = importlib.metadata.version("pysparkplug")
    print(json.dumps({"client": f"pysparkplug {version}", "rows": born}), flush=True)
    orders = {
        "born": node.born,
        "data": node.data,
        "named": node.named,
        "lose": node.lose,
        "rebirth": node.rebirth,
        "gone": node.gone,
        "kept": node.send_kept,
        "asked": node.asked,
        "host": watch.host,
    }
    for line in sys.stdin:
        order, *arguments = line.split()
        answer = orders[order](*arguments)
        print(json.dumps(answer if isinstance(answer, dict) else {"rows": list(answer)}), flush=True)
    os._exit(0)  # Without DISCONNECT: its will is its death.


main(*sys.argv[1:])
