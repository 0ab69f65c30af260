//! Which schema the names of other databases mean.

use model::name::{PUBLIC, check_name};

/// Schemas that are views of the server, not places for readings.
const RESERVED: [&str; 3] = ["system", "information_schema", "pg_catalog"];

/// Names of a database's retention policy that say nothing: every database has it.
const DEFAULT_POLICIES: [&str; 3] = ["", "autogen", "default"];

/// The schema that a database's name means.
pub(crate) fn of_database(db: &str) -> &str {
    if matches!(db, "" | "doc" | "iox") { PUBLIC } else { db }
}

/// As [`of_database`], if readings may be written there.
///
/// # Errors
/// Says why not.
pub(crate) fn checked(db: &str) -> Result<String, String> {
    let schema = of_database(db);
    check_name("schema", schema).map_err(|e| e.to_string())?;
    if RESERVED.iter().any(|reserved| schema.eq_ignore_ascii_case(reserved)) {
        return Err(format!("the schema {schema:?} is the server's own; choose another name"));
    }
    Ok(schema.to_owned())
}

/// The schema of a database and one of its retention policies. A policy of another name is a database of its own,
/// `db/policy`, which is also how a bucket of version 2 is called that stands for it.
///
/// # Errors
/// Says what is wrong with the names.
pub(super) fn of_policy(db: &str, policy: &str) -> Result<String, String> {
    if DEFAULT_POLICIES.contains(&policy) { checked(db) } else { checked(&format!("{}/{policy}", of_database(db))) }
}

/// The schema of a bucket.
///
/// # Errors
/// Says what is wrong with its name.
pub(super) fn of_bucket(bucket: &str) -> Result<String, String> {
    match bucket.rsplit_once('/') {
        Some((db, policy)) => of_policy(db, policy),
        None => checked(bucket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_policies_and_buckets_are_schemas() {
        for (db, policy, schema) in [
            ("", "", "public"),
            ("iox", "autogen", "public"),
            ("plant", "", "plant"),
            ("plant", "default", "plant"),
            ("plant", "one_week", "plant/one_week"),
            ("", "one_week", "public/one_week"),
        ] {
            assert_eq!(of_policy(db, policy).as_deref(), Ok(schema), "{db} {policy}");
        }
        for (bucket, schema) in
            [("", "public"), ("telegraf/autogen", "telegraf"), ("a/b/c", "a/b/c"), ("plant/week", "plant/week")]
        {
            assert_eq!(of_bucket(bucket).as_deref(), Ok(schema), "{bucket}");
        }
        for (bucket, said) in [("System", "server's own"), ("a\0b", "schema"), (&*"x".repeat(10_000), "schema")] {
            let error = of_bucket(bucket).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
