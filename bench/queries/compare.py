"""The five queries of bench/peers.md on Eden and in DuckDB, alternated run by run.

    compare.py measure ADDRESS --csv FILE [--shards FILE ...] --database FILE [--runs 7]
    compare.py ask ADDRESS
    compare.py leave ADDRESS [--runs 7]

`measure` makes DuckDB's own table from the CSV file, in the order of arrival, if the database does not have it. It runs
each query on Eden, on that table, and on Eden's shards if they are given; all answers must agree. It prints one line of
JSON: for each query and each of the three the times of all runs in milliseconds, and of Eden's those of planning.

`ask` asks Eden the five queries in turn until its standard input is closed, and prints how many it asked and the median of
each.

`leave` asks for a join that takes hours, goes away once it runs, and prints after how many milliseconds nobody works on it any
more, for each run.

Eden's times include HTTP on the loopback and reading its JSON; DuckDB runs in this process.
"""

import argparse
import http.client
import json
import math
import statistics
import sys
import threading
import time

QUERIES = {
    # The last value of every device.
    "q1": (
        "SELECT device, last(temperature, time) AS value FROM env GROUP BY device",
        "SELECT device, arg_max(temperature, time) AS value FROM {table} GROUP BY device",
    ),
    # By hour, one device, one day.
    "q2": (
        "SELECT time_bucket(INTERVAL '1 hour', time) AS hour, avg(temperature) AS value FROM env "
        "WHERE device = 'dev-0123' AND time >= '2026-06-01' AND time < '2026-06-02' GROUP BY 1",
        "SELECT time_bucket(INTERVAL '1 hour', time) AS hour, avg(temperature) AS value FROM {table} "
        "WHERE device = 'dev-0123' AND time >= '2026-06-01' AND time < '2026-06-02' GROUP BY 1",
    ),
    # By device and day, all rows.
    "q3": (
        "SELECT device, date_trunc('day', time) AS day, avg(temperature) AS value FROM env GROUP BY 1, 2",
        "SELECT device, date_trunc('day', time) AS day, avg(temperature) AS value FROM {table} GROUP BY 1, 2",
    ),
    # A filter over all rows.
    "q4": (
        "SELECT count(*) AS rows, max(temperature) AS value FROM env WHERE temperature > 25.0",
        "SELECT count(*) AS rows, max(temperature) AS value FROM {table} WHERE temperature > 25.0",
    ),
    # The warmest of the last six hours. More than ten may share the tenth place, so only the values are compared.
    "q5": (
        "SELECT device, max(temperature) AS value FROM env WHERE time >= '2026-06-01T21:46:40' "
        "GROUP BY device ORDER BY 2 DESC LIMIT 10",
        "SELECT device, max(temperature) AS value FROM {table} WHERE time >= '2026-06-01T21:46:40' "
        "GROUP BY device ORDER BY 2 DESC LIMIT 10",
    ),
}


