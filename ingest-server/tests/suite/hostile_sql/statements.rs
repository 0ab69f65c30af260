//! The statements. A name that begins with `refused` must not succeed.

/// All of them; `trap` is a file that none may make.
pub(super) fn all(trap: &str) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let mut add = |name: &'static str, statements: Vec<String>| {
        all.extend(statements.into_iter().map(|sql| (name, sql)));
    };
    add("refused: files to read", files_to_read());
    add("refused: files to write", files_to_write(trap));
    add("refused: other statements", others());
    add("refused: limits to lift", limits());
    add("recursion", recursion());
    add("depth", depth());
    add("literals", literals());
    add("growth", growth());
    add("series without end", series());
    add("joins", joins());
    add("patterns", patterns());
    add("overflow", overflow());
    add("formats", formats());
    add("own functions", own());
    all
}

fn owned(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|sql| (*sql).to_owned()).collect()
}

fn files_to_read() -> Vec<String> {
    let mut sql = owned(&[
        "SELECT * FROM glob('/etc/*')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/etc')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT load_file('/etc/passwd')",
        "SELECT * FROM dblink('host=127.0.0.1', 'SELECT 1')",
        "SELECT * FROM list_files_cache()",
        "INSERT INTO air SELECT * FROM '/etc/passwd'",
        "COPY air FROM '/etc/passwd'",
        "COPY air FROM PROGRAM 'cat /etc/passwd'",
        "LOAD DATA INPATH '/etc/passwd' INTO TABLE air",
        "WITH f AS (SELECT * FROM '/etc/passwd') SELECT * FROM f",
        "SELECT (SELECT * FROM \"/etc/passwd\")",
        "EXPLAIN ANALYZE SELECT * FROM '/etc/passwd'",
        "SELECT * FROM air, '/etc/passwd'",
    ]);
    for function in [
        "read_parquet",
        "read_csv",
        "read_json",
        "read_csv_auto",
        "read_text",
        "read_blob",
        "parquet_scan",
        "parquet_metadata",
        "read_avro",
        "read_arrow",
    ] {
        sql.push(format!("SELECT * FROM {function}('/etc/passwd')"));
    }
    for place in [
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x.parquet",
        "https://127.0.0.1:1/x.csv",
        "s3://bucket/x.parquet",
        "gs://bucket/x",
        "az://c/x",
        "hdfs://h/x",
        "./eden.toml",
        "../../../../etc/passwd",
        "eden://tables/public",
        "data.parquet",
        "memory://x",
    ] {
        sql.push(format!("SELECT * FROM '{place}'"));
    }
    sql
}

fn files_to_write(trap: &str) -> Vec<String> {
    [
        "COPY air TO '{}'",
        "COPY (SELECT 1) TO '{}' STORED AS CSV",
        "COPY (SELECT 1) TO 'file://{}' STORED AS PARQUET",
        "COPY (SELECT 1) TO '{}.parquet'",
        "COPY air TO PROGRAM 'touch {}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{}.json'",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{}'",
        "CREATE EXTERNAL TABLE x (a INT) STORED AS PARQUET LOCATION '{}'",
        "CREATE UNBOUNDED EXTERNAL TABLE x (a INT) STORED AS CSV LOCATION '{}'",
        "INSERT INTO '{}' SELECT 1",
        "INSERT OVERWRITE DIRECTORY '{}' SELECT 1",
        "SELECT 1 INTO OUTFILE '{}'",
        "SELECT lo_export(1, '{}')",
        "EXPORT DATABASE '{}'",
        "ATTACH '{}'",
        "CREATE TABLE x LOCATION '{}' AS SELECT 1",
        "CREATE DATABASE x LOCATION '{}'",
        "UNLOAD (SELECT 1) TO '{}'",
        "CREATE FUNCTION x RETURNS INT LANGUAGE C AS '{}'",
        "WITH a AS (COPY (SELECT 1) TO '{}') SELECT * FROM a",
    ]
    .map(|sql| sql.replace("{}", trap))
    .to_vec()
}

