//! P1 seen from outside: no byte of an answer leaves before the `fdatasync` that covers the write it answers.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Eden, wait};

use crate::{Failure, Outcome};

const WRITES: usize = 50;
const ATTACHED_WITHIN: Duration = Duration::from_secs(30);
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync";

pub(super) fn no_ack_leaves_before_its_sync() -> Outcome {
    let mut eden = Eden::start("strace");
    // The first write makes the table, with syncs of its own.
    eden.write_lp("air,room=a n=0i 1780272000000000000");
    let transcript = eden.home().join("strace.txt");
    let pid = eden.pid().to_string();
    let mut strace = Command::new("strace")
        .args([
            "--follow-forks",
            "--decode-fds=path",
            "--string-limit=24",
            "--quiet=all",
            "-e",
            CALLS,
            "-p",
            &pid,
            "-o",
        ])
        .arg(&transcript)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("run strace: {error}"))?;
    let attached = wait::until(ATTACHED_WITHIN, || all_threads_are_traced(&pid).then_some(()));
    let mut client = eden.client();
    for n in 1..=WRITES {
        let line = format!("air,room=a n={n}i {}", 1_780_272_000_000_000_000 + n * 1_000_000);
        let outcome = client.write_lp(line.as_bytes());
        if outcome != harness::Outcome::Acked {
            return Err(format!("write under strace: {outcome:?}"));
        }
    }
    // strace ends with the process it watches; the transcript is whole then.
    eden.kill();
    strace.wait().map_err(|error| format!("wait for strace: {error}"))?;
    if attached.is_none() {
        return Err("strace could not attach to all threads".into());
    }
    let text = fs::read_to_string(&transcript).map_err(|error| format!("read the transcript: {error}"))?;
    let acks = acks_after_their_syncs(&text)?;
    if acks != WRITES {
        return Err(format!("{WRITES} writes, but {acks} acknowledgements in the transcript"));
    }
    println!("strace: {acks} acknowledgements, each after the fdatasync that covers it");
    Ok(())
}

/// Whether something traces each thread of process `pid`.
pub(crate) fn all_threads_are_traced(pid: &str) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}

/// One system call: the lines of the transcript on which it began and returned.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    /// Its first argument, as strace decodes it: `12</data/wal/1>`.
    file: String,
    arguments: String,
    began: usize,
    returned: usize,
}

/// Counts answers 204 and checks that each has a write to the log and a completed `fdatasync` of the same file between
/// the answer before it and itself. Writes come one at a time, so the sync that covers one lies there.
fn acks_after_their_syncs(transcript: &str) -> Result<usize, Failure> {
    let calls = calls(transcript);
    let is_answer = |call: &&Call| call.arguments.contains("HTTP/1.1 204");
    let is_log = |call: &&Call| call.file.contains("/wal/");
    let mut acks = 0;
    let mut last_answer = 0;
    for answer in calls.iter().filter(is_answer) {
        let since = calls.iter().filter(|call| call.began > last_answer && call.returned < answer.began);
        let writes = since.clone().filter(is_log).filter(|call| call.name.contains("write"));
        let mut syncs = since.filter(is_log).filter(|call| call.name.contains("sync"));
        let covered =
            syncs.any(|sync| writes.clone().any(|write| write.file == sync.file && write.returned < sync.began));
        if !covered {
            let shown: Vec<_> = transcript.lines().take(answer.began).skip(last_answer.saturating_sub(1)).collect();
            return Err(format!("acknowledgement {acks} left before its fdatasync (P1):\n{}", shown.join("\n")));
        }
        acks += 1;
        last_answer = answer.began;
    }
    Ok(acks)
}

/// Joins `… <unfinished ...>` and `<... name resumed> …` of a thread. Lines count from 1.
fn calls(transcript: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, Call> = HashMap::new();
    for (number, line) in transcript.lines().enumerate().map(|(number, line)| (number + 1, line)) {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("<... ") {
            if let Some(mut call) = unfinished.remove(thread) {
                call.returned = number;
                calls.push(call);
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        let end = arguments.find([',', ')']).unwrap_or(arguments.len());
        let file = arguments[..end].trim_end_matches(" <unfinished ...>").to_string();
        let call = Call { name: name.into(), file, arguments: arguments.into(), began: number, returned: number };
        if rest.ends_with("<unfinished ...>") {
            unfinished.insert(thread, call);
        } else {
            calls.push(call);
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNCED: &str = "\
7 pwrite64(12</data/wal/1>, \"EDEN\"..., 4096, 0) = 4096
7 fdatasync(12</data/wal/1> <unfinished ...>
8 write(3</data/log>, \"x\", 1) = 1
7 <... fdatasync resumed>) = 0
8 sendto(9<socket:[5]>, \"HTTP/1.1 204 No Content\"..., 80, 0, NULL, 0) = 80
";

    #[test]
    fn an_answer_after_its_sync_is_counted() {
        assert_eq!(acks_after_their_syncs(SYNCED), Ok(1));
    }

    #[test]
    fn an_answer_before_the_sync_returned_is_caught() {
        let mut lines: Vec<_> = SYNCED.lines().collect();
        lines.swap(3, 4);
        acks_after_their_syncs(&lines.join("\n")).unwrap_err();
    }

    #[test]
    fn a_sync_that_began_before_the_write_or_of_another_file_does_not_count() {
        let mut lines: Vec<_> = SYNCED.lines().collect();
        lines.swap(0, 2);
        acks_after_their_syncs(&lines.join("\n")).unwrap_err();
        acks_after_their_syncs(&SYNCED.replace("fdatasync(12</data/wal/1>", "fdatasync(13</data/wal/2>")).unwrap_err();
    }

    #[test]
    fn one_sync_does_not_cover_two_writes_in_turn() {
        let twice = format!("{SYNCED}8 write(9<socket:[5]>, \"HTTP/1.1 204 No Content\"..., 80) = 80\n");
        acks_after_their_syncs(&twice).unwrap_err();
    }
}
