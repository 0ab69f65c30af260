"""Writes rows with pyarrow as a stream of Arrow's IPC format, and reads them back as one.

Usage: write_arrow.py URL write|read

`write` posts 1,000 rows of every type that has one of its own in SQL, in three batches, and again the same with gzip. `read` asks
for all of them with /api/v3/query_sql and compares each value. Knows nothing of Eden but these two endpoints.
"""

import gzip
import json
import sys
import urllib.parse
import urllib.request
from decimal import Decimal

import pyarrow as pa

START_US = 1_780_272_000_000_000
COUNT = 1_000


def rows():
    numbers = range(COUNT)
    site = pa.array([f"site {n % 7}" if n % 5 else None for n in numbers]).dictionary_encode()
    return pa.table(
        {
            "site": site,
            "machine": pa.array([f"m,{n % 3}=\\" for n in numbers]),
            "f": pa.array([n / 3 - 100 if n % 11 else None for n in numbers], pa.float64()),
            "i": pa.array([n - (1 << 62) for n in numbers], pa.int64()),
            "u": pa.array([(1 << 64) - 1 - n for n in numbers], pa.uint64()),
            "d": pa.array([Decimal(n) / 8 if n % 13 else None for n in numbers], pa.decimal128(15, 3)),
            "b": pa.array([n % 2 == 0 for n in numbers]),
            "s": pa.array([f'"söft"\n\\ {n}' if n % 3 else "" for n in numbers], pa.large_string()),
            "time": pa.array([START_US + n * 86_400_000 for n in numbers], pa.timestamp("us", "UTC")),
        }
    )


def post(url, body, headers):
    headers = {"Content-Type": "application/vnd.apache.arrow.stream", **headers}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        return answer.status


def write(url):
    sink = pa.BufferOutputStream()
    table = rows()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=400)
    body = sink.getvalue().to_pybytes()
    url += "/api/v1/arrow?table=arrow_rows&tags=site,machine"
    assert post(url, body, {}) == 204
    assert post(url, gzip.compress(body), {"Content-Encoding": "gzip"}) == 204


def read(url):
    query = {"db": "public", "q": "SELECT * FROM arrow_rows ORDER BY time", "format": "arrow"}
    with urllib.request.urlopen(f"{url}/api/v3/query_sql?{urllib.parse.urlencode(query)}") as answer:
        found = pa.ipc.open_stream(answer.read()).read_all()
    wanted = rows()
    for name in wanted.column_names:
        ours, theirs = wanted[name].to_pylist(), found[name].to_pylist()
        if name == "time":
            ours, theirs = wanted[name].cast(pa.int64()).to_pylist(), found[name].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
        different = [(n, a, b) for n, (a, b) in enumerate(zip(ours, theirs)) if a != b]
        assert len(ours) == len(theirs) and not different, (name, len(theirs), different[:5])
    print(json.dumps({"client": f"pyarrow {pa.__version__}", "rows": found.num_rows}), flush=True)


{"write": write, "read": read}[sys.argv[2]](sys.argv[1])
