//! `GET /metrics`: the counters of all rooms on one page.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::status::VERSION;
use crate::app::{App, Parts, Phase, share};
use crate::metrics::{self, Page};

/// The handler.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut page = Page::default();
    page.head(&metrics::BUILD_INFO);
    page.sample(metrics::BUILD_INFO.name, &format!("{{version=\"{VERSION}\"}}"), 1.0);
    let (ready, parts) = match app.phase() {
        Phase::Replaying => (false, None),
        Phase::Ready(parts) => (!parts.storage.is_poisoned(), Some(parts)),
        Phase::Stopping(parts) => (false, Some(parts)),
    };
    page.one(&metrics::READY, f64::from(u8::from(ready)));
    page.one(&metrics::REPLAY_SHARE, if parts.is_some() { 1.0 } else { share(app.replay()) });
    page.one(&metrics::PANICS, app.panics.load(Ordering::Relaxed) as f64);
    app.metrics.write(&mut page);
    if let Some(parts) = parts {
        rooms(&mut page, &parts);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.finish()).into_response()
}

fn rooms(page: &mut Page, parts: &Parts) {
    let stats = parts.storage.stats();
    let wal = &stats.wal;
    for (metric, value) in [
        (&metrics::STORAGE_ROWS_STORED, stats.rows_stored_total),
        (&metrics::STORAGE_ROWS_REJECTED, stats.rows_rejected_total),
        (&metrics::STORAGE_ROWS_MERGED, stats.rows_merged_total),
        (&metrics::STORAGE_FLUSHES, stats.flushes_total),
        (&metrics::STORAGE_FLUSHES_FAILED, stats.flushes_failed_total),
        (&metrics::STORAGE_SHARD_ROWS, stats.shard_rows_written_total),
        (&metrics::STORAGE_SHARD_BYTES, stats.shard_bytes_written_total),
        (&metrics::STORAGE_SHARDS_REWRITTEN, stats.shards_rewritten_total),
        (&metrics::STORAGE_COMPACTIONS, stats.compactions_total),
        (&metrics::STORAGE_COMPACTED_ROWS, stats.compaction_rows_total),
        (&metrics::STORAGE_COMPACTED_BYTES, stats.compaction_bytes_read_total),
        (&metrics::STORAGE_ROWS_EXPIRED, stats.rows_expired_total),
        (&metrics::STORAGE_FILES_DELETED, stats.files_deleted_total),
        (&metrics::STORAGE_DISK_FREE_BYTES, stats.disk_free_bytes),
        (&metrics::STORAGE_ADMISSION_STOPPED, stats.admission_stopped),
        (&metrics::STORAGE_WAITING_ROWS, stats.waiting_rows),
        (&metrics::STORAGE_LOG_LOSSES, stats.log_losses_total),
        (&metrics::STORAGE_DAMAGED_SHARDS, stats.damaged_shards),
        (&metrics::STORAGE_DAMAGED_TABLES, stats.damaged_tables),
        (&metrics::AGENTS, stats.agents),
        (&metrics::AGENTS_FORGOTTEN, stats.agents_forgotten_total),
        (&metrics::AGENT_DUPLICATES, stats.agent_duplicates_total),
        (&metrics::AGENT_CONFLICTS, stats.agent_conflicts_total),
        (&metrics::SET_ASIDE, stats.set_aside_total),
        (&metrics::SET_ASIDE_DROPPED, stats.set_aside_dropped_total),
        (&metrics::STORAGE_MEMORY_BYTES, stats.memory_bytes),
        (&metrics::STORAGE_MEMORY_ROWS, stats.memory_rows),
        (&metrics::STORAGE_TABLES, stats.tables),
        (&metrics::STORAGE_POISONED, u64::from(parts.storage.is_poisoned())),
        (&metrics::WAL_BYTES, wal.bytes_on_disk),
        (&metrics::WAL_SEGMENTS, wal.segments),
        (&metrics::WAL_QUEUE_BYTES, wal.queue_bytes),
        (&metrics::WAL_SYNCS, wal.syncs),
        (&metrics::WAL_RECORDS, wal.records),
        (&metrics::WAL_WRITTEN_BYTES, wal.bytes_written),
    ] {
        page.one(metric, value as f64);
    }
    page.one(&metrics::WAL_SYNC_SECONDS, wal.sync_latency_sum.as_secs_f64());
    page.one(&metrics::WAL_SYNC_SECONDS_MAX, wal.sync_latency_max.as_secs_f64());

    let stats = parts.engine.stats();
    for (metric, value) in [
        (&metrics::QUERY_TOTAL, stats.queries_total),
        (&metrics::QUERY_FAILED, stats.queries_failed_total),
        (&metrics::QUERY_CANCELLED, stats.queries_cancelled_total),
        (&metrics::QUERY_PLANS_REUSED, stats.plans_reused_total),
        (&metrics::QUERY_RUNNING, stats.running),
        (&metrics::QUERY_WAITING, stats.waiting),
        (&metrics::QUERY_MEMORY_BYTES, stats.memory_bytes),
        (&metrics::QUERY_SPILL_BYTES, stats.spill_bytes),
    ] {
        page.one(metric, value as f64);
    }
    page.one(&metrics::QUERY_SECONDS, stats.duration_seconds_sum);

    let (away, bytes) = parts.sessions.sizes();
    page.one(&metrics::MQTT_SESSIONS_AWAY, away as f64);
    page.one(&metrics::MQTT_SESSIONS_BYTES, bytes as f64);
}
