//! Processes that are measured, and what `/proc` says of them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process that ends with this value.
pub(crate) struct Process {
    child: Child,
    /// The process that is measured: the child itself, or what a tracer runs.
    pid: i32,
}

impl Process {
    /// Starts it with its output in `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let log = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = child.id() as i32;
        Ok(Self { child, pid })
    }

    /// From now on, the only child of the process is what is measured and ended.
    pub(crate) fn look_behind_tracer(&mut self) -> io::Result<()> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = fs::read_to_string(path)?;
        let first = children.split_whitespace().next();
        self.pid = first
            .and_then(|pid| pid.parse().ok())
            .ok_or_else(|| io::Error::other("the tracer runs nothing"))?;
        Ok(())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Processor time of all its threads so far, and of its children.
    pub(crate) fn cpu(&self) -> Duration {
        self.tree().into_iter().map(cpu).sum()
    }

    /// How often a thread of it has gone to sleep so far.
    pub(crate) fn sleeps(&self) -> u64 {
        self.tree()
            .into_iter()
            .flat_map(tasks)
            .filter_map(|task| status_field(&task, "voluntary_ctxt_switches"))
            .sum()
    }

    /// Resident bytes, its children's counted by their share.
    pub(crate) fn resident(&self) -> u64 {
        let pids = self.tree();
        if let [pid] = pids[..] {
            return status_field(&format!("/proc/{pid}"), "VmRSS").unwrap_or(0) * 1024;
        }
        pids.into_iter()
            .filter_map(|pid| {
                let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
                field(&text, "Pss")
            })
            .sum::<u64>()
            * 1024
    }

    /// The process and its children: socat has one for each connection.
    fn tree(&self) -> Vec<i32> {
        let mut pids = vec![self.pid];
        for task in tasks(self.pid) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            pids.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
        pids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let children = self.tree();
        for pid in children {
            if let Some(pid) = Pid::from_raw(pid) {
                _ = kill_process(pid, Signal::KILL);
            }
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Of the threads that there are, to the nanosecond; of those that there were, which stunnel has one
/// of for each client, the kernel tells the sum in hundredths of a second.
fn cpu(pid: i32) -> Duration {
    let running = tasks(pid).into_iter().filter_map(|task| {
        let text = fs::read_to_string(format!("{task}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    });
    let running = running.map(Duration::from_nanos).sum();
    let all = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: user and system time are the 12th and 13th.
    let fields = all.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()).max(running)
}

fn tasks(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path().display().to_string())
        .collect()
}

fn status_field(of: &str, name: &str) -> Option<u64> {
    field(&fs::read_to_string(format!("{of}/status")).ok()?, name)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}