fn others() -> Vec<String> {
    owned(&[
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE x AS SELECT 1",
        "CREATE SCHEMA x",
        "CREATE USER x",
        "GRANT ALL ON air TO x",
        "ALTER SYSTEM SET a = 1",
        "LOAD 'httpfs'",
        "INSTALL httpfs",
        "PRAGMA database_list",
        "CALL system('ls')",
        "DO $$ BEGIN END $$",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DECLARE c CURSOR FOR SELECT 1",
        "LISTEN x",
        "LOCK TABLE air",
        "TRUNCATE TABLE air",
        "DELETE FROM system.queries",
        "DROP TABLE system.agents",
        "INSERT INTO information_schema.tables VALUES (1)",
        "UPDATE pg_catalog.pg_class SET relname = 'x'",
        "SELECT 1; SELECT 2",
        "MERGE INTO air USING air b ON air.n = b.n WHEN MATCHED THEN DELETE",
        "WITH d AS (DELETE FROM air RETURNING *) SELECT * FROM d",
        "KILL -1",
        "KILL 99999999999999999999999",
    ])
}

fn limits() -> Vec<String> {
    owned(&[
        "SET datafusion.execution.batch_size = 1000000000",
        "SET datafusion.runtime.memory_limit = '1000G'",
        "SET datafusion.runtime.temp_directory = '/'",
        "SET datafusion.execution.target_partitions = 100000",
        "SET datafusion.sql_parser.recursion_limit = 1000000",
        "SET statement_timeout = 0",
        "RESET datafusion.runtime.memory_limit",
        "SET GLOBAL max_execution_time = 0",
    ])
}

fn recursion() -> Vec<String> {
    owned(&[
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) SELECT sum(n) FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION SELECT n + 1 FROM t) SELECT max(n) FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT a.n FROM t a, t b) SELECT count(*) FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + value FROM t, generate_series(1, 1000)) SELECT count(*) FROM t",
        "WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n > 0) SELECT n FROM t WHERE n < 0",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t ORDER BY n) SELECT n FROM t LIMIT 1 OFFSET 1000000000",
        "WITH RECURSIVE t AS (SELECT * FROM t) SELECT * FROM t",
        "WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a",
        "WITH a AS (SELECT * FROM a) SELECT * FROM a",
    ])
}

