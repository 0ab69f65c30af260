// Exports metrics in JSON with OpenTelemetry's exporter for JavaScript.
//
// Usage: write_otlp.js URL
//
// Metrics are js.made (a counter), js.took and js.force (histograms, with bounds and without) and js.temperature (a gauge).
// Ends well only if the exporter was told that they are stored. Knows nothing of Eden.

"use strict";

const { AggregationType, MeterProvider, PeriodicExportingMetricReader } = require("@opentelemetry/sdk-metrics");
const { OTLPMetricExporter } = require("@opentelemetry/exporter-metrics-otlp-http");

const exporter = new OTLPMetricExporter({ url: `${process.argv[2]}/v1/metrics`, compression: "gzip" });
const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 1000000 });
const views = [{ instrumentName: "js.force", aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }];
const provider = new MeterProvider({ readers: [reader], views });
const meter = provider.getMeter("plant", "1.0");

meter.createCounter("js.made", { unit: "1" }).add(3, { line: "ü", n: 7, f: 1.5, b: true, l: ["x", "y"] });
const took = meter.createHistogram("js.took");
took.record(0.5);
took.record(700);
const force = meter.createHistogram("js.force");
force.record(1);
force.record(9);
meter.createGauge("js.temperature").record(21.5);

provider.forceFlush().then(() => provider.shutdown()).catch((error) => {
  console.error(error);
  process.exit(1);
});
