"""Stock clients of Arrow Flight SQL, unchanged: ADBC's driver and InfluxDB 3's client connect, look around, query with
parameters, write and get errors. Arguments: host:port of gRPC. Prints one line for each client; ends with an error at the
first answer that is not right."""

import datetime
import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow
from influxdb_client_3 import InfluxDBClient3

ADDRESS = sys.argv[1]
UTC = datetime.timezone.utc
START = datetime.datetime(2026, 6, 1, tzinfo=UTC)


def same(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"{what}: found {found!r}, wanted {wanted!r}")


def with_adbc():
    with flightsql.connect(f"grpc://{ADDRESS}", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS fly")
        cursor.execute("CREATE TABLE fly (device TEXT, temp DOUBLE, n BIGINT, ok BOOLEAN, time TIMESTAMP, PRIMARY KEY (device, time))")
        insert = "INSERT INTO fly (device, temp, n, ok, time) VALUES ($1, $2, $3, $4, $5)"
        rows = [(f"d{i % 10}", i / 2, i, i % 2 == 0, START + datetime.timedelta(seconds=i)) for i in range(1000)]
        cursor.executemany(insert, rows)
        cursor.execute("SELECT count(*), sum(n) FROM fly")
        same(cursor.fetchall(), [(1000, 499500)], "adbc executemany")
        cursor.execute("SELECT device, temp, n, ok, time FROM fly WHERE device = $1 AND n > $2 ORDER BY n LIMIT 1", ("d3", 3))
        table = cursor.fetch_arrow_table()
        same(table.schema.field("device").type, pyarrow.string(), "adbc text")
        same(table.to_pylist(), [{"device": "d3", "temp": 6.5, "n": 13, "ok": False, "time": START + datetime.timedelta(seconds=13)}], "adbc row")
        cursor.execute("SELECT value FROM generate_series(1, 200000)")
        same(cursor.fetch_arrow_table().num_rows, 200000, "adbc many rows")
        objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        schemas = {schema["db_schema_name"]: schema["db_schema_tables"] for catalog in objects for schema in catalog["catalog_db_schemas"]}
        same("fly" in [table["table_name"] for table in schemas["public"]], True, "adbc objects")
        schema = connection.adbc_get_table_schema("fly")
        same([field.name for field in schema], ["device", "temp", "n", "ok", "time"], "adbc schema of a table")
        same(connection.adbc_get_info()["vendor_name"], "Eden", "adbc info")
        for sql, said in [("SELECT nothing FROM fly", "column nothing unknown"), ("SELEC 1", "SELEC"), ("SELECT 1 FROM nowhere", "table nowhere unknown")]:
            try:
                cursor.execute(sql)
                cursor.fetchall()
            except Exception as error:
                same(said in str(error), True, f"adbc error {error}")
            else:
                raise SystemExit(f"adbc: no error for {sql}")
    print("adbc-driver-flightsql: objects, parameters, many rows, executemany and errors are as they should be")


def with_influxdb3():
    client = InfluxDBClient3(host=f"http://{ADDRESS}", token="any", database="public")
    table = client.query("SELECT device, max(n) AS n FROM fly GROUP BY device ORDER BY device LIMIT 2", language="sql", mode="all")
    same(table.to_pylist(), [{"device": "d0", "n": 990}, {"device": "d1", "n": 991}], "influxdb3-python")
    client.close()
    print("influxdb3-python: queries by its own tickets are answered")


with_adbc()
with_influxdb3()