fn depth() -> Vec<String> {
    let around =
        |open: &str, inner: &str, close: &str, n: usize| format!("SELECT {}{inner}{}", open.repeat(n), close.repeat(n));
    let chain = |link: &str, term: &str, n: usize| format!("SELECT {}", vec![term; n].join(link));
    let mut sql = Vec::new();
    for n in [45, 400, 10_000] {
        sql.push(around("(", "1", ")", n));
        sql.push(around("NOT ", "true", "", n));
        sql.push(around("CASE WHEN true THEN ", "1", " END", n));
        sql.push(around("(SELECT ", "1", ")", n));
        sql.push(around("abs(", "1", ")", n));
        sql.push(around("[", "1", "]", n));
        sql.push(around("- ", "1", "", n));
        sql.push(around("EXISTS (SELECT ", "1", ")", n));
        sql.push(around("CAST(", "1", " AS INT)", n));
        sql.push(chain(" + ", "n", n) + " FROM air");
        sql.push(chain(" OR ", "n > t", n) + " FROM air");
        sql.push(chain(" || ", "room", n) + " FROM air");
        sql.push(vec!["SELECT 1"; n].join(" UNION "));
        sql.push(vec!["SELECT 1"; n].join(" INTERSECT "));
        sql.push(format!("SELECT 1{}", "::INT".repeat(n)));
        sql.push(format!("SELECT 1{}", " IS NULL".repeat(n)));
        sql.push(format!("SELECT n{} FROM air", "[1]".repeat(n)));
        sql.push(format!("SELECT {}n FROM air", "a.".repeat(n)));
        sql.push(format!("SELECT now(){}", " AT TIME ZONE 'UTC'".repeat(n)));
        sql.push(format!("SELECT CAST(NULL AS {}INT{})", "ARRAY<".repeat(n), ">".repeat(n)));
        sql.push(format!("SELECT * FROM {}air{}", "(SELECT * FROM ".repeat(n), ")".repeat(n)));
        sql.push(format!("SELECT 1 FROM air{}", " JOIN air USING (time)".repeat(n.min(30))) + &" ".repeat(n));
        sql.push(format!("{}SELECT 1{}", "(".repeat(n), ")".repeat(n)));
        sql.push(format!("{}SELECT 1", "EXPLAIN ".repeat(n)));
    }
    let ctes: Vec<String> = (1..400).map(|i| format!("c{i} AS (SELECT * FROM c{})", i - 1)).collect();
    sql.push(format!("WITH c0 AS (SELECT 1), {} SELECT * FROM c399", ctes.join(", ")));
    let doubled: Vec<String> = (1..40).map(|i| format!("c{i} AS (SELECT a.n FROM c{0} a, c{0} b)", i - 1)).collect();
    sql.push(format!("WITH c0 AS (SELECT 1 AS n), {} SELECT * FROM c39", doubled.join(", ")));
    let texts: Vec<String> = (1..40).map(|i| format!("c{i} AS (SELECT s || s AS s FROM c{})", i - 1)).collect();
    sql.push(format!("WITH c0 AS (SELECT room AS s FROM air), {} SELECT max(length(s)) FROM c39", texts.join(", ")));
    sql.push(format!("SELECT {}", vec!["n"; 20_000].join(", ")) + " FROM air");
    sql.push(format!("SELECT 1 IN ({})", (0..200_000).map(|i| i.to_string()).collect::<Vec<_>>().join(",")));
    sql.push(format!("VALUES {}", vec!["(1)"; 100_000].join(",")));
    sql.push(
        format!("SELECT {}", (0..5_000).map(|i| format!("sum(n + {i})")).collect::<Vec<_>>().join(",")) + " FROM air",
    );
    sql.push(format!(
        "SELECT count(*) FROM air GROUP BY CUBE ({})",
        (0..30).map(|i| format!("n + {i}")).collect::<Vec<_>>().join(",")
    ));
    sql.push(format!(
        "SELECT {} FROM air",
        (0..400).map(|i| format!("sum(n) OVER (ORDER BY t + {i})")).collect::<Vec<_>>().join(",")
    ));
    sql.push(format!("/*{}", "/*".repeat(100_000)));
    for what in ["CAST(", "ARRAY[", "FLOOR(", "POSITION(", "SUBSTRING(", "OVERLAY(", "CONVERT("] {
        sql.push(format!("SELECT {}1 1", what.repeat(12)));
        sql.push(format!("SELECT {}1 1", what.repeat(40)));
    }
    // What ends a comment depends on the dialect.
    sql.push(format!("SELECT current_user --\r, {}1", "1+".repeat(500_000)));
    sql.push(format!("SELECT current_user, q'[', {}1, ']'", "1+".repeat(500_000)));
    sql
}

fn literals() -> Vec<String> {
    let mut sql = vec![
        format!("SELECT length('{}')", "x".repeat(1 << 20)),
        format!("SELECT '{}'", "x".repeat(10 << 20)),
        format!("SELECT {}", "9".repeat(1_000_000)),
        format!("SELECT 0.{}1", "0".repeat(1_000_000)),
        format!("SELECT 1e{}", "9".repeat(1000)),
        format!("SELECT \"{}\"", "x".repeat(1 << 20)),
        format!("SELECT 1 AS \"{}\"", "x".repeat(1 << 20)),
        format!("SELECT INTERVAL '{} years'", "9".repeat(1000)),
        format!("SELECT TIMESTAMP '{}-01-01'", "9".repeat(1000)),
        format!("SELECT X'{}'", "f".repeat(1 << 20)),
        format!("SELECT DECIMAL '{}'", "9".repeat(100_000)),
        format!("SELECT * FROM \"{}\"", "x".repeat(100_000)),
        "\u{0}\u{0}\u{0}".to_owned(),
        "SELECT '\u{0}'".to_owned(),
        "SELECT U&'\\+FFFFFF'".to_owned(),
        "SELECT E'\\xff\\xff'".to_owned(),
        "SELECT '\u{202e}' || '\u{fdd0}'".to_owned(),
        "SELECT '".to_owned(),
        "SELECT $$".to_owned(),
        ";".repeat(1 << 20),
    ];
    sql.push(format!("SELECT {}", "?".repeat(1000)));
    sql.push("SELECT $99999999999999999999".into());
    sql.push("SELECT $1000000000".into());
    sql
}

