//! Types that every client of Arrow reads: texts and bytes as arrays of offsets, not views, which older ones do not know.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

/// The type in which values of `data_type` are sent.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

fn field(of: &Arc<Field>) -> Arc<Field> {
    Arc::new(Field::clone(of).with_data_type(plain(of.data_type())))
}

/// The columns as they are sent.
pub(super) fn schema(of: &Schema) -> SchemaRef {
    Arc::new(Schema::new(of.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The rows as they are sent.
///
/// # Errors
/// If a value cannot be converted.
pub(super) fn batch(of: &RecordBatch, to: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = of.columns().iter().zip(to.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(of.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(to), columns, &options)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringViewArray};

    use super::*;

    #[test]
    fn views_are_sent_as_texts() {
        let column: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None]));
        let rows = RecordBatch::try_from_iter([("t", column)]).unwrap();
        let to = schema(&rows.schema());
        assert_eq!(to.field(0).data_type(), &DataType::Utf8);
        assert_eq!(batch(&rows, &to).unwrap().column(0).null_count(), 1);
    }
}
