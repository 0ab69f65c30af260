// node-postgres, unchanged. Argument: the port.
const { Client } = require("pg");

function same(found, wanted, what) {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`${what}: ${JSON.stringify(found)}`);
}

async function main() {
  const client = new Client({ host: "127.0.0.1", port: Number(process.argv[2]), user: "me", database: "eden" });
  await client.connect();
  const found = await client.query("SELECT device, temp, n, ok, time FROM psy WHERE device = $1 AND n > $2 ORDER BY n LIMIT 1", ["d3", 5]);
  same(found.rows, [{ device: "d3", temp: 6.5, n: "13", ok: false, time: "2026-06-01T00:00:13.000Z" }], "row");
  same(found.command, "SELECT", "command");
  const named = { name: "count", text: "SELECT count(*) AS n FROM psy WHERE time >= $1", values: [new Date("2026-06-01T00:10:00Z")] };
  for (let i = 0; i < 2; i++) same((await client.query(named)).rows, [{ n: "400" }], "prepared");
  same((await client.query("SELECT 1 AS a; SELECT 2 AS b")).map((one) => one.rows), [[{ a: "1" }], [{ b: "2" }]], "two");
  const code = await client.query("SELECT 1 FROM nowhere").catch((error) => error.code);
  same(code, "42P01", "error");
  await client.end();
  console.log("node-postgres", require("pg/package.json").version);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