fn growth() -> Vec<String> {
    owned(&[
        "SELECT length(repeat('x', 1000000000))",
        "SELECT length(repeat('x', 9223372036854775807))",
        "SELECT repeat('x', -9223372036854775808)",
        "SELECT max(length(repeat(room, 100000000))) FROM air",
        "SELECT max(length(repeat('x', 1000000 * value))) FROM generate_series(1, 1000)",
        "SELECT length(lpad('x', 2000000000, 'ab'))",
        "SELECT length(rpad('x', 2000000000))",
        "SELECT length(lpad(room, 9223372036854775807)) FROM air",
        "SELECT max(length(rpad(room, 100000000, 'ab'))) FROM air",
        "SELECT array_length(array_repeat(1, 1000000000))",
        "SELECT array_length(array_repeat(array_repeat(array_repeat(1, 10000), 10000), 10000))",
        "SELECT array_length(array_repeat('x', 9223372036854775807))",
        "SELECT array_length(array_resize([1], 1000000000, 0))",
        "SELECT array_length(array_resize([1], 9223372036854775807))",
        "SELECT array_length(range(1, 10000000000))",
        "SELECT array_length(generate_series(1, 10000000000))",
        "SELECT array_length(generate_series(-9223372036854775808, 9223372036854775807))",
        "SELECT array_length(range(0, 10, 0))",
        "SELECT array_length(range(TIMESTAMP '0001-01-01', TIMESTAMP '9999-01-01', INTERVAL '1 second'))",
        "SELECT sum(array_length(range(0, value * 1000000))) FROM generate_series(1, 1000)",
        "SELECT length(replace(repeat('a', 1000000), 'a', repeat('b', 1000000)))",
        "SELECT length(replace(repeat('a', 1000000), '', repeat('b', 1000000)))",
        "SELECT length(regexp_replace(repeat('a', 1000000), 'a', repeat('b', 1000000), 'g'))",
        "SELECT length(regexp_replace(repeat('a', 1000000), '(a*)', '\\1\\1\\1\\1\\1\\1\\1\\1', 'g'))",
        "SELECT length(array_to_string(array_repeat(repeat('x', 100000), 100000), ','))",
        "SELECT length(translate(repeat('a', 10000000), 'a', 'b'))",
        "SELECT length(encode(repeat('a', 50000000)::BYTEA, 'hex'))",
        "SELECT length(string_agg(repeat('x', 100000), ',')) FROM generate_series(1, 100000)",
        "SELECT array_length(array_agg(repeat('x', 1000))) FROM generate_series(1, 10000000)",
        "SELECT count(DISTINCT repeat('x', 1000) || value) FROM generate_series(1, 10000000)",
        "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
        "SELECT length(concat_ws(repeat('x', 10000000), 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'))",
        "SELECT factorial(9223372036854775807)",
        "SELECT power(10, 1000000), exp(1e308), 2 ^ 100000",
        "SELECT array_length(string_to_array(repeat('a,', 10000000), ','))",
        "SELECT array_length(array_distinct(range(0, 10000000)))",
        "SELECT array_length(array_union(range(0, 5000000), range(0, 5000000)))",
        "SELECT array_length(array_remove_all(range(0, 5000000), 5))",
        "SELECT array_length(flatten(array_repeat(range(0, 100000), 100000)))",
        "SELECT length(to_hex(9223372036854775807)), chr(0), chr(1114112), chr(-1)",
        "SELECT length(overlay(repeat('x', 10000000) PLACING repeat('y', 10000000) FROM 1))",
        "SELECT length(split_part(repeat('a,', 10000000), ',', -9223372036854775808))",
        "SELECT substr('abc', -9223372036854775808, 9223372036854775807)",
        "SELECT left('abc', -9223372036854775808), right('abc', 9223372036854775807)",
        "SELECT strpos(repeat('a', 10000000), repeat('a', 5000000) || 'b')",
        "SELECT length(format(repeat('%1$s', 100000), repeat('x', 10000000)))",
        "SELECT max(length(format('%1$s%1$s%1$s', repeat(room, 1000000)))) FROM air",
        "SELECT length(array_to_string(array_repeat('', 1000000), repeat('x', 10000000)))",
        "SELECT length(string_agg('', repeat('x', 10000000))) FROM generate_series(1, 100000)",
        "SELECT array_length(range(TIMESTAMP '2020-01-01', TIMESTAMP '2020-01-01 00:00:08', INTERVAL '1 nanosecond'))",
        "SELECT length(lpad('', 67108864, '😀'))",
        "SELECT repeat('x', 50000000), value FROM generate_series(1, 100000)",
        "SELECT max(CASE WHEN value > 5 THEN repeat('x', 50000000) ELSE '' END) FROM generate_series(1, 100000)",
        "SELECT max(length(repeat('x', 50000000) || value)) FROM generate_series(1, 100000)",
        "SELECT max(array_length([repeat('x', 1000000), room])) FROM air",
        "SELECT string_agg(repeat('x', 1000), '') OVER (ORDER BY value) FROM generate_series(1, 1000000)",
    ])
}

