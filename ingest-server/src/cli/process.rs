//! What a serving process sets up once: logging, panics, runtime, signals.

use std::backtrace::Backtrace;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::failure::Failure;
use crate::serve::{Server, Surroundings};

/// Exit code of a process that was told twice to stop: as if the second signal had ended it.
pub(crate) const INTERRUPTED: i32 = 130;

/// Libraries that talk too much at `info`; the operator's words come later and win.
const QUIET: &str = "datafusion=warn,deltalake_core=warn,delta_kernel=warn,object_store=warn,hyper=warn";

fn log_filter(log: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(format!("{QUIET},{log}"))
        .map_err(|e| Failure::usage(format!("[server] log: {log:?}: {e}; write info or info,storage=debug")))
}

/// Whether `log` is a filter.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn check_log_filter(log: &str) -> Result<(), Failure> {
    log_filter(log).map(|_| ())
}

/// Starts logging to standard error, and makes every panic logged and counted, in the count returned.
///
/// # Errors
/// If `log` is no filter.
pub(super) fn prepare(log: &str) -> Result<Arc<AtomicU64>, Failure> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(log_filter(log)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A test that runs two commands in one process has it already.
    let _ = subscriber.try_init();
    let panics = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |panic| {
        if crate::http::arrow::stream::is_decoding() {
            tracing::debug!(%panic, "foreign bytes that a library does not check");
            return;
        }
        count.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%panic, backtrace = %Backtrace::capture(), "a bug: a task panicked; please report it");
    }));
    Ok(panics)
}

/// The runtime of sockets and timers; queries have their own.
///
/// # Errors
/// If the system has no threads left.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("eden-net")
        .build()
        .map_err(|e| Failure::work(format!("start threads: {e}")))
}

/// SIGTERM and Ctrl-C.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes both signals over.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn new() -> Result<Self, Failure> {
        let take = |kind| signal(kind).map_err(|e| Failure::work(format!("take over signals: {e}")));
        Ok(StopSignals { terminate: take(SignalKind::terminate())?, interrupt: take(SignalKind::interrupt())? })
    }

    /// Waits for either. Cancel safe.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Runs `stopping`; a further signal ends the process at once. Nothing acknowledged is lost by that: it is
    /// in the log.
    pub(crate) async fn or_exit<T>(&mut self, stopping: impl Future<Output = T>) -> T {
        tokio::select! {
            stopped = stopping => stopped,
            () = self.received() => {
                eprintln!("eden: told twice to stop; the next start replays the log");
                // The operator asked for exactly this.
                std::process::exit(INTERRUPTED)
            }
        }
    }
}

/// `eden serve`.
///
/// # Errors
/// If it could not start, or not stop as it should.
pub(super) async fn serve(config: Config, surroundings: Surroundings) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    tracing::debug!(version = env!("CARGO_PKG_VERSION"), data = %config.storage.data.display(), "starting");
    let mut server = Server::bind_in(config, surroundings).await?;
    tracing::debug!(http = %server.http_addr(), "listening");
    tokio::select! {
        opened = server.open() => opened?,
        () = signals.received() => {
            tracing::info!("stopped before the log was replayed; nothing was changed");
            // The replay runs on a thread that cannot be told to stop; the process's end ends it safely.
            #[expect(clippy::exit, reason = "returning would wait for that thread")]
            std::process::exit(0)
        }
    }
    let died = tokio::select! {
        () = signals.received() => false,
        () = server.listener_died() => true,
    };
    let stopped = signals.or_exit(server.stop()).await?;
    tracing::info!(flushed = stopped.flushed, connections_late = stopped.connections_late, "stopped");
    if died { Err(Failure::work("the HTTP listener died: a bug; the log says where")) } else { Ok(()) }
}
