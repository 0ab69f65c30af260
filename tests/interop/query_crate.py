"""Stock clients of CrateDB, unchanged: crate-python, crash and sqlalchemy-cratedb connect, look around, query with
parameters, write one row and many, change, delete and get errors. Argument: host:port. Prints one line for each client;
ends with an error at the first answer that is not right."""

import datetime
import decimal
import gzip
import json
import pathlib
import subprocess
import sys
import urllib.request
from importlib.metadata import version

import crate.client
import sqlalchemy
from crate.client.exceptions import IntegrityError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

ADDRESS = sys.argv[1]
URL = f"http://{ADDRESS}"
UTC = datetime.timezone.utc
START = datetime.datetime(2026, 6, 1, tzinfo=UTC)
START_MS = 1_780_272_000_000
CREATE = (
    "CREATE TABLE {} (device TEXT, temp DOUBLE, n LONG, ok BOOLEAN, price NUMERIC(9, 2), note STRING, "
    "time TIMESTAMP WITH TIME ZONE, PRIMARY KEY (device, time))"
)


def same(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"{what}: found {found!r}, wanted {wanted!r}")


def has(wanted, text, what):
    if wanted not in text:
        raise SystemExit(f"{what}: {wanted!r} is not in\n{text}")


def refused(cursor, statement, wanted, what, arguments=None):
    try:
        cursor.execute(statement, arguments)
    except IntegrityError:
        raise SystemExit(f"{what}: an IntegrityError, which is for keys that are there twice")
    except ProgrammingError as error:
        has(wanted, str(error), what)
        return
    raise SystemExit(f"{what}: no error for {statement}")


