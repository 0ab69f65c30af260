//! Connections that do nothing but stay.
//!
//! Says `ready N` on standard output once all are accepted, pings each within its keep-alive, and ends after `--seconds`
//! or on SIGTERM.

use std::io::{Error, Result, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::socket::Socket;
use crate::{Options, cpu_seconds, now, packet};

const CONNECTING_MAX: usize = 64;

/// Holds them; what happened in one line of JSON.
pub(crate) async fn run(options: &Options, connections: usize) -> Result<String> {
    let mut terminate = signal(SignalKind::terminate())?;
    let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
    let start = now();
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let (options, connecting) = (options.clone(), connecting.clone());
        tasks.spawn(async move {
            let _permit = connecting.acquire().await;
            Socket::connect(&options, &format!("{}-{connection}", options.name)).await
        });
    }
    let (mut sockets, mut first_error) = (Vec::new(), String::new());
    while let Some(socket) = tasks.join_next().await {
        match socket.map_err(Error::other)? {
            Ok(socket) => sockets.push(socket),
            Err(error) if first_error.is_empty() => first_error = error.to_string(),
            Err(_) => {}
        }
    }
    let (connected, connect_seconds) = (sockets.len(), start.elapsed().as_secs_f64());
    println!("ready {connected}");
    std::io::stdout().flush()?;

    let (end, ended) = watch::channel(false);
    // Pings spread over the first interval, so that they do not come in bursts.
    let interval = Duration::from_secs(u64::from(options.keep_alive.max(2)) / 2);
    let mut tasks = JoinSet::new();
    for (n, socket) in sockets.into_iter().enumerate() {
        let first = interval.mul_f64((n + 1) as f64 / connected as f64);
        tasks.spawn(hold(socket, first, interval, ended.clone()));
    }
    let _ = timeout(Duration::from_secs(options.seconds), terminate.recv()).await;
    let held_seconds = start.elapsed().as_secs_f64() - connect_seconds;
    end.send_replace(true);
    let (mut lost, mut pings) = (0, 0);
    while let Some(held) = tasks.join_next().await {
        let (answered, error) = held.map_err(Error::other)?;
        pings += answered;
        if let Some(error) = error {
            lost += 1;
            if first_error.is_empty() {
                first_error = error.to_string();
            }
        }
    }
    Ok(format!(
        "{{\"idle\":{connections},\"connected\":{connected},\"connect_seconds\":{connect_seconds:.3},\
         \"held_seconds\":{held_seconds:.1},\"pings\":{pings},\"lost\":{lost},\"generator_cpu_s\":{:.2},\
         \"error\":{first_error:?}}}",
        cpu_seconds()
    ))
}

/// Pings that were answered, and why it ended before its time.
async fn hold(
    mut socket: Socket,
    first: Duration,
    interval: Duration,
    mut ended: watch::Receiver<bool>,
) -> (u64, Option<Error>) {
    let (mut pings, mut replies, mut due) = (0, Vec::new(), now() + first);
    while !*ended.borrow_and_update() {
        if now() >= due {
            socket.out.extend_from_slice(&packet::PING);
            due += interval;
        }
        let rest = due.saturating_duration_since(now());
        tokio::select! {
            exchanged = timeout(rest, socket.exchange(&mut replies)) => match exchanged {
                Ok(Err(error)) => return (pings, Some(error)),
                _ => pings += replies.drain(..).count() as u64,
            },
            _ = ended.changed() => {}
        }
    }
    (pings, None)
}