fn series() -> Vec<String> {
    owned(&[
        "SELECT count(*) FROM generate_series(1, 1000000000000000)",
        "SELECT value FROM generate_series(1, 9223372036854775807) WHERE value < 0",
        "SELECT value FROM generate_series(1, 9223372036854775807) ORDER BY value DESC LIMIT 1",
        "SELECT value FROM generate_series(1, 9223372036854775807) ORDER BY value LIMIT 1000000000000",
        "SELECT DISTINCT value FROM generate_series(1, 1000000000000)",
        "SELECT value % 1000000007, count(*) FROM generate_series(1, 1000000000000) GROUP BY 1",
        "SELECT sum(value) OVER (ORDER BY value) FROM generate_series(1, 1000000000000)",
        "SELECT row_number() OVER () FROM generate_series(1, 1000000000000) LIMIT 1 OFFSET 100000000000",
        "SELECT median(value) FROM generate_series(1, 1000000000000)",
        "SELECT array_agg(value ORDER BY -value) FROM generate_series(1, 1000000000000)",
        "SELECT * FROM generate_series(1, 10, 0)",
        "SELECT * FROM generate_series(9223372036854775807, 9223372036854775806, -1)",
        "SELECT count(*) FROM generate_series(-9223372036854775808, 9223372036854775807, 1)",
        "SELECT count(*) FROM range(TIMESTAMP '0001-01-01', TIMESTAMP '9999-01-01', INTERVAL '1 microsecond')",
        "SELECT count(*) FROM generate_series(1, 1e15)",
        "SELECT count(*) FROM generate_series(1, 10) LIMIT -1",
        "SELECT 1 LIMIT 9223372036854775807 OFFSET 9223372036854775807",
        "SELECT 1 LIMIT 99999999999999999999",
        "SELECT count(*) FROM (SELECT unnest(range(0, 10000000)) FROM generate_series(1, 1000000))",
    ])
}