def with_crate():
    with crate.client.connect(URL, username="me") as connection:
        same(str(connection.lowest_server_version), "6.4.0", "version")
        cursor = connection.cursor()
        cursor.execute(CREATE.format("cra"))
        same(cursor.rowcount, 1, "rows of CREATE TABLE")
        cursor.execute("INSERT INTO cra (device, temp, n, time) VALUES (?, ?, ?, ?)", ("d0", 0.5, 0, START))
        same(cursor.rowcount, 1, "rows of INSERT")
        # Beyond 8 KiB: gzip.
        rows = [(f"d{n % 10}", n / 2, n, n % 2 == 0, decimal.Decimal(n) / 100, START + datetime.timedelta(seconds=n)) for n in range(1000)]
        statement = "INSERT INTO cra (device, temp, n, ok, price, time) VALUES (?, ?, ?, ?, ?, ?)"
        results = cursor.executemany(statement, rows)
        same([result["rowcount"] for result in results], [1] * 1000, "rows of executemany")
        same(cursor.rowcount, 1000, "sum of executemany")
        results = cursor.executemany("UPDATE cra SET note = ? WHERE device = ?", [("a", "d1"), ("b", "d2"), ("c", "nothing")])
        same([result["rowcount"] for result in results], [100, 100, 0], "rows of bulk UPDATE")
        results = cursor.executemany("INSERT INTO cra (device, n, time) VALUES (?, ?, ?)", [("bad", "x", START_MS), ("good", 1, START_MS)])
        same([result["rowcount"] for result in results], [-2, 1], "rows of a bulk INSERT of which one is bad")
        has("Exception[", results[0]["error"]["message"], "the error of one row")

        cursor.execute("SELECT device, temp, n, ok, price, note, time FROM cra WHERE device = ? AND time > ? ORDER BY time LIMIT 1", ("d1", START + datetime.timedelta(seconds=1)))
        same([column[0] for column in cursor.description], ["device", "temp", "n", "ok", "price", "note", "time"], "columns")
        same(cursor.fetchall(), [["d1", 5.5, 11, False, 0.11, "a", START_MS + 11_000]], "row")
        cursor.execute("SELECT n FROM cra WHERE device = %(device)s AND n < %(n)s ORDER BY n", {"device": "d3", "n": 20})
        same(cursor.fetchall(), [[3], [13]], "named parameters")
        cursor.execute("SELECT current_user, current_schema, name FROM sys.cluster")
        same(cursor.fetchone(), ["me", "doc", "eden"], "session")
        same([column[0] for column in cursor.description], ["current_user", "current_schema", "name"], "columns of the session")
        cursor.execute("SELECT sum(num_docs) FROM sys.shards WHERE schema_name = 'doc' AND table_name = 'cra'")
        same(cursor.fetchone(), [1001], "rows by shards, in memory")
        cursor.execute("REFRESH TABLE cra")
        cursor.execute("SELECT sum(num_docs), count(path) FROM sys.shards WHERE schema_name = 'doc' AND table_name = 'cra'")
        same(cursor.fetchone(), [1001, 1], "rows by shards, flushed")
        cursor.execute("SELECT number_of_shards, number_of_replicas FROM information_schema.tables WHERE table_name = 'cra'")
        same(cursor.fetchone(), [1, "0"], "shards of a table")
        cursor.execute("SELECT hostname, version['number'], version['eden'], port['http'], mem['free'] + mem['used'], os_info['available_processors'], heap['used'] < heap['max'] FROM sys.nodes")
        found = cursor.fetchone()
        total = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemTotal"))
        hostname = pathlib.Path("/proc/sys/kernel/hostname").read_text().strip()
        same([found[0], found[1], *found[3:5], found[6]], [hostname, "6.4.0", int(ADDRESS.rsplit(":", 1)[1]), total, True], "node")
        same(found[5] > 0, True, "processors")
        cursor.execute("SELECT username, stmt FROM sys.jobs")
        same(cursor.fetchall(), [["me", "SELECT username, stmt FROM sys.jobs"]], "jobs")
        cursor.execute("SELECT count(*) FROM sys.checks WHERE NOT passed")
        same(cursor.fetchone(), [0], "checks that failed")
        cursor.execute("SELECT word FROM pg_catalog.pg_get_keywords() WHERE word = 'select'")
        same(cursor.fetchall(), [["select"]], "keywords")
        cursor.execute("DELETE FROM cra WHERE device = ?", ("d9",))
        same(cursor.rowcount, 100, "rows of DELETE")

        refused(cursor, "SELECT * FROM nowhere", "RelationUnknown[", "unknown table")
        refused(cursor, "SELECT nothing FROM cra", "ColumnUnknownException[", "unknown column")
        refused(cursor, "SELECT * FROM nowhere.cra", "SchemaUnknownException[", "unknown schema")
        refused(cursor, "SELEC 1", "SQLParseException[", "syntax")
        refused(cursor, "INSERT INTO cra (device, n, time) VALUES (?, ?, ?)", "SQLParseException[", "type", ("d0", "x", START_MS))
        refused(cursor, CREATE.format("cra"), "RelationAlreadyExists", "table that is there")
        refused(cursor, "DELETE FROM sys.nodes", "can only be read", "sys is read-only")
        # What is there already is written again, not refused.
        cursor.execute("INSERT INTO cra (device, n, time) VALUES (?, ?, ?)", ("d0", 7, START))
        cursor.execute("SELECT temp, n FROM cra WHERE device = 'd0' AND time = ?", (START_MS,))
        same(cursor.fetchall(), [[0.0, 7]], "a row that is written again")

    with crate.client.connect(URL, schema="plant") as connection:
        cursor = connection.cursor()
        cursor.execute(CREATE.format("line"))
        cursor.execute("SELECT current_schema")
        same(cursor.fetchone(), ["plant"], "Default-Schema")
        cursor.execute("SELECT table_schema FROM information_schema.tables WHERE table_name = 'line'")
        same(cursor.fetchall(), [["plant"]], "a table in the default schema")

    body = gzip.compress(json.dumps({"stmt": "SELECT 1 AS one"}).encode())
    request = urllib.request.Request(f"{URL}/_sql", body, {"Content-Type": "application/json", "Content-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        same(json.load(answer)["rows"], [[1]], "gzip")
    request = urllib.request.Request(URL, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request) as answer:
        has("<h1>Eden", answer.read().decode(), "the page for browsers")
    print("crate", version("crate"))


def crash(*arguments, code=0):
    """What crash says; its rows come first."""
    program = pathlib.Path(sys.executable).with_name("crash")
    done = subprocess.run([program, "--hosts", ADDRESS, *arguments], capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    same(done.returncode, code, f"crash {arguments}: {said}")
    return said


def with_crash():
    said = crash("--verbose", "-c", "SELECT 1 AS one")
    for wanted in ("CONNECT OK", "6.4.0", "CLUSTER CHECK OK", "TYPES OF NODE CHECK OK", "| one |"):
        has(wanted, said, "crash --verbose")
    said = crash("-c", "\\dt")
    for wanted in ("doc", "cra", "plant", "line", "BASE TABLE"):
        has(wanted, said, "\\dt")
    for wanted in ("CLUSTER CHECK OK", "NODE CHECK OK"):
        has(wanted, crash("-c", "\\check"), "\\check")
    for arguments in (["-c", "\\sysinfo"], ["--sysinfo"]):
        said = crash(*arguments)
        for wanted in ("number_of_shards", "number_of_records", "total_memory_mb", "eden", "6.4.0"):
            has(wanted, said, "\\sysinfo")
    has("CONNECT OK", crash("-c", f"\\connect {ADDRESS}"), "\\connect")
    rows = "SELECT n FROM cra WHERE device = 'd3' ORDER BY n LIMIT 2"
    found, _ = json.JSONDecoder().raw_decode(crash("--format", "json", "-c", rows))
    same(found, [{"n": 3}, {"n": 13}], "--format json")
    has("n\n3\n13\n", crash("--format", "csv", "-c", rows).replace("\r", ""), "--format csv")
    has("DELETE OK, 100 rows affected", crash("-c", "DELETE FROM cra WHERE device = 'd8'"), "DELETE")
    has("INSERT OK, 1 row affected", crash("-c", "INSERT INTO cra (device, n, time) VALUES ('x', 1, 0)"), "INSERT")
    has("RelationUnknown[table nowhere unknown", crash("-c", "SELECT * FROM nowhere", code=1), "an error")
    has("plant", crash("--schema", "plant", "-c", "SELECT current_schema"), "--schema")
    print("crash", version("crash"))


class Base(DeclarativeBase):
    pass


class Reading(Base):
    __tablename__ = "alc"
    device: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[datetime.datetime] = mapped_column(primary_key=True)
    temp: Mapped[float | None]
    n: Mapped[int | None] = mapped_column(sqlalchemy.BigInteger)
    ok: Mapped[bool | None]
    note: Mapped[str | None]


def with_sqlalchemy():
    engine = sqlalchemy.create_engine(f"crate://{ADDRESS}")
    naive = START.replace(tzinfo=None)
    with engine.connect() as connection:
        connection.exec_driver_sql(CREATE.format("alc"))
    inspector = sqlalchemy.inspect(engine)
    for schema in ("doc", "plant", "sys", "information_schema", "pg_catalog"):
        has(schema, inspector.get_schema_names(), "schemas")
    has("alc", inspector.get_table_names(), "tables")
    same(inspector.get_table_names("plant"), ["line"], "tables of a schema")
    same(inspector.get_view_names(), [], "views")
    same((inspector.has_table("alc"), inspector.has_table("nothing")), (True, False), "has_table")
    columns = {column["name"]: str(column["type"]) for column in inspector.get_columns("alc")}
    wanted = {"device": "VARCHAR", "temp": "DOUBLE PRECISION", "n": "BIGINT", "ok": "BOOLEAN", "price": "NUMERIC", "note": "VARCHAR", "time": "TIMESTAMP"}
    same(columns, wanted, "types of columns")
    same(inspector.get_pk_constraint("alc")["constrained_columns"], ["device", "time"], "primary key")
    same((inspector.get_foreign_keys("alc"), inspector.get_indexes("alc")), ([], []), "other keys")
    reflected = sqlalchemy.Table("alc", sqlalchemy.MetaData(), autoload_with=engine)
    same({column.name for column in reflected.primary_key}, {"device", "time"}, "the key of a reflected table")

    table = Reading.__table__
    with engine.connect() as connection:
        connection.execute(table.insert().values(device="d0", time=naive, temp=21.5, n=1, ok=True, note="ü'"))
        many = [{"device": f"d{n % 10}", "time": naive + datetime.timedelta(seconds=n), "temp": n / 2, "n": n} for n in range(1, 1000)]
        connection.execute(table.insert(), many)
        found = connection.execute(sqlalchemy.select(table).where(table.c.device == "d0", table.c.time == naive)).one()
        same(tuple(found), ("d0", naive, 21.5, 1, True, "ü'"), "row")
        count = sqlalchemy.select(sqlalchemy.func.count()).select_from(table)
        same(connection.execute(count).scalar(), 1000, "count")
        same(connection.execute(count.where(table.c.time >= naive + datetime.timedelta(seconds=990), table.c.device.in_(["d1", "d2"]))).scalar(), 2, "parameters")
        done = connection.execute(table.update().where(table.c.device == "d3").values(note="three"))
        same(done.rowcount, 100, "rows of UPDATE")
        done = connection.execute(table.delete().where(table.c.device == "d4"))
        same(done.rowcount, 100, "rows of DELETE")
        same(connection.execute(count.where(table.c.note == "three")).scalar(), 100, "what is updated")
        reflected_row = connection.execute(sqlalchemy.select(reflected.c.price, reflected.c.n).where(reflected.c.n == 5)).one()
        same(tuple(reflected_row), (None, 5), "a row of the reflected table")
        try:
            connection.execute(sqlalchemy.text("SELECT * FROM nowhere"))
            raise SystemExit("SQLAlchemy: no error")
        except sqlalchemy.exc.ProgrammingError as error:
            has("RelationUnknown", str(error), "SQLAlchemy error")
    with Session(engine) as session:
        session.add(Reading(device="orm", time=naive, temp=1.5, n=5))
        session.commit()
        reading = session.get(Reading, ("orm", naive))
        same((reading.temp, reading.n), (1.5, 5), "an object")
        reading.n = 6
        session.commit()
        same(session.scalars(sqlalchemy.select(Reading.n).where(Reading.device == "orm")).all(), [6], "an object that is changed")
        session.delete(reading)
        session.commit()
        same(session.get(Reading, ("orm", naive)), None, "an object that is deleted")
    print("sqlalchemy-cratedb", version("sqlalchemy-cratedb"), "SQLAlchemy", sqlalchemy.__version__)


with_crate()
with_crash()
with_sqlalchemy()
