"""Writes readings with InfluxDB's own clients of versions 1, 2 and 3, and says what they said.

Usage: write_influx.py URL

Each client asks what it asks before it writes, then writes 200 readings to a database of its own, in every way that it
has, and two bodies of which one line cannot be stored. A line of JSON a client: {"client": name, "database": name,
"readings": count, "refused": [what it raised, or null, for each of the two]}. The readings have the tag `n`, counting
from 0, the fields `v` (n / 4), `whole` (n), `on` and `text`, and a time: n seconds after 2026-06-01. Knows nothing of
Eden.
"""

import datetime
import importlib.metadata
import json
import sys
import urllib.parse

import influxdb
import influxdb_client
import influxdb_client_3
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions, WriteType

START = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)
COUNT = 200


def time_of(n):
    return START + datetime.timedelta(seconds=n)


def line(n, unit_ns):
    nanoseconds = (int(time_of(n).timestamp()) * 1_000_000_000) // unit_ns
    return f'm,n={n} v={n / 4},whole={n}i,on={"tf"[n % 2]},text="a \\"b\\", {n}" {nanoseconds}'


def fields(n):
    return {"v": n / 4, "whole": n, "on": n % 2 == 0, "text": f'a "b", {n}'}


def said(write):
    try:
        write()
    except Exception as error:  # noqa: BLE001 - every client has its own, and this is what is asked.
        return str(error)
    return None


# The first has no field, the second a text where a number was.
BAD = ["m,n=bad", 'm,n=bad v="text" 1780272000000000000']


def version_1(url):
    parts = urllib.parse.urlsplit(url)
    database = "one"
    results = {}
    for gzip in (False, True):
        client = influxdb.InfluxDBClient(parts.hostname, parts.port, "user", "password", database, gzip=gzip)
        client.ping()
        client.create_database(database)
        point = lambda n: {"measurement": "m", "tags": {"n": n}, "time": time_of(n), "fields": fields(n)}
        half = range(0, COUNT // 2, 2) if gzip else range(1, COUNT // 2, 2)
        assert client.write_points([point(n) for n in half], time_precision="s", batch_size=7)
        units = {"n": 1, "u": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
        for n in range(COUNT // 2 + gzip, COUNT, 2):
            unit = list(units)[n // 2 % 4]
            assert client.write_points([line(n, units[unit])], protocol="line", time_precision=unit)
        results = [said(lambda: client.write_points([line(0, 1), bad], protocol="line")) for bad in BAD]
        assert {"name": database} in client.get_list_database()
    return database, results


def version_2(url):
    database = "two"
    for gzip in (False, True):
        with influxdb_client.InfluxDBClient(url, token="any", org="any", enable_gzip=gzip) as client:
            assert client.ping()
            assert client.health().status == "pass"
            numbers = range(gzip, COUNT, 2)
            point = lambda n: influxdb_client.Point.from_dict(
                {"measurement": "m", "tags": {"n": str(n)}, "time": time_of(n), "fields": fields(n)}
            )
            with client.write_api(write_options=SYNCHRONOUS) as api:
                for n in numbers[: COUNT // 4]:
                    api.write(database, record=point(n), write_precision=["ns", "us", "ms", "s"][n // 2 % 4])
                results = [said(lambda: api.write(database, record=[line(0, 1), bad])) for bad in BAD]
            errors = []
            options = WriteOptions(write_type=WriteType.batching, batch_size=10, flush_interval=50)
            with client.write_api(options, error_callback=lambda *error: errors.append(error)) as api:
                api.write(database, record=[line(n, 1) for n in numbers[COUNT // 4 :]])
            assert not errors, errors
    return database, results


def version_3(url):
    database = "three"
    with influxdb_client_3.InfluxDBClient3(host=url, token="any", database=database) as client:
        client.get_server_version()
        for n in range(0, COUNT, 2):
            point = influxdb_client_3.Point("m").tag("n", str(n)).time(time_of(n))
            for name, value in fields(n).items():
                point = point.field(name, value)
            client.write(point)
        client.write([line(n, 1) for n in range(1, COUNT, 2)])
        results = [said(lambda: client.write([line(0, 1), bad])) for bad in BAD]
    return database, results


def main(url):
    packages = [("influxdb", version_1), ("influxdb-client", version_2), ("influxdb3-python", version_3)]
    for package, write in packages:
        database, refused = write(url)
        client = f"{package} {importlib.metadata.version(package)}"
        answer = {"client": client, "database": database, "readings": COUNT, "refused": refused}
        print(json.dumps(answer), flush=True)


main(*sys.argv[1:])
