//! What the columns of a stream are in their table.
//!
//! Owns:     which column is the time and which are tags, and which types are taken.
//! Does not: read values (`arrow_values`), or compare numbers with the types of columns: storage does, value by value.
//!
//! A column is a tag if the request says so; if the request says nothing of tags, as the table has it; if the table does not
//! have it, if its field's metadata `eden.kind` says so, or if it is a dictionary of texts.

use arrow::datatypes::{DataType, Field, Fields};
use model::name::check_column_name;
use model::{FieldType, TableName};
use storage::{ColumnKind, TableInfo};

use crate::arrow_values::kind_of;
use crate::transfer::columns::Kind;

/// The partition column of tables, which follows from the time.
const DAY: &str = "eden_day";
const KIND_KEY: &str = "eden.kind";

/// Columns of a stream; a table has fewer.
const COLUMNS_MAX: usize = 4_000;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) table: TableName,
    /// Names of the columns that are tags, if they are told.
    pub(super) tags: Option<Vec<String>>,
    /// The name of the column that is the time.
    pub(super) time: String,
}

/// What a column is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Tag(String),
    Field(String),
    Time,
    LeftOut,
}

/// The roles of the columns that are no structs, in their order; `leaves` are their paths and types.
///
/// # Errors
/// Which column cannot be stored, and why, or what the request has to say.
pub(super) fn roles(
    fields: &Fields,
    leaves: &[(String, DataType)],
    wanted: &Wanted,
    known: Option<&TableInfo>,
) -> Result<Vec<Role>, String> {
    if leaves.len() > COLUMNS_MAX {
        return Err(format!("the stream has {} columns; at most {COLUMNS_MAX} are taken", leaves.len()));
    }
    let is_named = |name: &str| leaves.iter().any(|(path, _)| path.eq_ignore_ascii_case(name));
    let names = || leaves.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>().join(", ");
    if !is_named(&wanted.time) {
        return Err(format!(
            "there is no column {:?}, and without their times rows would be doubled by each attempt; say with time= which \
             column it is (there are: {})",
            wanted.time,
            names()
        ));
    }
    if let Some(missing) = wanted.tags.iter().flatten().find(|tag| !is_named(tag)) {
        return Err(format!("tags: there is no column {missing:?} (there are: {})", names()));
    }
    let mut lower: Vec<String> = leaves.iter().map(|(path, _)| path.to_lowercase()).collect();
    lower.sort_unstable();
    if let Some(pair) = lower.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("the column {:?} is there twice: names do not differ by case only", pair[0]));
    }
    let roles = leaves.iter().map(|(path, data_type)| {
        role(fields, path, data_type, wanted, known).map_err(|what| format!("column {path:?}: {what}"))
    });
    let roles = roles.collect::<Result<Vec<_>, _>>()?;
    let are_told = wanted.tags.is_some() || known.is_some() || roles.iter().any(|role| matches!(role, Role::Tag(_)));
    if !are_told {
        return Err(format!(
            "there is no table {} yet: say with tags=a,b which columns tell what was measured (there are: {}); rows with \
             the same tags and time are one; tags= means that the time alone tells rows apart",
            wanted.table,
            names()
        ));
    }
    if !roles.iter().any(|role| matches!(role, Role::Field(_))) {
        return Err("the stream has no column with values, only tags and time".into());
    }
    Ok(roles)
}

fn role(
    fields: &Fields,
    path: &str,
    data_type: &DataType,
    wanted: &Wanted,
    known: Option<&TableInfo>,
) -> Result<Role, String> {
    if path.eq_ignore_ascii_case(&wanted.time) {
        return if is_time(data_type) { Ok(Role::Time) } else { Err(format!("{data_type} cannot be the time")) };
    }
    if path.eq_ignore_ascii_case(DAY) || *data_type == DataType::Null {
        return Ok(Role::LeftOut);
    }
    check_column_name("column", path).map_err(|e| e.to_string())?;
    if !is_taken(data_type) {
        return Err(format!("{data_type} cannot be stored; leave it out, or send it as text"));
    }
    let kind = kind_of(data_type)?.ok_or("it has no values")?;
    let columns = || known.into_iter().flat_map(|table| table.schema.columns());
    let lower = path.to_lowercase();
    let column = columns().find(|column| column.name.to_lowercase() == lower);
    let name = column.map_or(path, |column| &*column.name).to_owned();
    let told = wanted.tags.as_ref().map(|tags| tags.iter().any(|tag| tag.eq_ignore_ascii_case(path)));
    let is_tag = match (told, column.map(|column| column.kind)) {
        (Some(true), Some(ColumnKind::Field(_))) => return Err("it is a field of the table and cannot be a tag".into()),
        (Some(false), Some(ColumnKind::Tag)) => return Err("it is a tag of the table; name it in tags=".into()),
        (Some(told), _) => told,
        (None, Some(kind)) => kind == ColumnKind::Tag,
        (None, None) => says_tag(fields, path).unwrap_or_else(|| is_dictionary_of_texts(data_type)),
    };
    if is_tag {
        return match kind {
            Kind::F64 => Err("a float cannot be a tag".into()),
            _ => Ok(Role::Tag(name)),
        };
    }
    match column.map(|column| column.kind) {
        Some(ColumnKind::Field(field_type)) if class(kind) != class_of_field(field_type) => {
            Err(format!("it is {} here, and {field_type} in the table", kind.name()))
        }
        _ => Ok(Role::Field(name)),
    }
}

/// What the metadata of a column that is in no struct says.
fn says_tag(fields: &Fields, path: &str) -> Option<bool> {
    let field = fields.iter().find(|field| field.name() == path).map(|field| &**field);
    field.and_then(|field: &Field| field.metadata().get(KIND_KEY)).map(|kind| kind == "tag")
}

/// Types whose values are no larger than the bytes that say them, but for dictionaries.
fn is_taken(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => !matches!(**values, DataType::Dictionary(..)) && is_taken(values),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Boolean => true,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        other => other.is_numeric(),
    }
}

fn is_time(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => true,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        other => other.is_integer(),
    }
}

fn is_dictionary_of_texts(data_type: &DataType) -> bool {
    let DataType::Dictionary(_, values) = data_type else { return false };
    matches!(**values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Types of which a value may be one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Number,
    Truth,
    Text,
}

fn class(kind: Kind) -> Class {
    match kind {
        Kind::F64 | Kind::I64 | Kind::U64 | Kind::Decimal { .. } => Class::Number,
        Kind::Bool => Class::Truth,
        Kind::Text | Kind::Tag | Kind::Time | Kind::LeftOut => Class::Text,
    }
}

fn class_of_field(field_type: FieldType) -> Class {
    match field_type {
        FieldType::F64 | FieldType::I64 | FieldType::U64 | FieldType::Decimal { .. } => Class::Number,
        FieldType::Bool => Class::Truth,
        FieldType::Text => Class::Text,
    }
}
