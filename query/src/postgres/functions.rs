//! Functions that clients of PostgreSQL call beside those of the library.
//!
//! Owns:     those that a session answers, and some that the server answers for all of it.
//! Does not: know what a setting means.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility, create_udf,
};

use super::ClientSession;

/// What `version()` says. Clients look for the first two words.
const VERSION: &str = concat!("PostgreSQL 16.6 (Eden ", env!("CARGO_PKG_VERSION"), ")");

/// A function that always gives the same.
pub(crate) fn constant(name: &str, value: ScalarValue) -> ScalarUDF {
    let data_type = value.data_type();
    let give = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
    create_udf(name, vec![], data_type, Volatility::Stable, Arc::new(give))
}

/// A function of any arguments that gives the same for all of them.
fn same_for_all(name: &'static str, arguments: usize, value: ScalarValue) -> ScalarUDF {
    ScalarUDF::from(SameForAll { name, value, signature: Signature::any(arguments, Volatility::Stable) })
}

/// As [`same_for_all`], of any of these numbers of arguments.
fn any_of(name: &'static str, arguments: &[usize], value: ScalarValue) -> ScalarUDF {
    let forms = arguments.iter().map(|count| TypeSignature::Any(*count)).collect();
    ScalarUDF::from(SameForAll { name, value, signature: Signature::one_of(forms, Volatility::Stable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SameForAll {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for SameForAll {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// Those that are the same for everybody.
pub(super) fn of_server() -> Vec<ScalarUDF> {
    let text = |value: Option<&str>| ScalarValue::Utf8(value.map(str::to_owned));
    vec![
        constant("version", text(Some(VERSION))),
        constant("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        constant("txid_current", ScalarValue::Int64(Some(1))),
        // Nothing is locked, so there is nothing to let go.
        constant("pg_advisory_unlock_all", text(Some(""))),
        constant("pg_my_temp_schema", ScalarValue::Int32(Some(0))),
        constant("pg_postmaster_start_time", ScalarValue::Utf8(None)),
        constant("inet_server_addr", text(None)),
        // Nothing has a comment.
        same_for_all("obj_description", 2, text(None)),
        same_for_all("shobj_description", 2, text(None)),
        same_for_all("col_description", 2, text(None)),
        // No table has an index, a rule, a trigger or a sequence.
        any_of("pg_get_indexdef", &[1, 3], text(None)),
        any_of("pg_get_viewdef", &[1, 2], text(None)),
        same_for_all("pg_get_triggerdef", 1, text(None)),
        same_for_all("pg_get_ruledef", 1, text(None)),
        same_for_all("pg_get_serial_sequence", 2, text(None)),
        same_for_all("pg_get_function_result", 1, text(None)),
        same_for_all("pg_get_function_arguments", 1, text(None)),
        same_for_all("pg_get_function_identity_arguments", 1, text(None)),
        same_for_all("pg_function_is_visible", 1, ScalarValue::Boolean(Some(true))),
        same_for_all("pg_type_is_visible", 1, ScalarValue::Boolean(Some(true))),
        same_for_all("pg_collation_is_visible", 1, ScalarValue::Boolean(Some(true))),
        same_for_all("pg_operator_is_visible", 1, ScalarValue::Boolean(Some(true))),
        same_for_all("pg_opclass_is_visible", 1, ScalarValue::Boolean(Some(true))),
        same_for_all("pg_conversion_is_visible", 1, ScalarValue::Boolean(Some(true))),
        same_for_all("pg_ts_config_is_visible", 1, ScalarValue::Boolean(Some(true))),
        same_for_all("pg_tablespace_location", 1, text(Some(""))),
        same_for_all("pg_database_size", 1, ScalarValue::Int64(None)),
        same_for_all("pg_size_pretty", 1, text(None)),
        same_for_all("pg_table_size", 1, ScalarValue::Int64(None)),
        same_for_all("pg_indexes_size", 1, ScalarValue::Int64(None)),
        same_for_all("pg_char_to_encoding", 1, ScalarValue::Int32(Some(6))),
        // Types of extensions are asked for by it, and there are none.
        same_for_all("to_regtype", 1, ScalarValue::Int32(None)),
        same_for_all("has_function_privilege", 2, ScalarValue::Boolean(Some(true))),
    ]
}

/// Those that tell of the session.
pub(super) fn of_session(session: &ClientSession, default_schema: &str) -> Vec<ScalarUDF> {
    let user = || ScalarValue::Utf8(Some(session.user.clone()));
    let settings: Vec<_> = session.settings.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    vec![
        constant("session_user", user()),
        constant("user", user()),
        constant("current_schema", ScalarValue::Utf8(Some(default_schema.to_owned()))),
        constant("pg_backend_pid", ScalarValue::Int32(Some(session.process))),
        same_for_all_users(&session.user),
        ScalarUDF::from(SetConfig::new(Clone::clone(&settings))),
        ScalarUDF::from(CurrentSetting::new(settings)),
    ]
}

/// `pg_get_userbyid`: everything belongs to whoever asks.
fn same_for_all_users(user: &str) -> ScalarUDF {
    same_for_all("pg_get_userbyid", 1, ScalarValue::Utf8(Some(user.to_owned())))
}

/// `current_setting(name [, missing_ok])`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    settings: Vec<(String, String)>,
    signature: Signature,
}

impl CurrentSetting {
    fn new(settings: Vec<(String, String)>) -> Self {
        let forms = vec![TypeSignature::String(1), TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean])];
        CurrentSetting { settings, signature: Signature::one_of(forms, Volatility::Stable) }
    }

    fn of(&self, name: Option<&str>, missing_ok: bool) -> Result<Option<String>> {
        let Some(name) = name else { return Ok(None) };
        let wanted = name.to_lowercase();
        match self.settings.iter().find(|(known, _)| *known == wanted) {
            Some((_, value)) => Ok(Some(value.clone())),
            None if missing_ok => Ok(None),
            None => exec_err!("unrecognized configuration parameter \"{name}\""),
        }
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let missing_ok = match args.args.get(1) {
            Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(missing_ok)))) => *missing_ok,
            Some(ColumnarValue::Array(array)) => {
                array.as_boolean_opt().is_some_and(|flags: &BooleanArray| !flags.is_empty() && flags.value(0))
            }
            _ => false,
        };
        match &args.args[0] {
            ColumnarValue::Scalar(name) => {
                let value = self.of(name.try_as_str().flatten(), missing_ok)?;
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
            }
            ColumnarValue::Array(names) => {
                let names = arrow::compute::cast(names, &DataType::Utf8)?;
                let names = names.as_string::<i32>().iter();
                let values = names.map(|name| self.of(name, missing_ok)).collect::<Result<Vec<_>>>()?;
                Ok(ColumnarValue::Array(Arc::new(StringArray::from(values)) as ArrayRef))
            }
        }
    }
}

/// `set_config(name, value, is_local)`, for the value that a parameter has: drivers turn off what is off. A function cannot
/// change a session; `SET` does.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SetConfig {
    current: CurrentSetting,
    signature: Signature,
}

impl SetConfig {
    fn new(settings: Vec<(String, String)>) -> Self {
        let form = TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8, DataType::Boolean]);
        SetConfig { current: CurrentSetting::new(settings), signature: Signature::new(form, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for SetConfig {
    fn name(&self) -> &str {
        "set_config"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(name), ColumnarValue::Scalar(value), _] = args.args.as_slice() else {
            return exec_err!("set_config takes constants here; use SET");
        };
        let (name, value) = (name.try_as_str().flatten(), value.try_as_str().flatten());
        let current = self.current.of(name, false)?;
        if current.as_deref() != value {
            let name = name.unwrap_or("null");
            return exec_err!("set_config cannot change {name}; use SET {name} = '{}'", value.unwrap_or_default());
        }
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(current)))
    }
}
