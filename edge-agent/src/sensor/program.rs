//! Sensors of the operator's own: a program that prints, or a file that something else writes.
//!
//! Both give one number, which is the field `value`, or a JSON object of numbers, which are fields by their names. Programs
//! print binary fractions with all their digits; they are rounded.
//!
//! Owns:     what such a text means, and the time that a program may take.
//! Does not: run a shell: a program is started with its arguments as they stand.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::fault::SensorError;
use super::value::Value;
use super::{Fields, Interrupt, Measured, Sensor};

/// What is printed or written is short.
const TEXT_BYTES_MAX: u64 = 16 << 10;
/// A thread that only waits needs little.
const THREAD_STACK_BYTES: usize = 128 << 10;
/// Fields of one object.
const FIELDS_MAX: usize = 64;

/// What a text says: a number, or a JSON object of numbers.
///
/// # Errors
/// Says what is wrong with it.
pub fn fields_of(text: &str) -> Measured {
    let text = text.trim();
    if let Some(value) = Value::nearest(text) {
        return Ok(vec![("value".into(), value)]);
    }
    let shown: String = text.chars().take(60).collect();
    let wrong = |why: &str| SensorError(format!("{shown:?} {why}; right is a number, or {{\"name\": number}}"));
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| wrong("is neither a number nor a JSON object"))?;
    if object.is_empty() {
        return Err(wrong("has no field"));
    }
    if object.len() > FIELDS_MAX {
        return Err(wrong(&format!("has more than {FIELDS_MAX} fields")));
    }
    let mut fields = Fields::new();
    for (name, value) in object {
        model::name::check_column_name("field", &name)
            .map_err(|e| wrong(&format!("has a field that cannot be: {e}")))?;
        if name.ends_with('\\') || ["agent", "sensor"].iter().any(|tag| name.eq_ignore_ascii_case(tag)) {
            return Err(wrong(&format!("has a field {name:?}, which cannot be a field's name")));
        }
        let number = value.as_number().and_then(|number| Value::nearest(&number.to_string()));
        let value = number.ok_or_else(|| wrong(&format!("has a field {name:?} that is no number, or too large")))?;
        fields.push((name.into(), value));
    }
    Ok(fields)
}

/// A file that holds the newest value.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
}

impl Sensor for File {
    fn measure(&mut self, _time_us: i64) -> Measured {
        let wrong = |e: io::Error| SensorError::file("read", &self.path, &e);
        let mut text = Vec::new();
        let file = std::fs::File::open(&self.path).map_err(wrong)?;
        file.take(TEXT_BYTES_MAX).read_to_end(&mut text).map_err(wrong)?;
        fields_of(&String::from_utf8_lossy(&text))
    }
}

/// A program that prints a value and ends. What it says on standard error goes where the agent's log goes.
#[derive(Debug)]
pub(super) struct Program {
    command: Vec<String>,
    timeout: Duration,
    /// The group of the run that goes on now.
    running: Arc<Mutex<Option<Pid>>>,
    /// Tells the end of a run that took too long and has not ended yet.
    late: Option<Receiver<Ran>>,
}

/// What a program printed, and how it ended.
type Ran = (Vec<u8>, io::Result<ExitStatus>);

impl Program {
    pub(super) fn new(command: &[String], timeout: Duration) -> Program {
        Program { command: command.to_vec(), timeout, running: Arc::default(), late: None }
    }

    fn run(&mut self, name: &str) -> Result<Ran, String> {
        if let Some(late) = &self.late
            && matches!(late.try_recv(), Err(TryRecvError::Empty))
        {
            return Err("its last run was ended, and something that it started still runs".to_owned());
        }
        self.late = None;
        let mut command = Command::new(name);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
        // A group of its own, so that what it started ends with it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (tell, told) = sync_channel(1);
        let started = Builder::new().name("eden-program".to_owned()).stack_size(THREAD_STACK_BYTES).spawn(move || {
            let mut text = Vec::new();
            if let Some(out) = child.stdout.take() {
                // What cannot be read is as if it was not printed.
                let _ = out.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text);
            }
            let status = child.wait();
            // Nobody listens any more if it took too long.
            let _ = tell.send((text, status));
        });
        *self.running.lock().expect("no holder of this lock panics") = group;
        if let Err(e) = started {
            end(&self.running);
            return Err(format!("the system has no thread left: {e}"));
        }
        let ran = told.recv_timeout(self.timeout).map_err(|_| {
            end(&self.running);
            self.late = Some(told);
            format!("did not end within {} ms and was ended", self.timeout.as_millis())
        });
        *self.running.lock().expect("no holder of this lock panics") = None;
        ran
    }
}

