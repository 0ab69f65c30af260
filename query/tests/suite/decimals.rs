//! Columns of a declared resolution, and columns that change their type, in SQL.

use model::{FieldType, TableName, Value};
use storage::{TableOptions, TableSchema};

use crate::{DAY, HOUR, Server};

fn temp(value: f64) -> [(&'static str, Value<'static>); 1] {
    [("temp", Value::F64(value))]
}

#[tokio::test]
async fn decimals_are_compared_counted_and_summed_in_memory_in_shards_and_after_a_change() {
    let server = Server::start();
    let env = TableName::public("env");
    let fields = [("temp".into(), FieldType::decimal(1))];
    let schema = TableSchema::new(&["sensor".into()], &fields);
    server.storage.create_table(&env, &schema, TableOptions::default()).unwrap();
    let readings = [("a", DAY, &temp(20.5)[..]), ("a", DAY + HOUR, &temp(-3.0)), ("b", DAY, &temp(0.1))];
    server.write("env", &readings).await;
    server.write("env", &[("b", DAY + 30 * HOUR, &temp(21.0))]).await;
    for (step, digits) in [("in memory", 1), ("in shards", 1), ("changed", 3)] {
        if step == "in shards" {
            server.refresh("env").await;
        }
        if step == "changed" {
            let (storage, env) = (std::sync::Arc::clone(&server.storage), env.clone());
            let alter = move || storage.alter_column(&env, "temp", FieldType::decimal(3));
            assert!(tokio::task::spawn_blocking(alter).await.unwrap().unwrap());
        }
        let number = |value: f64| format!("{value:.digits$}");
        let rows = server.query("SELECT temp FROM env ORDER BY temp").await;
        assert_eq!(rows, [-3.0, 0.1, 20.5, 21.0].map(number), "{step}");
        let ends = server.query("SELECT min(temp), max(temp), count(temp), sum(temp) FROM env").await;
        let sum = [-3.0, 21.0].map(number).join(" ") + " 4 " + &number(38.6);
        assert_eq!(ends, [sum], "{step}");
        for (condition, count) in [
            ("temp > 20.4", 2),
            ("temp > 20.5", 1),
            ("temp = 0.1", 1),
            ("temp = 0.10001", 0),
            ("temp < 0", 1),
            ("temp BETWEEN -3 AND 0.1", 2),
            ("temp > 21", 0),
            ("temp IN (0.1, 21, 5)", 2),
            ("temp IS NULL", 0),
        ] {
            let rows = server.query(&format!("SELECT count(*) FROM env WHERE {condition}")).await;
            assert_eq!(rows, [count.to_string()], "{step}: {condition}");
        }
        assert_eq!(server.query("SELECT avg(temp) > 9.64 AND avg(temp) < 9.66 FROM env").await, ["true"], "{step}");
    }
    // The day of 21.0 alone: the log's statistics of the others rule them out.
    let plan = server.plan("SELECT sensor FROM env WHERE temp > 20.9").await;
    assert!(plan.contains("2024-05-02") && !plan.contains("2024-05-01"), "{plan}");
    assert_eq!(
        server.query("SELECT data_type FROM information_schema.columns WHERE column_name = 'temp'").await,
        ["Decimal128(18, 3)"]
    );
}
