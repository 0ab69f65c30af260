"""Stock drivers of PostgreSQL, unchanged: psycopg 3, asyncpg and SQLAlchemy connect, look around, query with parameters,
get errors, cancel and copy. Argument: host:port. Prints one line for each client; ends with an error at the first
answer that is not right."""

import asyncio
import datetime
import decimal
import io
import sys
import threading
import time

import asyncpg
import psycopg
import sqlalchemy

HOST, PORT = sys.argv[1].rsplit(":", 1)
UTC = datetime.timezone.utc
START = datetime.datetime(2026, 6, 1, tzinfo=UTC)
LONG = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE a.value % 7 = b.value % 3"


def same(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"{what}: found {found!r}, wanted {wanted!r}")


def with_psycopg():
    dsn = f"host={HOST} port={PORT} user=me dbname=eden"
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("DROP TABLE IF EXISTS psy")
        cursor.execute(
            "CREATE TABLE psy (device TEXT, temp DOUBLE, n BIGINT, ok BOOLEAN, price DECIMAL(9,2), big NUMERIC(20,0), "
            "time TIMESTAMP, PRIMARY KEY (device, time))"
        )
        with cursor.copy("COPY psy (device, temp, n, ok, price, big, time) FROM STDIN") as copy:
            for i in range(1000):
                copy.write_row((f"d{i % 10}", i / 2, i, i % 2 == 0, decimal.Decimal(i) / 100, 2**63 + i, START + datetime.timedelta(seconds=i)))
        same(cursor.statusmessage, "COPY 1000", "psycopg COPY FROM")
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            cursor.execute("SELECT * FROM psy WHERE device = %s AND time >= %s ORDER BY time LIMIT %s", ("d3", START, 2))
            same([column.name for column in cursor.description], ["device", "temp", "n", "ok", "price", "big", "time"], "psycopg columns")
            row = cursor.fetchall()[1]
            wanted = ("d3", 6.5, 13, False, decimal.Decimal("0.13"), decimal.Decimal(2**63 + 13), START + datetime.timedelta(seconds=13))
            same(row, wanted, f"psycopg row, binary {binary}")
            cursor.execute("SELECT %s::text, %s::int, %b::float8, %s::timestamptz, %s::bool, %s::numeric, %s::date", ("ü'", 5, 1.5, START, True, decimal.Decimal("1.50"), START.date()))
            same(cursor.fetchone(), ("ü'", 5, 1.5, START, True, decimal.Decimal("1.50"), START.date()), f"psycopg parameters, binary {binary}")
            cursor.execute("SELECT ARRAY[1, NULL, 3], ARRAY['a', 'b c']")
            same(cursor.fetchone(), ([1, None, 3], ["a", "b c"]), f"psycopg arrays, binary {binary}")
            cursor.execute("SELECT current_user, current_database(), current_schema(), pg_backend_pid()")
            same(cursor.fetchone(), ("me", "eden", "public", connection.info.backend_pid), "psycopg session")
        try:
            cursor.execute("SELECT nothing FROM psy")
            raise SystemExit("psycopg: no error for a column that is not there")
        except psycopg.errors.UndefinedColumn:
            pass
        try:
            cursor.execute("SELECT 1 FROM nowhere")
            raise SystemExit("psycopg: no error for a table that is not there")
        except psycopg.errors.UndefinedTable:
            pass
        out = io.BytesIO()
        with cursor.copy("COPY (SELECT device, n, time FROM psy ORDER BY n LIMIT 2) TO STDOUT (FORMAT csv, HEADER)") as copy:
            for data in copy:
                out.write(data)
        same(out.getvalue().decode(), "device,n,time\nd0,0,2026-06-01 00:00:00+00\nd1,1,2026-06-01 00:00:01+00\n", "psycopg COPY TO")
        try:
            with cursor.copy("COPY psy (device, n, time) FROM STDIN") as copy:
                copy.write("d1\t7\t2026-06-02 00:00:00+00\nd1\tseven\t2026-06-02 00:00:01+00\n")
            raise SystemExit("psycopg: no error for a bad line")
        except psycopg.errors.BadCopyFileFormat as error:
            same("line 2" in str(error), True, "psycopg bad line")
        began = time.monotonic()
        threading.Timer(0.5, connection.cancel).start()
        try:
            cursor.execute(LONG)
            raise SystemExit("psycopg: not cancelled")
        except psycopg.errors.QueryCanceled:
            same(time.monotonic() - began < 5, True, "psycopg cancel in time")
        cursor.execute("SET statement_timeout = 300")
        try:
            cursor.execute(LONG)
            raise SystemExit("psycopg: no timeout")
        except psycopg.errors.QueryCanceled:
            pass
        cursor.execute("RESET statement_timeout")
        with connection.transaction():
            cursor.execute("SELECT count(*) FROM psy")
            same(cursor.fetchone(), (1000,), "psycopg count")
        with connection.transaction():
            with connection.cursor() as server:
                rows = server.stream("SELECT n FROM psy ORDER BY n", size=1)
                same([next(rows)[0] for _ in range(3)], [0, 1, 2], "psycopg stream")
                rows.close()
        cursor.execute("SET default_transaction_read_only = on")
        try:
            cursor.execute("DELETE FROM psy WHERE n = 1")
            raise SystemExit("psycopg: a read-only session deletes")
        except psycopg.errors.ReadOnlySqlTransaction:
            pass
    print("psycopg", psycopg.__version__)


