"""Stock drivers of PostgreSQL, unchanged: psycopg 3, asyncpg and SQLAlchemy connect, look around, query with parameters,
get errors, cancel and copy. And what Grafana and DBeaver ask. Argument: host:port. Prints one line for each client; ends with an error at the first
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
    # It asks what each type of array is when it meets it first.
    row = await connection.fetchrow("SELECT ARRAY[1, NULL, 3] AS n, ARRAY['a', 'b c'] AS s, ARRAY[1.5::float8] AS f", timeout=30)
    same((row["n"], row["s"], row["f"]), ([1, None, 3], ["a", "b c"], [1.5]), "asyncpg arrays")
    same(await connection.fetchval("SELECT count(*) FROM psy WHERE n = any($1::bigint[])", [1, 2, 5000]), 2, "asyncpg array parameter")
    same(await connection.fetchval("SELECT count(*) FROM psy WHERE device = any($1::text[])", ["d1", "d2"]), 200, "asyncpg texts")
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
    same((inspector.has_table("psy"), inspector.has_table("nothing")), (True, False), "SQLAlchemy has_table")
    same("public" in inspector.get_schema_names(), True, "SQLAlchemy schemas")
    columns = {column["name"]: str(column["type"]) for column in inspector.get_columns("psy")}
    wanted = {
        "device": "TEXT",
        "temp": "DOUBLE PRECISION",
        "n": "BIGINT",
        "ok": "BOOLEAN",
        "price": "NUMERIC(9, 2)",
        "big": "NUMERIC",
        "time": "TIMESTAMP",
    }
    same(columns, wanted, "SQLAlchemy columns")
    same([column["name"] for column in inspector.get_columns("psy") if not column["nullable"]], ["time"], "SQLAlchemy NOT NULL")
    same(inspector.get_pk_constraint("psy")["constrained_columns"], [], "SQLAlchemy primary key")
    for what in ("get_indexes", "get_foreign_keys", "get_unique_constraints", "get_check_constraints"):
        same(getattr(inspector, what)("psy"), [], f"SQLAlchemy {what}")
    same(inspector.get_table_comment("psy"), {"text": None}, "SQLAlchemy comment")
    for what in ("get_view_names", "get_materialized_view_names", "get_sequence_names", "get_enums"):
        same(getattr(inspector, what)(), [], f"SQLAlchemy {what}")
    table = sqlalchemy.Table("psy", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        wanted = sqlalchemy.select(sqlalchemy.func.count()).where(table.c.device == "d3", table.c.n < 100)
        same(connection.execute(wanted).scalar(), 10, "SQLAlchemy count")
        row = connection.execute(sqlalchemy.select(table).where(table.c.n == 13)).one()
        same((row.price, row.time), (decimal.Decimal("0.13"), START + datetime.timedelta(seconds=13)), "SQLAlchemy row of a reflected table")
    print("SQLAlchemy", sqlalchemy.__version__)


# What Grafana's PostgreSQL source sends: postgresMetaQuery.ts and schema.go of grafana/grafana.
IN_SEARCH_PATH = """
    SELECT
        CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
    FROM
        generate_series(
            array_lower(string_to_array(current_setting('search_path'),','),1),
            array_upper(string_to_array(current_setting('search_path'),','),1)
        ) as i,
        string_to_array(current_setting('search_path'),',') s
