"""Files of DuckDB for `eden import`, and files of `eden export` as DuckDB reads them.

transfer.py write FOLDER makes in.parquet and in.csv of the same rows, all types, with what is hard in each.
transfer.py compare FOLDER FILE ... fails unless each file has exactly those rows: types of numbers and times included.

Knows nothing of Eden and imports nothing of it.
"""

import sys

import duckdb

ROWS = """
    SELECT
        'site ' || (n % 3) AS site,
        CASE WHEN n % 5 > 0 THEN 'm,"' || (n % 5) || '"' END AS machine,
        CASE WHEN n % 7 > 0 THEN (n - 5000) / 7.0::DOUBLE END AS f,
        CASE WHEN n % 4 > 0 THEN n * 1000000007 - 9000000000000000000 END::BIGINT AS i,
        CASE n % 4 WHEN 0 THEN 18446744073709551615 - n WHEN 1 THEN n END::UBIGINT AS u,
        CASE WHEN n % 3 > 0 THEN (n * 12345678901 + 0.001) END::DECIMAL(18,3) AS d,
        CASE WHEN n % 2 > 0 THEN n % 6 = 1 END AS b,
        CASE n % 6 WHEN 0 THEN '' WHEN 1 THEN 'line one' || chr(10) || 'line "two", \\'
            WHEN 2 THEN 'ü☃' || n WHEN 3 THEN '5' END AS s,
        make_timestamptz(n * 86400123 - 200000000000) AS time
    FROM generate_series(0, 9999) AS numbers(n)
"""


def connect():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE TABLE wanted AS {ROWS}")
    return connection


def write(folder):
    connection = connect()
    connection.execute(f"COPY wanted TO '{folder}/in.parquet' (FORMAT parquet)")
    connection.execute(f"COPY wanted TO '{folder}/in.csv' (FORMAT csv, HEADER)")
    # The same once more, with the numbers in an object.
    nested = "SELECT * EXCLUDE (f, i), {'f': f, 'inner': {'i': i}} AS o FROM wanted"
    connection.execute(f"COPY ({nested}) TO '{folder}/nested.parquet' (FORMAT parquet, COMPRESSION zstd)")


def compare(folder, files):
    connection = connect()
    columns = [row[0] for row in connection.execute("DESCRIBE wanted").fetchall()]
    for file in files:
        path = f"{folder}/{file}"
        found = {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM '{path}'").fetchall()}
        renamed = {"o.f": "f", "o.inner.i": "i"}
        names = {renamed.get(name, name): name for name in found}
        if sorted(names) != sorted(columns):
            sys.exit(f"{file}: columns {sorted(names)}, not {sorted(columns)}")
        quoted = ", ".join(f'"{names[column]}" AS "{column}"' for column in columns)
        connection.execute(f"CREATE OR REPLACE VIEW found AS SELECT {quoted} FROM '{path}'")
        types = {row[0]: row[1] for row in connection.execute("DESCRIBE found").fetchall()}
        wanted = {row[0]: row[1] for row in connection.execute("DESCRIBE wanted").fetchall()}
        # Delta and Parquet readers know no unsigned numbers in common.
        wanted["u"] = "DECIMAL(20,0)"
        if types != wanted:
            sys.exit(f"{file}: types {types}, not {wanted}")
        for one, other in [("wanted", "found"), ("found", "wanted")]:
            only = connection.execute(f"SELECT * FROM (FROM {one} EXCEPT ALL FROM {other}) LIMIT 3").fetchall()
            if only:
                sys.exit(f"{file}: only in {one}: {only}")
        print(f"{file}: DuckDB reads {connection.execute('SELECT count(*) FROM found').fetchone()[0]} rows, all as it wrote them")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        compare(sys.argv[2], sys.argv[3:])