async def with_asyncpg():
    connection = await asyncpg.connect(host=HOST, port=int(PORT), user="me", database="eden")
    row = await connection.fetchrow("SELECT * FROM psy WHERE device = $1 AND n > $2 ORDER BY n LIMIT 1", "d3", 5)
    same(tuple(row)[:3], ("d3", 6.5, 13), "asyncpg row")
    same(row["time"], START + datetime.timedelta(seconds=13), "asyncpg time")
    same(row["big"], decimal.Decimal(2**63 + 13), "asyncpg numeric")
    same(await connection.fetchval("SELECT $1::text", "x"), "x", "asyncpg text")
    same(await connection.fetchval("SELECT count(*) FROM psy WHERE time < $1", START + datetime.timedelta(seconds=10)), 10, "asyncpg time parameter")
    seen = 0
    async with connection.transaction():
        async for _ in connection.cursor("SELECT n FROM psy", prefetch=100):
            seen += 1
    same(seen, 1000, "asyncpg cursor")
    try:
        await connection.fetch("SELECT 1 FROM nowhere")
        raise SystemExit("asyncpg: no error")
    except asyncpg.UndefinedTableError:
        pass
    try:
        await connection.fetch(LONG, timeout=0.5)
        raise SystemExit("asyncpg: no timeout")
    except asyncio.TimeoutError:
        pass
    same(await connection.fetchval("SELECT 1"), 1, "asyncpg after a cancel")
    out = io.BytesIO()
    await connection.copy_from_query("SELECT n FROM psy ORDER BY n LIMIT 3", output=out)
    same(out.getvalue(), b"0\n1\n2\n", "asyncpg COPY TO")
    await connection.reset()
    await connection.close()
    print("asyncpg", asyncpg.__version__)


def with_sqlalchemy():
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://me@{HOST}:{PORT}/eden")
    inspector = sqlalchemy.inspect(engine)
    same("psy" in inspector.get_table_names(), True, "SQLAlchemy tables")
    same(inspector.has_table("psy"), True, "SQLAlchemy has_table")
    # Its statement for the columns asks for functions that are not there: tables are declared, not reflected.
    table = sqlalchemy.table("psy", sqlalchemy.column("device"), sqlalchemy.column("n"))
    with engine.connect() as connection:
        wanted = sqlalchemy.select(sqlalchemy.func.count()).where(table.c.device == "d3", table.c.n < 100)
        same(connection.execute(wanted).scalar(), 10, "SQLAlchemy count")
    print("SQLAlchemy", sqlalchemy.__version__)


with_psycopg()
asyncio.run(with_asyncpg())
with_sqlalchemy()
