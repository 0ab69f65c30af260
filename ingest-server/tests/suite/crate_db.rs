//! What clients of CrateDB ask over `/_sql` before they do anything else.

use serde_json::{Value, json};

use crate::process::{Eden, get};

fn filled() -> Eden {
    let eden = Eden::start();
    let answer =
        eden.write("air,room=a temperature=21.5 1780272000000000\nair,room=b temperature=20 1780272001000000\n");
    assert_eq!(answer.status, 204, "{answer:?}");
    eden
}

fn rows_with(eden: &Eden, headers: &[(&str, &str)], statement: &str) -> Value {
    let answer = eden.post("/_sql", headers, json!({ "stmt": statement }).to_string().as_bytes());
    assert_eq!(answer.status, 200, "{statement}: {answer:?}");
    answer.json()["rows"].clone()
}

#[test]
fn sys_tells_what_is_true_of_the_node_and_its_tables() {
    let eden = filled();
    let info = get(&eden.url, "/", &[("accept", "application/json")]).json();
    let nodes =
        eden.rows("SELECT name, version['number'], port['http'], mem['free'] > 0, heap['used'] > 0 FROM sys.nodes");
    let port: u16 = eden.url.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(nodes, json!([[info["name"], info["version"]["number"], port, true, true]]));
    assert_eq!(eden.rows("SELECT master_node = id FROM sys.cluster"), json!([[true]]));
    let shards =
        "SELECT num_docs, path IS NULL FROM sys.shards WHERE schema_name = 'doc' AND table_name = 'air' ORDER BY 1";
    assert_eq!(eden.rows(shards), json!([[2, true]]));
    eden.sql("REFRESH TABLE air");
    eden.write("air,room=a temperature=22 1780272000000000\nair,room=c temperature=1 1780272002000000");
    // Of the two rows in the file memory has one anew.
    assert_eq!(eden.rows(shards), json!([[1, false], [2, true]]));
    assert_eq!(eden.rows("SELECT bool_and(passed), count(*) FROM sys.checks"), json!([[true, 2]]));
    assert_eq!(eden.rows("SELECT bool_and(passed), count(*) FROM sys.node_checks"), json!([[true, 2]]));
    assert_eq!(eden.rows("SELECT stmt FROM sys.jobs"), json!([["SELECT stmt FROM sys.jobs"]]));
    assert_eq!(eden.sql("SELECT blobs_path FROM sys.nodes").status, 404);
    assert_eq!(eden.sql("CREATE TABLE sys.mine (x DOUBLE)").status, 400);
}

#[test]
fn the_schema_public_is_called_as_the_client_calls_it() {
    let eden = filled();
    for (headers, name) in [
        (&[][..], "doc"),
        (&[("default-schema", "doc")][..], "doc"),
        (&[("default-schema", "public")][..], "public"),
        (&[("default-schema", "Public")][..], "public"),
    ] {
        let tables = "SELECT table_schema, number_of_shards FROM information_schema.tables WHERE table_name = 'air'";
        assert_eq!(rows_with(&eden, headers, tables), json!([[name, 0]]));
        assert_eq!(rows_with(&eden, headers, "SELECT current_schema"), json!([[name]]));
        assert_eq!(rows_with(&eden, headers, "SELECT DISTINCT schema_name FROM sys.shards"), json!([[name]]));
        let schemas = "SELECT schema_name FROM information_schema.schemata ORDER BY 1";
        let mut expected = ["information_schema", "pg_catalog", "sys", "system", name];
        expected.sort_unstable();
        assert_eq!(rows_with(&eden, headers, schemas), json!(expected.map(|name| [name])));
        let keys = "SELECT column_name, ordinal_position FROM information_schema.key_column_usage \
                    WHERE table_name = 'air' AND table_schema = current_schema ORDER BY 2";
        assert_eq!(rows_with(&eden, headers, keys), json!([["room", 1], ["time", 2]]));
        assert_eq!(rows_with(&eden, headers, &format!("SELECT count(*) FROM {name}.air")), json!([[2]]));
    }
    let types = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'air' ORDER BY 1";
    let expected = json!([["room", "text"], ["temperature", "double precision"], ["time", "timestamp with time zone"]]);
    assert_eq!(eden.rows(types), expected);
}

#[test]
fn a_session_has_the_user_that_the_request_names() {
    let eden = filled();
    let statement = "SELECT current_user, session_user, current_schema, name FROM sys.cluster";
    let answer = eden.post("/_sql", &[("x-user", "me")], json!({ "stmt": statement }).to_string().as_bytes()).json();
    assert_eq!(answer["rows"], json!([["me", "me", "doc", "eden"]]));
    assert_eq!(answer["cols"], json!(["current_user", "session_user", "current_schema", "name"]));
    assert_eq!(eden.rows("SELECT current_user"), json!([["crate"]]));
    assert!(eden.rows("SELECT version()")[0][0].as_str().unwrap().starts_with("CrateDB "));
}

#[test]
fn a_query_passes_over_values_without_parameters_and_a_change_does_not() {
    let eden = filled();
    let post =
        |stmt: &str, args: Value| eden.post("/_sql", &[], json!({ "stmt": stmt, "args": args }).to_string().as_bytes());
    let answer = post("SELECT count(*) FROM air WHERE room = ?", json!(["a", "b"]));
    assert_eq!((answer.status, answer.json()["rows"].clone()), (200, json!([[1]])));
    assert_eq!(post("DELETE FROM air WHERE room = ?", json!(["a", "b"])).status, 400);
    assert_eq!(post("SELECT count(*) FROM air WHERE room = ?", json!([])).status, 400);
    assert_eq!(eden.rows("SELECT count(*) FROM air"), json!([[2]]));
}

#[test]
fn a_schema_sys_of_somebodys_own_goes_first() {
    let eden = filled();
    assert_eq!(eden.post("/api/v3/write_lp?db=sys", &[], b"nodes v=7 1").status, 204);
    assert_eq!(eden.rows("SELECT v FROM sys.nodes"), json!([[7.0]]));
    assert_eq!(eden.sql("SELECT * FROM sys.cluster").status, 404);
}
