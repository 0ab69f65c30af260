"""Reads one Delta table with DuckDB, Polars and deltalake, each in its own way, and prints what each of them saw.

Usage: read_table.py TABLE_FOLDER

One line of JSON a client: {"client": name, "cols": [...], "rows": [[...]]}, values as Eden's `/_sql` writes them: times
in ms with up to three decimals, decimals as text. Knows nothing of Eden and imports nothing of it.
"""

import datetime
import decimal
import json
import os
import pathlib
import sys

import deltalake
import duckdb
import duckdb_extension_delta
import polars

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def duckdb_rows(folder):
    # The extension comes as a package of its own: INSTALL would want a network.
    packaged = pathlib.Path(duckdb_extension_delta.__file__).parent / "extensions"
    (extension,) = packaged.glob("*/delta.duckdb_extension")
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute(f"LOAD '{extension}'")
    return connection.execute("SELECT * FROM delta_scan(?)", [folder]).to_arrow_table()


def polars_rows(folder):
    return polars.scan_delta(folder).collect().to_arrow()


def deltalake_rows(folder):
    return deltalake.DeltaTable(folder).to_pyarrow_table()


def as_sql_writes_it(value):
    if isinstance(value, datetime.datetime):
        microseconds = (value - EPOCH) // datetime.timedelta(microseconds=1)
        milliseconds, rest = divmod(microseconds, 1000)
        return milliseconds if rest == 0 else microseconds / 1000
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value


def main():
    (folder,) = sys.argv[1:]
    for client, read in [("duckdb", duckdb_rows), ("polars", polars_rows), ("deltalake", deltalake_rows)]:
        # The partition column is how the table is stored, not what was measured.
        table = read(folder).drop_columns(["eden_day"])
        rows = [[as_sql_writes_it(value) for value in row.values()] for row in table.to_pylist()]
        print(json.dumps({"client": client, "cols": table.column_names, "rows": rows}))
    # Threads of these libraries, all in one process, sometimes abort it while the interpreter ends. All is printed by now.
    sys.stdout.flush()
    os._exit(0)


main()
