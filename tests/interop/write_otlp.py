"""Records metrics with OpenTelemetry's SDK and exports them with its own exporter, and says what it has exported.

Usage: write_otlp.py URL

Every kind of instrument, in three rounds, the last of them with delta temporality, exported plain and with gzip. A line of JSON for each data point:
{"table": name, "tags": {…}, "fields": {…}, "time_ns": …} and at last one {"client": name}. Knows nothing of Eden but what
the documents say that a data point becomes.
"""

import importlib.metadata
import json
import sys

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

RESOURCE = {"service.name": "press", "host.name": "plant-1", "rack": 7, "spare": True}


def record(meter, rounds):
    counter = meter.create_counter("parts.made", unit="{part}")
    weight = meter.create_counter("parts.weight", unit="kg")
    queue = meter.create_up_down_counter("queue.length")
    took = meter.create_histogram("press.duration", unit="s")
    force = meter.create_histogram("press.force")
    gauge = meter.create_gauge("oil.temperature", unit="Cel")
    levels = [Observation(0.75, {"tank": "a b"}), Observation(3, {"tank": "c"})]
    meter.create_observable_gauge("oil.level", [lambda _: levels])
    for n in range(rounds):
        counter.add(n, {"line": "a", "host.name": "line-1"})
        counter.add(2, {"line": "ü,=\" \\"})
        weight.add(n / 8, {"shift": [1, 2], "ok": True, "ratio": 0.5})
        queue.add(1 - n)
        took.record(n / 7, {"line": "a"})
        force.record(3.0**n)
        force.record(0)
        gauge.set(20 + n / 10, {"count": "not a count", "time": "noon"})


def text(value):
    if isinstance(value, str):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value, separators=(",", ":"))


def side(buckets):
    counts = enumerate(buckets.bucket_counts, buckets.offset)
    return [[index, count] for index, count in counts if count]


def fields(point):
    if isinstance(point, sdk.NumberDataPoint):
        return {"value": point.value}
    found = {"count": point.count, "sum": float(point.sum), "min": float(point.min), "max": float(point.max)}
    if isinstance(point, sdk.HistogramDataPoint):
        buckets = {"bounds": [float(bound) for bound in point.explicit_bounds], "counts": list(point.bucket_counts)}
    else:
        buckets = {"scale": point.scale, "zero_threshold": 0.0, "zero_count": point.zero_count}
        buckets |= {"positive": side(point.positive), "negative": side(point.negative)}
    return found | {"buckets": buckets}


def expected(data):
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                is_delta = getattr(metric.data, "aggregation_temporality", None) == AggregationTemporality.DELTA
                for point in metric.data.data_points:
                    own = {name: text(value) for name, value in point.attributes.items()}
                    above = {name: text(value) for name, value in resource.resource.attributes.items()}
                    tags = {f"resource.{name}" if name in own else name: value for name, value in above.items()}
                    tags |= {f"exported_{name}" if name in ("count", "time") else name: v for name, v in own.items()}
                    tags |= {"otel.scope.name": scope.scope.name, "otel.scope.version": scope.scope.version}
                    tags |= {f"otel.scope.{name}": text(value) for name, value in scope.scope.attributes.items()}
                    tags |= {"otel.unit": metric.unit} if metric.unit else {}
                    tags |= {"otel.temporality": "delta"} if is_delta else {}
                    row = fields(point)
                    if not isinstance(metric.data, sdk.Gauge):
                        row["start_us"] = point.start_time_unix_nano // 1000
                    yield {"table": metric.name, "tags": tags, "fields": row, "time_ns": point.time_unix_nano}


def main(url):
    delta = {kind: AggregationTemporality.DELTA for kind in (Counter, Histogram, UpDownCounter)}
    for rounds, temporality, compression in (
        (3, {}, Compression.NoCompression),
        (5, {}, Compression.Gzip),
        (4, delta, Compression.Gzip),
    ):
        reader = InMemoryMetricReader(preferred_temporality=temporality)
        view = View(instrument_name="press.force", aggregation=ExponentialBucketHistogramAggregation(max_size=20))
        provider = MeterProvider([reader], Resource(RESOURCE), views=[view], shutdown_on_exit=False)
        record(provider.get_meter("plant", "1.2", attributes={"area": "south"}), rounds)
        exporter = OTLPMetricExporter(f"{url}/v1/metrics", compression=compression)
        data = reader.get_metrics_data()
        for _ in range(2):  # As after an answer that was lost.
            assert exporter.export(data) == MetricExportResult.SUCCESS
        for row in expected(data):
            print(json.dumps(row))
    version = importlib.metadata.version("opentelemetry-exporter-otlp-proto-http")
    print(json.dumps({"client": f"opentelemetry-exporter-otlp-proto-http {version}"}), flush=True)


main(*sys.argv[1:])