"""
OTHER_SCHEMAS = """('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog',
    '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental')"""


def columns_in_grafana(table):
    return f"""
        SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns
        WHERE CASE WHEN array_length(parse_ident('{table}'),1) = 2
              THEN quote_ident(table_schema) = (parse_ident('{table}'))[1] AND quote_ident(table_name) = (parse_ident('{table}'))[2]
              ELSE quote_ident(table_name) = '{table}' AND quote_ident(table_schema) IN ({IN_SEARCH_PATH}) END"""


def as_grafana():
    def simple(connection, statements):
        """The simple protocol, as Grafana's panels use it: the last answer."""
        answer = connection.pgconn.exec_(statements.encode())
        same(psycopg.pq.ExecStatus(answer.status).name, "TUPLES_OK", f"Grafana: {connection.pgconn.error_message.decode()} in {statements}")
        cells = [[answer.get_value(row, column) for column in range(answer.nfields)] for row in range(answer.ntuples)]
        return [[cell and cell.decode() for cell in row] for row in cells]

    with psycopg.connect(f"host={HOST} port={PORT} user=grafana dbname=eden", autocommit=True) as connection:
        same(psycopg.pq.ExecStatus(connection.pgconn.exec_(b"-- ping").status).name, "EMPTY_QUERY", "Grafana ping")
        same(simple(connection, "SELECT current_setting('server_version_num')::int/100 as version"), [["1600"]], "Grafana version")
        same(simple(connection, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"), [], "Grafana extension")
        connection.execute("CREATE TABLE IF NOT EXISTS plant.line (device TEXT, x DOUBLE, time TIMESTAMP, PRIMARY KEY (device, time))")
        in_path = f"quote_ident(table_schema) IN ({IN_SEARCH_PATH})"
        tables = simple(connection, f"""
            SELECT CASE WHEN {in_path} THEN quote_ident(table_name)
                   ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
            FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN {OTHER_SCHEMAS}
            ORDER BY CASE WHEN {in_path} THEN 0 ELSE 1 END, 1""")
        names = [row[0] for row in tables]
        same(("psy" in names, "plant.line" in names, "public.psy" in names), (True, True, False), f"Grafana tables {names}")
        same(names.index("psy") < names.index("plant.line"), True, "Grafana order of tables")
        wanted = [["device", "text"], ["temp", "double precision"], ["n", "bigint"], ["ok", "boolean"], ["price", "numeric"],
                  ["big", "numeric"], ["time", "timestamp with time zone"]]
        for table in ("psy", "public.psy"):
            same(simple(connection, columns_in_grafana(table)), wanted, f"Grafana columns of {table}")
        same(simple(connection, columns_in_grafana("line")), [], "Grafana columns of a table out of the path")
        same(simple(connection, columns_in_grafana("plant.line"))[1], ["x", "double precision"], "Grafana columns of another schema")
        schemas = simple(connection, f'SELECT schema_name AS "name" FROM information_schema.schemata WHERE schema_name NOT IN {OTHER_SCHEMAS}')
        same(["public"] in schemas and ["plant"] in schemas, True, "Grafana schemas")
        same(["psy"] in simple(connection, "SELECT quote_ident(table_name) AS \"table\" FROM information_schema.tables WHERE quote_ident(table_schema) = 'public' ORDER BY 1"), True, "Grafana tables of a schema")
        same(len(simple(connection, "SET TIMEZONE TO 'UTC'; SELECT time AS \"time\", temp FROM psy WHERE device = 'd1'")), 100, "Grafana statements at once")
        span = "time BETWEEN '2026-06-01T00:00:00Z' AND '2026-06-01T00:10:00Z'"
        grouped = simple(connection, f'SELECT floor(extract(epoch from time)/300)*300 AS "time", count(*) FROM psy WHERE {span} GROUP BY 1 ORDER BY 1')
        same([[float(cell) for cell in row] for row in grouped], [[1780272000.0, 300.0], [1780272300.0, 300.0], [1780272600.0, 1.0]], "Grafana groups")
        grouped = simple(connection, f"SELECT time_bucket('300.000s',time) AS \"time\", device AS metric, max(temp) FROM psy WHERE {span} AND device = 'd3' GROUP BY 1, 2 ORDER BY 1")
        same(grouped, [["2026-06-01 00:00:00+00", "d3", "146.5"], ["2026-06-01 00:05:00+00", "d3", "296.5"]], "Grafana time_bucket")
        same(len(simple(connection, "SELECT extract(epoch from time) as \"time\", n FROM psy WHERE extract(epoch from time) >= 1780272000 AND extract(epoch from time) <= 1780272009")), 10, "Grafana epochs")

        cursor = connection.cursor(binary=True)
        cursor.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT LIKE 'pg_%%' AND schema_name != 'information_schema' ORDER BY schema_name", ())
        same(("public",) in cursor.fetchall(), True, "Grafana schemas, extended")
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type IN ('BASE TABLE','VIEW') ORDER BY table_name", ("plant",))
        same(cursor.fetchall(), [("line",)], "Grafana tables, extended")
        cursor.execute("SELECT column_name, data_type, udt_name, numeric_precision, numeric_scale FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position", ("public", "psy"))
        same([row[2] for row in cursor.fetchall()], ["text", "float8", "int8", "bool", "numeric", "numeric", "timestamptz"], "Grafana columns, extended")
        cursor.execute("""SELECT 'device' AS col_name, "device"::text AS val FROM (SELECT DISTINCT "device" FROM "public"."psy" WHERE "device" IS NOT NULL ORDER BY "device" LIMIT 2) sub_0
            UNION ALL SELECT 'n' AS col_name, "n"::text AS val FROM (SELECT DISTINCT "n" FROM "public"."psy" WHERE "n" IS NOT NULL ORDER BY "n" LIMIT 2) sub_1""")
        same(sorted(cursor.fetchall()), [("device", "d0"), ("device", "d1"), ("n", "0"), ("n", "1")], "Grafana values")
    print("Grafana's statements")


# What DBeaver's PostgreSQL driver reads: PostgreDatabase.java, PostgreSchema.java and PostgreTableBase.java of dbeaver/dbeaver.
DBEAVER = {
    "database": "SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE db.datname='eden'",
    "settings": "select * from pg_catalog.pg_settings where name='standard_conforming_strings'",
    "keywords": "select string_agg(word, ',') from pg_catalog.pg_get_keywords() where word <> ALL ('{a,abs,absolute}'::text[])",
    "schemas": "SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass WHERE nspname='public' ORDER BY nspname",
    "tables": "SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass WHERE c.relkind not in ('i','I','c') AND c.relname='psy'",
    "columns": "SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid) LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum) LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') AND c.relname='psy' ORDER BY a.attnum",
    "types": "SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid WHERE t.typname='int8'",
    "constraints": "SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description FROM pg_catalog.pg_constraint c INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass ORDER BY c.oid",
    "indexes": "SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr,pg_catalog.pg_relation_size(i.indexrelid) as index_rel_size,pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans FROM pg_catalog.pg_index i INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid ORDER BY tabrelname, c.relname",
    "session": "SELECT current_schema(),session_user",
}
DBEAVER_ROWS = {"columns": 7, "constraints": 0, "indexes": 0}


def as_dbeaver():
    with psycopg.connect(f"host={HOST} port={PORT} user=me dbname=eden", autocommit=True) as connection:
        for name, statement in DBEAVER.items():
            rows = connection.execute(statement).fetchall()
            same(len(rows), DBEAVER_ROWS.get(name, 1), f"DBeaver {name}")
    print("DBeaver's statements")


with_psycopg()
asyncio.run(with_asyncpg())
with_sqlalchemy()
as_grafana()
as_dbeaver()