fn joins() -> Vec<String> {
    let big = "generate_series(1, 10000000)";
    vec![
        format!("SELECT count(*) FROM {big} a, {big} b, {big} c"),
        format!("SELECT count(*) FROM {big} a, {big} b WHERE a.value + b.value = -1"),
        format!("SELECT count(*) FROM {big} a JOIN {big} b ON a.value < b.value AND a.value * b.value < 0"),
        format!("SELECT count(*) FROM {big} a JOIN {big} b ON a.value % 2 = b.value % 2 AND a.value + b.value < 0"),
        format!("SELECT * FROM {big} a, {big} b ORDER BY a.value * b.value"),
        format!("SELECT array_agg(a.value) FROM {big} a, {big} b"),
        format!("SELECT count(*) FROM {big} a FULL JOIN {big} b ON a.value = -b.value"),
        format!("SELECT count(*) FROM {big} a WHERE EXISTS (SELECT 1 FROM {big} b WHERE b.value > a.value AND b.value < 0)"),
        format!("SELECT count(*) FROM {big} a WHERE a.value NOT IN (SELECT value + 1 FROM {big})"),
        format!("SELECT count(*) FROM {big} a WHERE a.value = (SELECT max(value) FROM {big} b WHERE b.value <> a.value)"),
        format!("SELECT (SELECT value FROM {big})"),
        "SELECT count(*) FROM air a, air b, air c, air d, air e, air f, air g, air h".to_owned(),
        "SELECT count(*) FROM information_schema.columns a, information_schema.columns b, information_schema.columns c, \
         information_schema.columns d"
            .to_owned(),
        "SELECT count(*) FROM system.queries a, system.queries b, system.queries c, system.queries d, system.queries e".to_owned(),
        "SELECT count(*) FROM pg_catalog.pg_class a, pg_catalog.pg_class b, pg_catalog.pg_class c, pg_catalog.pg_class d, \
         pg_catalog.pg_class e"
            .to_owned(),
        "SELECT DISTINCT a.room || b.room || c.room || d.t || e.t || f.t FROM air a, air b, air c, air d, air e, air f".to_owned(),
        format!("SELECT lag(value, -9223372036854775808) OVER (ORDER BY value) FROM {big} LIMIT 1"),
        format!("SELECT ntile(9223372036854775807) OVER (ORDER BY value) FROM {big} LIMIT 1"),
        format!("SELECT sum(value) OVER (ROWS BETWEEN 9223372036854775807 PRECEDING AND 9223372036854775807 FOLLOWING) FROM {big} LIMIT 1"),
        format!("SELECT array_agg(value) OVER (ORDER BY value ROWS BETWEEN 100000 PRECEDING AND CURRENT ROW) FROM {big}"),
    ]
}

fn patterns() -> Vec<String> {
    let mut sql = owned(&[
        "SELECT regexp_like(repeat('a', 100000), '(a*)*b')",
        "SELECT regexp_like(repeat('a', 100000), '(a|aa)+$')",
        "SELECT regexp_like('a', '(((a{1,1000}){1,1000}){1,1000}){1,1000}')",
        "SELECT regexp_like('a', 'a{1000000000}')",
        "SELECT regexp_like('a', '\\p{L}{1000}\\p{N}{1000}')",
        "SELECT regexp_like('a', '(?<=a)b')",
        "SELECT regexp_like('a', '(')",
        "SELECT regexp_count(repeat('a', 1000000), '')",
        "SELECT array_length(regexp_match(repeat('a', 1000000), '(a)*'))",
        "SELECT 'a' ~ '(x+x+)+y', 'a' !~* '[[:alpha:'",
        "SELECT 'a' SIMILAR TO '(a{1000}){1000}'",
        "SELECT room FROM air WHERE regexp_like(room, '(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)x')",
    ]);
    sql.push(format!("SELECT repeat('a', 1000000) LIKE '{}b'", "%a".repeat(10_000)));
    sql.push(format!("SELECT repeat('a', 100000) ILIKE '{}b'", "%_a".repeat(1_000)));
    sql.push(format!("SELECT regexp_like('a', '{}')", "(a".repeat(5_000) + &")".repeat(5_000)));
    sql.push(format!("SELECT regexp_like('a', '{}')", "a|".repeat(200_000)));
    sql.push("SELECT 'a' LIKE '\\'".into());
    sql.push("SELECT 'a' LIKE 'a' ESCAPE 'ab'".into());
    sql
}