class Eden:
    """A connection that is kept."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=300)

    def run(self, statement):
        body = json.dumps({"stmt": statement})
        self.connection.request("POST", "/_sql", body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            sys.exit(f"{statement}: {answer}")
        return answer["rows"]


def timed(work):
    start = time.perf_counter()
    answer = work()
    return (time.perf_counter() - start) * 1e3, answer


def values(query, rows):
    """What must agree: the last column in order, and how many rows."""
    if query == "q4":
        return [float(cell) for cell in rows[0]]
    return sorted(float(row[-1]) for row in rows)


def measure(arguments):
    import duckdb

    connection = duckdb.connect(arguments.database)
    connection.execute("SET TimeZone = 'UTC'")
    tables = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'env'").fetchone()
    if tables[0] == 0:
        columns = (
            "{'time': 'BIGINT', 'device': 'VARCHAR', 'site': 'VARCHAR', 'firmware': 'VARCHAR',"
            " 'temperature': 'DOUBLE', 'pressure': 'DOUBLE', 'humidity': 'DOUBLE'}"
        )
        connection.execute(
            "CREATE TABLE env AS SELECT * REPLACE (make_timestamp(time) AS time)"
            f" FROM read_csv('{arguments.csv}', header = false, columns = {columns})"
        )
        connection.execute("CHECKPOINT")
    eden = Eden(arguments.address)
    ways = {"eden": lambda ours, _: eden.run(ours)}
    ways["duckdb"] = lambda _, theirs: connection.execute(theirs.format(table="env")).fetchall()
    if arguments.shards:
        files = ", ".join(f"'{shard}'" for shard in arguments.shards)
        # Without its time zone, for which the client would want another package.
        table = f"(SELECT * REPLACE (time::TIMESTAMP AS time) FROM read_parquet([{files}]))"
        ways["duckdb_on_shards"] = lambda _, theirs: connection.execute(theirs.format(table=table)).fetchall()
    result = {}
    for query, (ours, theirs) in QUERIES.items():
        answers = {name: values(query, way(ours, theirs)) for name, way in ways.items()}
        for name, answer in answers.items():
            pairs = zip(answer, answers["eden"], strict=True)
            if not all(math.isclose(one, other, rel_tol=1e-9) for one, other in pairs):
                sys.exit(f"{query}: {name} and Eden disagree")
        result[query] = {name: [] for name in ways}
        for _ in range(arguments.runs):
            for name, way in ways.items():
                result[query][name].append(timed(lambda: way(ours, theirs))[0])
        statement = ours.replace("'", "''")
        runs = f"SELECT planning_ms FROM system.queries WHERE statement = '{statement}' AND state = 'finished'"
        result[query]["planning"] = [row[0] for row in eden.run(f"{runs} ORDER BY id::bigint DESC LIMIT {arguments.runs}")]
    print(json.dumps(result))


def ask(arguments):
    closed = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
    eden = Eden(arguments.address)
    times = {query: [] for query in QUERIES}
    while not closed.is_set():
        for query, (ours, _) in QUERIES.items():
            times[query].append(timed(lambda: eden.run(ours))[0])
    medians = {query: statistics.median(of) for query, of in times.items()}
    print(json.dumps({"queries": sum(map(len, times.values())), "p50_ms": medians}))


def leave(arguments):
    eden = Eden(arguments.address)
    times = []
    for run in range(arguments.runs):
        mark = f"left {run}"
        statement = f"SELECT count(*) FROM env a, env b WHERE a.temperature + b.humidity < -1000 AND '{mark}' <> ''"
        shown = f"SELECT state FROM system.queries WHERE statement LIKE 'SELECT count(%' AND statement LIKE '%{mark}%'"
        connection = http.client.HTTPConnection(arguments.address, timeout=300)
        connection.request("POST", "/_sql", json.dumps({"stmt": statement}), {"Content-Type": "application/json"})
        while eden.run(shown) != [["running"]]:
            time.sleep(0.01)
        # It is in the middle of its work then.
        time.sleep(1)
        connection.close()
        left = time.perf_counter()
        while eden.run(shown) != [["cancelled"]]:
            time.sleep(0.001)
        times.append((time.perf_counter() - left) * 1e3)
    print(json.dumps(times))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("address")
    measuring.add_argument("--csv", required=True)
    measuring.add_argument("--shards", nargs="*", default=[])
    measuring.add_argument("--database", required=True)
    measuring.add_argument("--runs", type=int, default=7)
    measuring.set_defaults(run=measure)
    asking = commands.add_parser("ask")
    asking.add_argument("address")
    asking.set_defaults(run=ask)
    leaving = commands.add_parser("leave")
    leaving.add_argument("address")
    leaving.add_argument("--runs", type=int, default=7)
    leaving.set_defaults(run=leave)
    arguments = parser.parse_args()
    arguments.run(arguments)


main()
