//! What the statements may say, and how they refuse the rest.

use super::*;
use crate::statement::{self, Statement};

fn parsed(sql: &str) -> Result<Change, QueryError> {
    match statement::parse(sql)? {
        Statement::Change(change) => Ok(*change),
        other => panic!("{sql}: {other:?}"),
    }
}

/// A change in short.
fn shown(change: Change) -> String {
    let columns = |table: &NewTable| {
        let fields = table.fields.iter().map(|(name, field_type)| format!("{name} {}", field_type.name()));
        let fields: Vec<String> = fields.collect();
        format!("[{}] [{}]", table.tags.join(", "), fields.join(", "))
    };
    let seconds = |options: &TableOptions| match options.retention {
        None => String::new(),
        Some(std::time::Duration::MAX) => " forever".into(),
        Some(retention) => format!(" {}s", retention.as_secs()),
    };
    let tag = change.tag();
    match change {
        Change::CreateTable { name, if_not_exists, table } => {
            let unless = if if_not_exists { " unless there" } else { "" };
            format!("{tag} {name}{unless} {}{}", columns(&table), seconds(&table.options))
        }
        Change::AlterTable { name, if_exists, alteration } => {
            let unless = if if_exists { " if there" } else { "" };
            let alteration = match alteration {
                Alteration::Options(options) => format!("options{}", seconds(&options)),
                Alteration::AddFields(fields) => {
                    let field = |field: &NewField| {
                        let unless = if field.if_not_exists { " unless there" } else { "" };
                        format!("{} {}{unless}", field.name, field.field_type.name())
                    };
                    format!("add {}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
                }
                Alteration::ChangeType { column, to } => format!("{column} to {}", to.name()),
            };
            format!("{tag} {name}{unless}: {alteration}")
        }
        Change::ResetOptions { name, if_exists, keys } => {
            let unless = if if_exists { " if there" } else { "" };
            format!(
                "{tag} {name}{unless}: reset {}",
                keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )
        }
        Change::DropTable { name, if_exists } => format!("{tag} {name}{}", if if_exists { " if there" } else { "" }),
        Change::Optimize(names) => {
            format!("{tag} {}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Change::DeleteRows(target) => format!("{tag} {}", target.query(&["a".into(), "B c".into()], &[], Vec::new())),
        Change::RemoveFields { target, columns } => {
            let fields: Vec<Arc<str>> = columns.iter().map(|column| column.value.as_str().into()).collect();
            format!("{tag} {}", target.query(&["a".into()], &fields, Vec::new()))
        }
        Change::SetFields { target, assignments } => {
            let set = assignments.into_iter().map(|(column, value)| (column.value.as_str().into(), value));
            format!("{tag} {}", target.query(&["a".into()], &[], set.collect()))
        }
        Change::Insert(rows) => {
            let columns: Vec<String> = rows.columns.iter().map(ToString::to_string).collect();
            format!("{tag} {}({}): {}", rows.table, columns.join(", "), rows.select())
        }
    }
}

fn check(cases: &[(&str, &str)]) {
    for (sql, expected) in cases {
        match parsed(sql) {
            Ok(change) => assert_eq!(shown(change), *expected, "{sql}"),
            Err(error) => panic!("{sql}: {error}"),
        }
    }
}

fn check_refused(cases: &[(&str, &str)]) {
    for (sql, said) in cases {
        match statement::parse(sql) {
            Err(error) => assert!(error.to_string().contains(said), "{sql}: {error}"),
            Ok(statement) => panic!("{sql}: {statement:?}"),
        }
    }
}

#[test]
fn create_table_takes_columns_a_key_and_a_retention() {
    check(&[
        ("CREATE TABLE t (a TEXT, x DOUBLE)", "CREATE TABLE t [] [a string, x float]"),
        (
            "CREATE TABLE IF NOT EXISTS plant.t (device TEXT, n BIGINT, x DOUBLE, ok BOOLEAN, note TEXT, \
             u NUMERIC(20,0), time TIMESTAMP, PRIMARY KEY (device, time)) WITH (retention = '90d')",
            "CREATE TABLE plant.t unless there [device] [n integer, x float, ok boolean, note string, u unsigned] 7776000s",
        ),
        ("create table t (x real, PRIMARY KEY (time))", "CREATE TABLE t [] [x float]"),
        ("CREATE TABLE t (b TEXT, a TEXT, x INT, PRIMARY KEY (a, b, time));", "CREATE TABLE t [a, b] [x integer]"),
        ("CREATE TABLE t (x INT, time TIMESTAMPTZ NOT NULL PRIMARY KEY)", "CREATE TABLE t [] [x integer]"),
        ("CREATE TABLE t (Temp INT NULL, TIME TIMESTAMP)", "CREATE TABLE t [] [temp integer]"),
        (
            r#"CREATE TABLE "My T" ("Temp ü" INT, "d.v" TEXT, CONSTRAINT k PRIMARY KEY ("d.v", time))"#,
            r#"CREATE TABLE "My T" [d.v] [Temp ü integer]"#,
        ),
        ("CREATE TABLE t (x INT) WITH (Retention = 'Forever')", "CREATE TABLE t [] [x integer] forever"),
        ("CREATE TABLE t (x INT) WITH (retention = '36 h')", "CREATE TABLE t [] [x integer] 129600s"),
    ]);
}

#[test]
fn create_table_refuses_what_a_table_cannot_have() {
    check_refused(&[
        ("CREATE TABLE t", "a table needs a column beside time"),
        ("CREATE TABLE t ()", "a table needs a column beside time"),
        ("CREATE TABLE t (time TIMESTAMP)", "a table needs a column beside time"),
        ("CREATE TABLE t AS SELECT 1", "AS with a query"),
        ("CREATE TABLE t (x INT) AS SELECT 1", "AS with a query"),
        ("CREATE OR REPLACE TABLE t (x INT)", "OR REPLACE"),
        ("CREATE TEMPORARY TABLE t (x INT)", "a clause of this statement"),
        ("CREATE TABLE t (x INT) PARTITION BY x", "a clause of this statement"),
        ("CREATE TABLE t (x INT) LOCATION '/etc'", "a clause of this statement"),
        ("CREATE TABLE t LIKE s", "a clause of this statement"),
        ("CREATE TABLE t (x INT) INHERITS (s)", "a clause of this statement"),
        ("CREATE TABLE t (x INT) COMMENT 'x'", "is not supported in CREATE TABLE"),
        ("CREATE TABLE t (x INT) OPTIONS (retention = '1d')", "options without WITH"),
        ("CREATE TABLE t (x INT UNIQUE)", "a clause of column x"),
        ("CREATE TABLE t (x INT DEFAULT 1)", "a clause of column x"),
        ("CREATE TABLE t (x INT CHECK (x > 1))", "a clause of column x"),
        ("CREATE TABLE t (x INT REFERENCES s)", "a clause of column x"),
        ("CREATE TABLE t (x TEXT COLLATE \"C\")", "a clause of column x"),
        ("CREATE TABLE t (x INT NOT NULL)", "NOT NULL of column x, which a reading may come without"),
        ("CREATE TABLE t (x INT, UNIQUE (x))", "the constraint UNIQUE"),
        ("CREATE TABLE t (x INT, CHECK (x > 1))", "the constraint CHECK"),
        ("CREATE TABLE t (x INT, FOREIGN KEY (x) REFERENCES s (x))", "the constraint FOREIGN KEY"),
        ("CREATE TABLE t (x INT, x INT)", "column x stands there twice"),
        ("CREATE TABLE t (x INT, \"X\" INT)", "column \"X\" differs only by case from x"),
        ("CREATE TABLE t (x INT, time TIMESTAMP, time TIMESTAMP)", "column time stands there twice"),
        ("CREATE TABLE t (x INT, \"Time\" TIMESTAMP)", "reserved"),
        ("CREATE TABLE t (eden_day INT)", "reserved"),
        ("CREATE TABLE t (\"\" INT)", "a column name is empty"),
        ("CREATE TABLE t (x INT, time BIGINT)", "the column time is a TIMESTAMP, not BIGINT"),
        ("CREATE TABLE t (x INT, time TIMESTAMP(9))", "times are kept in microseconds"),
        ("CREATE TABLE t (x INT, at TIMESTAMP)", "only the column time holds a time"),
        ("CREATE TABLE t (x JSONB)", "type JSONB is not supported; there are TEXT, DOUBLE"),
        ("CREATE TABLE t (x)", "expected: a data type name"),
        ("CREATE TABLE t (d TEXT, PRIMARY KEY (d))", "the tags and then time: PRIMARY KEY (d, time)"),
        ("CREATE TABLE t (d TEXT PRIMARY KEY)", "the tags and then time: PRIMARY KEY (d, time)"),
        ("CREATE TABLE t (d TEXT, PRIMARY KEY (time, d))", "the tags and then time: PRIMARY KEY (d, time)"),
        ("CREATE TABLE t (d TEXT, PRIMARY KEY (d, d, time))", "column d is in the primary key twice"),
        ("CREATE TABLE t (d TEXT, PRIMARY KEY (d, time), PRIMARY KEY (time))", "a table has one primary key"),
        ("CREATE TABLE t (d TEXT PRIMARY KEY, PRIMARY KEY (d, time))", "a table has one primary key"),
        ("CREATE TABLE t (d INT, PRIMARY KEY (d, time))", "column d is in the primary key and so a tag"),
        ("CREATE TABLE t (device TEXT, PRIMARY KEY (devise, time))", "column devise unknown; did you mean device?"),
        ("CREATE TABLE t (d TEXT, PRIMARY KEY (d DESC, time))", "more than the name of a column in PRIMARY KEY"),
        ("CREATE TABLE t (d TEXT, PRIMARY KEY (lower(d), time))", "PRIMARY KEY"),
        ("CREATE TABLE t (x INT) WITH (shards = 4)", "option shards unknown; there is retention"),
        ("CREATE TABLE t (x INT) WITH (retention = 90)", "retention is a text"),
        ("CREATE TABLE t (x INT) WITH (retention = '90')", "retention is a text"),
        ("CREATE TABLE t (x INT) WITH (retention = '500ms')", "at least a second"),
        ("CREATE TABLE t (x INT) WITH (retention = '0d')", "at least a second"),
        ("CREATE TABLE t (x INT) WITH (retention = INTERVAL '90 days')", "retention is a text"),
        ("CREATE TABLE t (x INT) WITH (retention = '1d', retention = '2d')", "retention stands there twice"),
        (
            "CREATE EXTERNAL TABLE t (x INT) STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE EXTERNAL TABLE is not supported",
        ),
        ("CREATE VIEW v AS SELECT 1", "CREATE VIEW is not supported"),
    ]);
}

#[test]
fn alter_table_changes_options_fields_and_types() {
    check(&[
        ("ALTER TABLE t SET (retention = '90d')", "ALTER TABLE t: options 7776000s"),
        ("ALTER TABLE IF EXISTS t SET (retention = 'forever')", "ALTER TABLE t if there: options forever"),
        ("alter table s.\"T\" reset (Retention);", "ALTER TABLE s.\"T\": reset Retention"),
        ("-- back\nALTER TABLE IF EXISTS t RESET (retention)", "ALTER TABLE t if there: reset retention"),
        ("ALTER TABLE t ADD COLUMN x DOUBLE", "ALTER TABLE t: add x float"),
        ("ALTER TABLE t ADD X TEXT NULL", "ALTER TABLE t: add x string"),
        (
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS \"X\" INT, ADD y BOOL",
            "ALTER TABLE t: add X integer unless there, y boolean",
        ),
        ("ALTER TABLE t ALTER COLUMN x SET DATA TYPE DOUBLE PRECISION", "ALTER TABLE t: x to float"),
        ("ALTER TABLE t ALTER x TYPE DOUBLE", "ALTER TABLE t: x to float"),
        // A column of that name is none of its words.
        ("ALTER TABLE reset ADD COLUMN reset INT", "ALTER TABLE reset: add reset integer"),
        ("ALTER TABLE reset RESET (retention)", "ALTER TABLE reset: reset retention"),
    ]);
}

#[test]
fn alter_table_refuses_what_tables_do_not_do() {
    check_refused(&[
        ("ALTER TABLE t", "xpected"),
        ("ALTER TABLE t SET ()", "xpected"),
        ("ALTER TABLE t SET (retention = '1d') x", "xpected"),
        ("ALTER TABLE t RESET", "xpected"),
        ("ALTER TABLE t RESET ()", "xpected"),
        ("ALTER TABLE t RESET (retention) x", "xpected: end of statement"),
        ("ALTER TABLE t SET (shards = '1')", "option shards unknown"),
        ("ALTER TABLE t DROP COLUMN x", "UPDATE t SET c = NULL removes the values of c"),
        ("ALTER TABLE t RENAME TO s", "RENAME is not supported"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "RENAME is not supported"),
        ("ALTER TABLE t ADD COLUMN x INT NOT NULL", "a clause behind the type of a new column"),
        ("ALTER TABLE t ADD COLUMN x INT DEFAULT 1", "a clause behind the type of a new column"),
        ("ALTER TABLE t ADD COLUMN x INT FIRST", "this form of ALTER TABLE"),
        ("ALTER TABLE t ADD COLUMN time TIMESTAMP", "reserved"),
        ("ALTER TABLE t ADD COLUMN x UUID", "there are TEXT"),
        ("ALTER TABLE t ADD PRIMARY KEY (x)", "this form of ALTER TABLE"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (x > 1)", "this form of ALTER TABLE"),
        ("ALTER TABLE t ALTER COLUMN x SET NOT NULL", "this form of ALTER TABLE"),
        ("ALTER TABLE t ALTER COLUMN x SET DEFAULT 1", "this form of ALTER TABLE"),
        ("ALTER TABLE t ALTER COLUMN x TYPE DOUBLE USING x + 1", "expected: end of statement, found: USING"),
        ("ALTER TABLE t ADD x INT, ALTER y TYPE DOUBLE", "more than one change"),
        ("ALTER TABLE t ALTER x TYPE DOUBLE, ALTER y TYPE DOUBLE", "more than one change"),
        ("ALTER TABLE ONLY t ADD x INT", "this clause of ALTER TABLE"),
        ("ALTER VIEW v AS SELECT 1", "ALTER VIEW"),
    ]);
}

#[test]
fn drop_and_optimize_take_tables() {
    check(&[
        ("DROP TABLE t", "DROP TABLE t"),
        ("drop table if exists \"Plant\".\"T\" cascade;", "DROP TABLE \"Plant\".\"T\" if there"),
        ("OPTIMIZE TABLE t", "OPTIMIZE TABLE t"),
        ("optimize table doc.t, \"My T\";", "OPTIMIZE TABLE doc.t, \"My T\""),
    ]);
    check_refused(&[
        ("DROP TABLE a, b", "one table at a time"),
        ("DROP TABLE t PURGE", "one table at a time"),
        ("DROP TEMPORARY TABLE t", "one table at a time"),
        ("DROP VIEW v", "DROP VIEW is not supported"),
        ("DROP SCHEMA s", "DROP SCHEMA is not supported"),
        ("DROP TABLE", "xpected"),
        ("OPTIMIZE t", "xpected: TABLE"),
        ("OPTIMIZE TABLE t FINAL", "xpected: end of statement"),
        ("TRUNCATE TABLE t", "TRUNCATE TABLE is not supported"),
    ]);
}

#[test]
fn delete_and_update_become_a_query_for_keys() {
    check(&[
        ("DELETE FROM t", r#"DELETE SELECT "a", "B c", "time" FROM t"#),
        (
            "delete from s.t as x where x.v > 1 or x.v is null;",
            r#"DELETE SELECT "a", "B c", "time" FROM s.t AS x WHERE (x.v > 1 OR x.v IS NULL)"#,
        ),
        (
            "UPDATE t SET c = NULL, \"D\" = null WHERE a = 'x' OR b = 1",
            r#"UPDATE SELECT "a", "time" FROM t WHERE (a = 'x' OR b = 1) AND ("c" IS NOT NULL OR "D" IS NOT NULL)"#,
        ),
        ("UPDATE t SET c = NULL", r#"UPDATE SELECT "a", "time" FROM t WHERE ("c" IS NOT NULL)"#),
        (
            "UPDATE t SET c = c + 1, d = NULL WHERE a = 'x'",
            r#"UPDATE SELECT "a", "time", c + 1 AS "set 0", NULL AS "set 1" FROM t WHERE (a = 'x')"#,
        ),
        ("INSERT INTO s.t (a, \"B\") VALUES (1, 'x'), (2, NULL)", "INSERT s.t(a, \"B\"): VALUES (1, 'x'), (2, NULL)"),
        ("INSERT INTO t SELECT * FROM u", "INSERT t(): SELECT * FROM u"),
    ]);
}

#[test]
fn delete_and_update_refuse_what_they_do_not_do() {
    check_refused(&[
        ("DELETE t", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM a, b", "it is written DELETE FROM t WHERE"),
        ("DELETE a FROM a JOIN b ON true", "xpected"),
        ("DELETE FROM a JOIN b ON true", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM t USING s WHERE t.a = s.a", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM t RETURNING a", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM t ORDER BY a LIMIT 1", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM t LIMIT 1", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM (SELECT * FROM t)", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM t x(a, b)", "it is written DELETE FROM t WHERE"),
        ("DELETE FROM generate_series(1, 2)", "it is written DELETE FROM t WHERE"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "DELETE is not supported"),
        ("UPDATE t SET (a, b) = (NULL, NULL)", "it is written UPDATE t SET c = 1.5 * c, d = NULL"),
        ("UPDATE t SET t.c = NULL", "it is written UPDATE t SET c = 1.5 * c, d = NULL"),
        ("UPDATE t SET c = NULL FROM s", "it is written UPDATE t SET c = 1.5 * c, d = NULL"),
        ("UPDATE t SET c = NULL RETURNING c", "it is written UPDATE t SET c = 1.5 * c, d = NULL"),
        ("UPDATE t, s SET c = NULL", "xpected"),
        ("UPDATE t JOIN s ON true SET c = NULL", "it is written UPDATE t SET c = 1.5 * c, d = NULL"),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", "MERGE"),
    ]);
}

#[test]
fn changes_are_not_explained() {
    for (sql, tag) in [
        ("EXPLAIN DELETE FROM t", "DELETE"),
        ("EXPLAIN ANALYZE DELETE FROM t", "DELETE"),
        ("EXPLAIN UPDATE t SET c = NULL", "UPDATE"),
        ("EXPLAIN DROP TABLE t", "DROP TABLE"),
        ("EXPLAIN CREATE TABLE t (x INT)", "CREATE TABLE"),
        ("EXPLAIN ALTER TABLE t ADD x INT", "ALTER TABLE"),
    ] {
        match statement::parse(sql) {
            Err(QueryError::Unsupported(message)) => {
                assert!(message.starts_with(&format!("EXPLAIN {tag} is not supported")), "{sql}: {message}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

/// Half of what query threads have, so that twice is enough there.
const STACK_BYTES: usize = 8 << 20;

#[test]
fn hostile_statements_are_refused_or_small() {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(hostile_statements).unwrap();
    thread.join().unwrap();
}

fn hostile_statements() {
    // Deep trees.
    let nested = |n: usize| format!("DELETE FROM t WHERE {}a = 1{}", "(".repeat(n), ")".repeat(n));
    let chain = |n: usize| format!("DELETE FROM t WHERE a = 1{}", " OR a = 1".repeat(n));
    let arrays = |n: usize| format!("CREATE TABLE t (x {}INT{})", "ARRAY<".repeat(n), ">".repeat(n));
    let structs = |n: usize| format!("CREATE TABLE t (x {}INT{})", "STRUCT<a ".repeat(n), ">".repeat(n));
    let brackets = |n: usize| format!("CREATE TABLE t (x INT{})", "[]".repeat(n));
    let rows = |n: usize| format!("CREATE TABLE t (x {}INT{})", "Nested(a ".repeat(n), ")".repeat(n));
    let cast = |n: usize| format!("DELETE FROM t WHERE x::{}INT{} = 1", "TABLE (a ".repeat(n), ")".repeat(n));
    let value = |n: usize| format!("ALTER TABLE t SET (retention = {}1{})", "(".repeat(n), ")".repeat(n));
    let set = |n: usize| format!("UPDATE t SET c = {}NULL", "NOT ".repeat(n));
    for n in [61, 240, 499, 10_000] {
        for sql in [arrays(n), structs(n), brackets(n), rows(n), value(n), set(n)] {
            assert!(statement::parse(&sql).is_err(), "{}", &sql[..60]);
        }
    }
    // What is parsed, DataFusion refuses; here it must not end the process.
    for n in [61, 62, 240, 10_000] {
        let _ = statement::parse(&cast(n));
    }
    for sql in [nested(100_000), chain(100_000)] {
        assert!(matches!(statement::parse(&sql), Err(QueryError::Unsupported(_))), "{}", &sql[..60]);
    }
    // Wide ones are no deeper than narrow ones.
    let columns: Vec<String> = (0..20_000).map(|i| format!("c{i} TEXT")).collect();
    let key: Vec<String> = (0..20_000).map(|i| format!("c{i}")).collect();
    let sql = format!("CREATE TABLE t ({}, PRIMARY KEY ({}, time))", columns.join(","), key.join(","));
    assert!(matches!(parsed(&sql), Ok(Change::CreateTable { table, .. }) if table.tags.len() == 20_000));
    let sql = format!("UPDATE t SET {} = NULL", key.join(" = NULL,"));
    let Ok(Change::RemoveFields { target, columns }) = parsed(&sql) else { panic!("it is an UPDATE") };
    let fields: Vec<Arc<str>> = columns.iter().map(|column| column.value.as_str().into()).collect();
    assert_eq!(target.query(&[], &fields, Vec::new()).to_string().matches("IS NOT NULL").count(), 20_000);
    // A name that is long, or odd, comes back short, or as it is.
    let error = parsed(&format!("CREATE TABLE t (x {})", "y".repeat(30_000))).unwrap_err().to_string();
    assert!(error.len() < 500, "{} bytes", error.len());
    let error = parsed(&format!("CREATE TABLE t ({} INT)", "y".repeat(30_000))).unwrap_err().to_string();
    assert!(error.len() < 500, "{} bytes", error.len());
}