fn overflow() -> Vec<String> {
    owned(&[
        "SELECT CAST(1e308 AS INT)",
        "SELECT CAST('99999999999999999999' AS BIGINT)",
        "SELECT 300::TINYINT",
        "SELECT -9223372036854775808 / -1",
        "SELECT -9223372036854775808 % -1",
        "SELECT (-9223372036854775808)::BIGINT / (-1)::BIGINT FROM air",
        "SELECT (n - 9223372036854775807 - 1) % -1 FROM air WHERE n = 0",
        "SELECT (n - 9223372036854775807 - 1) / -1 FROM air WHERE n = 0",
        "SELECT abs(-9223372036854775808)",
        "SELECT abs(n - 9223372036854775807 - 1) FROM air WHERE n = 0",
        "SELECT 1 % 0, 1 / 0",
        "SELECT DATE '2026-01-01' + INTERVAL '1000000000 years'",
        "SELECT TIMESTAMP '2026-01-01' + INTERVAL '9223372036854775807 days'",
        "SELECT now() + INTERVAL '2147483647 months'",
        "SELECT max(time) + INTERVAL '2147483647 months' FROM air",
        "SELECT INTERVAL '2147483647 months' * 2147483647",
        "SELECT INTERVAL '1 month' * 1e300",
        "SELECT to_timestamp(9223372036854775807), to_timestamp(-9223372036854775808), to_timestamp(1e300)",
        "SELECT from_unixtime(9223372036854775807)",
        "SELECT make_date(2147483647, 12, 31), make_date(-2147483648, 1, 1)",
        "SELECT date_bin(INTERVAL '0 seconds', now())",
        "SELECT date_bin(INTERVAL '-1 second', now())",
        "SELECT date_bin(INTERVAL '2147483647 months', now())",
        "SELECT date_trunc('nonsense', now())",
        "SELECT date_trunc('century', TIMESTAMP '0001-01-01'), date_part('epoch', DATE '9999-12-31')",
        "SELECT CAST('-262144-01-01T00:00:00' AS TIMESTAMP)",
        "SELECT CAST('+262143-01-01' AS DATE) + INTERVAL '1 year'",
        "SELECT CAST(2147483647 AS DATE), CAST(-2147483648 AS DATE)",
        "SELECT CAST(99999999999999999999999999999999999999 AS DECIMAL(38,0)) * 99999999999999999999999999999999999999",
        "SELECT CAST(1 AS DECIMAL(38,38)), CAST(1 AS DECIMAL(76,76)), CAST(1 AS DECIMAL(1000,-1000))",
        "SELECT sum(9223372036854775807) FROM air",
        "SELECT sum(CAST(99999999999999999999999999999999999999 AS DECIMAL(38,0))) FROM air",
        "SELECT round(1.5, 2147483647), round(1e308, -2147483648), trunc(1.5, 9223372036854775807)",
        "SELECT gcd(-9223372036854775808, -1), lcm(9223372036854775807, 9223372036854775806)",
        "SELECT 1 << 64, 1 << -1, 1 >> 1000",
        "SELECT cot(0), ln(-1), sqrt(-1), acos(2), log(0, 0), 'NaN'::DOUBLE = 'NaN'::DOUBLE",
        "SELECT [1, 2, 3][-9223372036854775808], [1, 2, 3][9223372036854775807]",
        "SELECT [1, 2, 3][-9223372036854775808:9223372036854775807:-9223372036854775808]",
        "SELECT array_slice([1, 2, 3], 1, 3, 0), array_element([], 0)",
        "SELECT extract(epoch FROM INTERVAL '2147483647 years')",
    ])
}