/// Ends the group that runs, if one does.
fn end(running: &Mutex<Option<Pid>>) {
    if let Some(group) = *running.lock().expect("no holder of this lock panics") {
        // It may have ended just now.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl Sensor for Program {
    fn interrupt(&self) -> Option<Interrupt> {
        let running = Arc::clone(&self.running);
        Some(Box::new(move || end(&running)))
    }

    fn time_max(&self) -> Duration {
        self.timeout
    }

    fn measure(&mut self, _time_us: i64) -> Measured {
        let name = self.command.first().cloned().unwrap_or_default();
        let wrong = |what: String| SensorError(format!("the program {name}: {what}"));
        let (text, status) = self.run(&name).map_err(wrong)?;
        if text.len() as u64 > TEXT_BYTES_MAX {
            return Err(wrong(format!("printed more than {TEXT_BYTES_MAX} bytes")));
        }
        let status = status.map_err(|e| wrong(e.to_string()))?;
        if !status.success() {
            return Err(wrong(format!("{status}; what it said is in the agent's log")));
        }
        fields_of(&String::from_utf8_lossy(&text)).map_err(|e| wrong(format!("printed {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str, timeout_ms: u64) -> Program {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        Program::new(&command, Duration::from_millis(timeout_ms))
    }

    fn shown(measured: Measured) -> String {
        match measured {
            Ok(fields) => fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn a_text_is_a_number_or_an_object_of_numbers() {
        for (text, said) in [
            (" 21.5\n", "value=21.5"),
            ("-3", "value=-3"),
            (r#"{"co2": 412, "t": 21.50}"#, "co2=412,t=21.5"),
            ("21.300000000000004", "value=21.3"),
            (r#"{"a": 0.30000000000000004, "b": 5.551115123125783e-17, "c": -1e-9}"#, "a=0.3,b=0,c=-0.000000001"),
            ("0.1000000000000000055511151231257827021181583404541015625", "value=0.1"),
            ("1e300", "is neither"),
            (r#"{"a": 1e300}"#, "that is no number, or too large"),
            ("", "\"\" is neither a number nor a JSON object"),
            ("ERR", "\"ERR\" is neither"),
            ("[1]", "is neither"),
            ("{}", "has no field"),
            (r#"{"a": "1"}"#, "that is no number"),
            (r#"{"a": null}"#, "that is no number"),
            (r#"{"time": 1}"#, "has a field that cannot be"),
            (r#"{"sensor": 1}"#, "cannot be a field's name"),
        ] {
            let found = shown(fields_of(text));
            assert!(found.contains(said), "{text}: {found}");
        }
        let many: Vec<String> = (0..65).map(|i| format!("\"f{i}\": 1")).collect();
        assert!(shown(fields_of(&format!("{{{}}}", many.join(",")))).contains("more than 64"));
    }

    #[test]
    fn a_program_gives_what_it_prints_and_its_failures_are_named() {
        let says = |script: &str| shown(program(script, 10_000).measure(0));
        assert_eq!(says("echo 21.5"), "value=21.5");
        assert_eq!(
            says("echo 21.5; exit 3"),
            "the program /bin/sh: exit status: 3; what it said is in the agent's log"
        );
        assert!(says("yes").contains("printed more than 16384 bytes"));
        let missing = shown(Program::new(&["/no/such".to_owned()], Duration::from_secs(1)).measure(0));
        assert!(missing.starts_with("the program /no/such: cannot be started: "), "{missing}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_all_that_it_started() {
        let mut hangs = program("sleep 600 & sleep 600", 50);
        assert!(shown(hangs.measure(0)).contains("did not end within 50 ms"));
        // The pipe is held by both; it ends when both have.
        let (_, status) = hangs.late.take().unwrap().recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(!status.unwrap().success());
    }
}
