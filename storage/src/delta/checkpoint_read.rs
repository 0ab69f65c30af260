//! Reads a classic (V1, single-file) checkpoint back into actions.

use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Action;

/// The actions in `checkpoint`, a whole Parquet file.
pub(super) fn read_checkpoint(checkpoint: Vec<u8>) -> Result<Vec<Action>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(checkpoint))
        .and_then(|builder| builder.with_batch_size(1024).build())
        .map_err(|e| e.to_string())?;
    let mut actions = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| e.to_string())?;
        let wanted: Vec<usize> = ["add", "metaData", "protocol", "remove", "txn"]
            .iter()
            .filter_map(|name| batch.schema().index_of(name).ok())
            .collect();
        let batch = batch.project(&wanted).map_err(|e| e.to_string())?;
        // One JSON object a row, nulls left out: the same text as in a commit, so one parser serves both.
        let mut lines = LineDelimitedWriter::new(Vec::new());
        lines.write(&batch).and_then(|()| lines.finish()).map_err(|e| e.to_string())?;
        for line in lines.into_inner().split(|byte| *byte == b'\n') {
            if line.len() > 2 {
                actions.push(serde_json::from_slice(line).map_err(|e| e.to_string())?);
            }
        }
    }
    Ok(actions)
}