fn formats() -> Vec<String> {
    let mut sql = owned(&[
        "SELECT to_char(now(), '%Q%!%')",
        "SELECT to_char(now(), '%')",
        "SELECT to_char(now(), '%9999999999d')",
        "SELECT to_timestamp('x', '%Q')",
        "SELECT to_timestamp('2026', '%')",
        "SELECT to_date('2026-01-01', '%%%')",
        "SELECT arrow_cast(1, 'Dictionary(Int8, Nonsense)')",
        "SELECT arrow_cast(1, 'FixedSizeBinary(2147483647)')",
        "SELECT arrow_cast([1], 'FixedSizeList(2147483647 x Int8)')",
        "SELECT arrow_cast('x', 'Timestamp(Nanosecond, Some(\"Not/A_Zone\"))')",
        "SELECT now() AT TIME ZONE 'Not/A_Zone'",
        "SELECT now() AT TIME ZONE '+99:99'",
        "SELECT encode('x', 'nonsense'), decode('zz', 'hex')",
        "SELECT digest('x', 'nonsense')",
        "SELECT json_get('{', 'a'), json_get('[[[[[[', 0)",
        "SELECT uuid() || repeat('x', -1), random() / 0",
        "SELECT current_setting('nonsense')",
        "SELECT quote_literal(1), format('%s %1000000000s', 1)",
        "SELECT named_struct('a', 1)['b'], struct(1)['c0']['c0']",
        "SELECT map([1, 1], [2, 3]), map([NULL], [1])",
    ]);
    sql.push(format!("SELECT to_char(now(), '{}')", "%c".repeat(100_000)));
    sql.push(format!("SELECT json_get('{}', 'a')", "[".repeat(1_000_000)));
    sql.push(format!("SELECT json_length('{}')", "{\"a\":".repeat(100_000)));
    sql.push(format!("SELECT arrow_cast(NULL, '{}Int8{}')", "List(".repeat(5_000), ")".repeat(5_000)));
    sql
}

fn own() -> Vec<String> {
    owned(&[
        "SELECT time_bucket('0s', time) FROM air",
        "SELECT time_bucket('-1s', time) FROM air",
        "SELECT time_bucket(INTERVAL '178956970 years', time) FROM air",
        "SELECT time_bucket('9223372036854775807s', time) FROM air",
        "SELECT time_bucket_gapfill('1 microsecond', time) AS b, avg(t) FROM air WHERE time BETWEEN '0001-01-01' AND '9999-01-01' \
         GROUP BY b",
        "SELECT time_bucket_gapfill('1us', time) AS b, locf(avg(t)) AS v FROM air WHERE time >= '1900-01-01' AND time < '2100-01-01' \
         GROUP BY b HAVING avg(t) < -1",
        "SELECT time_bucket_gapfill('1us', time) AS b, room, interpolate(avg(t)) FROM air \
         WHERE time >= '2000-01-01' AND time < '2100-01-01' GROUP BY b, room ORDER BY b DESC LIMIT 1",
        "SELECT lttb(time, t, 9223372036854775807) FROM air",
        "SELECT lttb(time, t, -1) FROM air",
        "SELECT approx_percentile(t, 2.0), approx_percentile(t, -1) FROM air",
        "SELECT rate(time, t), increase(time, t), delta(time, t) FROM air GROUP BY time",
        "SELECT first(t, time), last(t, time) FROM air a, air b, air c, air d",
        "SELECT count(*) FROM air a ASOF JOIN air b MATCH_CONDITION (a.time >= b.time)",
        "SELECT count(*) FROM air a ASOF JOIN generate_series(1, 1000000000) b MATCH_CONDITION (a.n >= b.value)",
        "SELECT top_k(t, 9223372036854775807) FROM air",
        "SELECT approx_top_k(t, 1000000000) FROM air",
        "DELETE FROM air WHERE n = (SELECT max(value) FROM generate_series(1, 1000000000000))",
        "UPDATE air SET t = length(repeat('x', 1000000000)) WHERE n = -1",
        "INSERT INTO air (t) SELECT value FROM generate_series(1, 10) WHERE length(repeat('x', 2000000000)) < 0",
        "SELECT * FROM air WHERE time > '999999999-01-01'",
        "SELECT * FROM air WHERE time = 9223372036854775807",
    ])
}
