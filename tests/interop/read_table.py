"""Reads Delta tables with DuckDB, Polars and deltalake, each in its own way, and prints what each of them saw.

A line of JSON on standard input asks about one table, until the input ends:

{"folder": "...", "where": [COLUMN, TEXT]} has three answers, a line of JSON a client: {"client": name, "cols": [...],
"types": [...], "rows": [[...]]}, values as Eden's `/_sql` writes them: times in ms with up to three decimals. Decimals
are {"decimal": "1.50"}: a text with digits only is something else. Types are in our words, because each client has its
own. With "where", the client itself looks for the rows whose COLUMN is TEXT: so it uses the statistics and filters of
the files.

{"folder": "s3://...", "options": {...}} has two answers like these, of Polars and deltalake, which reach the store with
the options.

{"folder": "...", "filters": N} has one answer, {"filters": count, "wrong": [...], "conditions": [[SQL, rows], ...]}: for
N values of each column, every client looks for the rows that have it, another, at most it, and more than it, and for
those without a value, and must find as many as there are: so nothing is hidden by the statistics and filters of the
files. The same conditions are given as SQL, with the rows that they must find.

{"folder": "...", "keys": [COLUMN, ...]} has one answer, {"versions": count, "twice": [[version, key], ...]}: deltalake
reads every version that there is, and twice are the keys that one has more than once.

Knows nothing of Eden and imports nothing of it.
"""

import collections
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
import pyarrow
import pyarrow.dataset

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def duckdb_connection():
    # The extension comes as a package of its own: INSTALL would want a network.
    packaged = pathlib.Path(duckdb_extension_delta.__file__).parent / "extensions"
    (extension,) = packaged.glob("*/delta.duckdb_extension")
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute(f"LOAD '{extension}'")
    return connection


def duckdb_rows(folder, where):
    # A new one each time: it remembers nothing.
    connection = duckdb_connection()
    if where is None:
        return connection.execute("SELECT * FROM delta_scan(?)", [folder]).to_arrow_table()
    column, text = where
    quoted = column.replace('"', '""')
    statement = f'SELECT * FROM delta_scan(?) WHERE "{quoted}" = ?'
    return connection.execute(statement, [folder, text]).to_arrow_table()


def polars_rows(folder, where):
    table = polars.scan_delta(folder)
    if where is not None:
        table = table.filter(polars.col(where[0]) == where[1])
    return table.collect().to_arrow()


def deltalake_rows(folder, where):
    table = deltalake.DeltaTable(folder)
    if where is None:
        return table.to_pyarrow_table()
    return table.to_pyarrow_dataset().to_table(filter=pyarrow.dataset.field(where[0]) == where[1])


def as_sql_writes_it(value):
    if isinstance(value, datetime.datetime):
        microseconds = (value - EPOCH) // datetime.timedelta(microseconds=1)
        milliseconds, rest = divmod(microseconds, 1000)
        return milliseconds if rest == 0 else microseconds / 1000
    if isinstance(value, decimal.Decimal):
        return {"decimal": format(value, "f")}
    return value


def type_in_words(arrow):
    types = pyarrow.types
    if types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    if types.is_timestamp(arrow):
        return f"timestamp({arrow.unit})"
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow):
        return "text"
    return str(arrow)


def read_now(folder, where):
    for client, read in [("duckdb", duckdb_rows), ("polars", polars_rows), ("deltalake", deltalake_rows)]:
        answer(client, read(folder, where))


def answer(client, table):
    # The partition column is how the table is stored, not what was measured.
    table = table.drop_columns(["eden_day"])
    types = [type_in_words(field.type) for field in table.schema]
    rows = [[as_sql_writes_it(value) for value in row.values()] for row in table.to_pylist()]
    print(json.dumps({"client": client, "cols": table.column_names, "types": types, "rows": rows}))


def read_in_store(url, options):
    for client, table in [
        ("polars", polars.scan_delta(url, storage_options=options).collect().to_arrow()),
        ("deltalake", deltalake.DeltaTable(url, storage_options=options).to_pyarrow_table()),
    ]:
        answer(client, table)


def duckdb_count(connection, folder, column, operator, value):
    quoted = column.replace('"', '""')
    statement = f'SELECT count(*) FROM delta_scan(?) WHERE "{quoted}" {operator}'
    parameters = [folder] if value is None else [folder, value]
    return connection.execute(statement + ("" if value is None else " ?"), parameters).fetchone()[0]


