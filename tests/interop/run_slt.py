"""Runs the .slt files of Eden's tests in DuckDB and compares the answers.

    run_slt.py FOLDER

A statement marked `onlyif eden` or `skipif duckdb` is left out. Numbers may differ in the tenth digit, because sums
depend on their order. Prints how many statements gave the same answer; each that did not is told with both answers,
and then the program fails.

Reads the fixtures of FOLDER/data itself, and imports nothing of Eden.
"""

import datetime
import math
import pathlib
import sys

import duckdb
import pyarrow

TYPES = {"tag": "VARCHAR", "text": "VARCHAR", "f64": "DOUBLE", "i64": "BIGINT", "bool": "BOOLEAN", "time": "TIMESTAMPTZ"}


def load(connection, path):
    """Makes a table of a fixture, whose first line has names and kinds."""
    lines = path.read_text().splitlines()
    columns = [column.split(":") for column in lines[0].split(",")]
    connection.execute(f"CREATE TABLE {path.stem} ({', '.join(f'{name} {TYPES[kind]}' for name, kind in columns)})")
    # A cell without a value is NULL, and nothing is quoted.
    rows = [[cell or None for cell in line.split(",")] for line in lines[1:]]
    connection.executemany(f"INSERT INTO {path.stem} VALUES ({', '.join('?' for _ in columns)})", rows)


def records(path):
    """Each query of a file: its line, whether rows are sorted before they are compared, the SQL, the answer."""
    for block in blocks(path):
        line, words = block[0]
        skipped = False
        while words.startswith(("onlyif", "skipif")):
            engine = words.split()[1]
            skipped |= (engine == "duckdb") == words.startswith("skipif")
            block = block[1:]
            line, words = block[0]
        if skipped or not words.startswith("query"):
            if not skipped and words.startswith("statement"):
                raise SystemExit(f"{path}:{line}: statements change something, which only Eden does")
            continue
        lines = [text for _, text in block[1:]]
        if "----" not in lines:
            raise SystemExit(f"{path}:{line}: an error is Eden's own; mark it so")
        at = lines.index("----")
        yield line, "rowsort" in words, "\n".join(lines[:at]), lines[at + 1 :]


def blocks(path):
    """Lines between empty lines, with their numbers; comments left out."""
    block = []
    for number, text in enumerate(path.read_text().splitlines() + [""], 1):
        if text and not text.startswith("#"):
            block.append((number, text))
        elif not text and block:
            yield block
            block = []


def shown(value):
    """A value as the files write it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        text = value.replace(microsecond=0, tzinfo=None).isoformat()
        if value.microsecond:
            digits = f"{value.microsecond:06d}"
            text += "." + (digits[:3] if digits.endswith("000") else digits)
        return text + ("Z" if value.tzinfo else "")
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return " ".join(str(value).split()) or "(empty)"


def answer(connection, sql):
    """The rows of a query, each a text."""
    table = connection.execute(sql).to_arrow_table()
    columns = []
    for column in table.columns:
        zone = pyarrow.types.is_timestamp(column.type) and column.type.tz is not None
        if zone:
            column = column.cast(pyarrow.timestamp("us"))
        values = column.to_pylist()
        if zone:
            values = [value and value.replace(tzinfo=datetime.timezone.utc) for value in values]
        columns.append([shown(value) for value in values])
    return [" ".join(row) for row in zip(*columns)]


def agree(a, b):
    """Whether two rows are the same, their numbers to ten digits."""
    a, b = a.split(), b.split()
    return len(a) == len(b) and all(x == y or near(x, y) for x, y in zip(a, b))


def near(x, y):
    try:
        return math.isclose(float(x), float(y), rel_tol=1e-8, abs_tol=1e-9)
    except ValueError:
        return False


def run(path, folder):
    connection = duckdb.connect()
    # NULL after all others as in PostgreSQL, and times in UTC.
    connection.execute("SET TimeZone = 'UTC'; SET default_null_order = 'NULLS_LAST_ON_ASC_FIRST_ON_DESC'")
    for text in path.read_text().splitlines():
        if text.startswith("# data:"):
            for table in text.removeprefix("# data:").split():
                load(connection, folder / "data" / f"{table}.csv")
    same, wrong = 0, []
    for line, is_sorted, sql, expected in records(path):
        try:
            rows = answer(connection, sql)
        except duckdb.Error as error:
            wrong.append(f"{path}:{line}: {sql}\nDuckDB: {error}")
            continue
        if is_sorted:
            rows, expected = sorted(rows), sorted(expected)
        if len(rows) == len(expected) and all(map(agree, rows, expected)):
            same += 1
        else:
            wrong.append(f"{path}:{line}: {sql}\nexpected:\n" + "\n".join(expected) + "\nDuckDB:\n" + "\n".join(rows))
    return same, wrong


def main():
    folder = pathlib.Path(sys.argv[1])
    same, wrong = 0, []
    for path in sorted(folder.glob("*.slt")):
        agreed, differing = run(path, folder)
        same, wrong = same + agreed, wrong + differing
    print("\n\n".join(wrong))
    print(f"DuckDB: {same} statements with the same answer, {len(wrong)} with another")
    sys.exit(1 if wrong else 0)


main()