def polars_count(folder, column, operator, value):
    found = polars.col(column)
    if value is not None:
        # A decimal of Python becomes one of 38 digits; of the column's own type it may be compared with statistics.
        value = polars.lit(value, dtype=polars.scan_delta(folder).collect_schema()[column])
    filters = {
        "=": lambda: found == value,
        "<>": lambda: found != value,
        "<=": lambda: found <= value,
        ">": lambda: found > value,
        "IS NULL": found.is_null,
        "IS NOT NULL": found.is_not_null,
    }
    return polars.scan_delta(folder).filter(filters[operator]()).select(polars.len()).collect().item()


def deltalake_count(table, column, operator, value):
    dataset = table.to_pyarrow_dataset()
    found = pyarrow.dataset.field(column)
    if value is not None:
        value = pyarrow.scalar(value, dataset.schema.field(column).type)
    filters = {
        "=": lambda: found == value,
        "<>": lambda: found != value,
        "<=": lambda: found <= value,
        ">": lambda: found > value,
        "IS NULL": found.is_null,
        "IS NOT NULL": found.is_valid,
    }
    return dataset.to_table(filter=filters[operator]()).num_rows


def sql_literal(value, arrow):
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime.datetime):
        return f"to_timestamp_micros({(value - EPOCH) // datetime.timedelta(microseconds=1)})"
    if isinstance(value, decimal.Decimal):
        return f"CAST('{value:f}' AS DECIMAL({arrow.precision},{arrow.scale}))"
    return repr(value)


def is_older_than_a_column(table, column):
    """Whether a file came before the column did, so that the log says nothing of it there.

    Of such a file deltalake 1.6.6, at least, does not know whether the column is null, in tables of its own as well.
    """
    nulls = table.get_add_actions(flatten=True)
    names = list(nulls.schema.names)
    return f"null_count.{column}" not in names or nulls.column(names.index(f"null_count.{column}")).null_count > 0


def read_filtered(folder, count):
    table = deltalake.DeltaTable(folder)
    rows = table.to_pyarrow_table().drop_columns(["eden_day"])
    connection = duckdb_connection()
    clients = {
        "duckdb": lambda *condition: duckdb_count(connection, folder, *condition),
        "polars": lambda *condition: polars_count(folder, *condition),
        "deltalake": lambda *condition: deltalake_count(table, *condition),
    }
    asked, wrong, conditions = 0, [], []
    for column in rows.column_names:
        arrow = rows.schema.field(column).type
        values = [value for value in rows[column].to_pylist() if value is not None]
        ordered = sorted(set(values))
        step = max(1, len(ordered) // count)
        nulls = len(rows) - len(values)
        asked_of_column = [("IS NULL", None, nulls), ("IS NOT NULL", None, len(values))]
        for value in ordered[::step][: count - 1] + ordered[-1:]:
            asked_of_column += [
                ("=", value, sum(v == value for v in values)),
                ("<>", value, sum(v != value for v in values)),
                ("<=", value, sum(v <= value for v in values)),
                (">", value, sum(v > value for v in values)),
            ]
        for operator, value, expected in asked_of_column:
            literal = "" if value is None else " " + sql_literal(value, arrow)
            quoted = column.replace('"', '""')
            conditions.append([f'"{quoted}" {operator}{literal}', expected])
            for client, found in clients.items():
                if client == "deltalake" and value is None and is_older_than_a_column(table, column):
                    continue
                asked += 1
                seen = found(column, operator, value)
                if seen != expected:
                    wrong.append(f"{client}: {column} {operator} {value!r} finds {seen} rows, expected {expected}")
    print(json.dumps({"filters": asked, "wrong": wrong, "conditions": conditions}))


def read_versions(folder, keys):
    table = deltalake.DeltaTable(folder)
    newest = table.version()
    twice = []
    for version in range(newest + 1):
        table.load_as_version(version)
        rows = table.to_pyarrow_table()
        rows = rows.select([key for key in keys if key in rows.column_names])
        counts = collections.Counter(map(str, rows.to_pylist()))
        twice += [[version, key] for key, count in counts.items() if count > 1]
    print(json.dumps({"versions": newest + 1, "twice": twice}))


def main():
    for line in sys.stdin:
        wanted = json.loads(line)
        if wanted.get("filters"):
            read_filtered(wanted["folder"], wanted["filters"])
        elif wanted.get("options"):
            read_in_store(wanted["folder"], wanted["options"])
        elif wanted.get("keys"):
            read_versions(wanted["folder"], wanted["keys"])
        else:
            read_now(wanted["folder"], wanted.get("where"))
        sys.stdout.flush()
    # Threads of these libraries, all in one process, sometimes abort it while the interpreter ends.
    os._exit(0)


main()
