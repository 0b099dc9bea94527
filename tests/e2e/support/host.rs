//! Other "hosts": networks of their own on this machine, joined by a cable.

use std::path::PathBuf;

use super::process::{Process, command, find_program};

/// A host: a network namespace, held by a process that sleeps. Making one needs root.
#[derive(Debug)]
pub(crate) struct Host {
    process: Process,
}

impl Host {
    /// One that is on no network but its own loopback.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let mut unshare = command(find_program("unshare"), None);
        let script = "ip link set lo up && echo UP && exec sleep infinity";
        unshare.args(["--net", "sh", "-c", script]);
        let mut process = Process::start("host", unshare);
        process.wait_for("UP");
        Self { process }
    }

    /// Two that reach each other, at these addresses of one network of 24 bits.
    #[track_caller]
    pub(crate) fn pair(addresses: [&str; 2]) -> [Self; 2] {
        let hosts = [Self::start(), Self::start()];
        let other = hosts[1].pid().to_string();
        let cable = ["link", "add", "cable", "type", "veth", "peer", "cable"];
        hosts[0].ip(&[&cable[..], &["netns", &other]].concat());
        for (host, address) in hosts.iter().zip(addresses) {
            host.ip(&["address", "add", &format!("{address}/24"), "dev", "cable"]);
            host.ip(&["link", "set", "cable", "up"]);
        }
        hosts
    }

    /// A process of it.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What runs a program there: a program, and its arguments before that one.
    pub(crate) fn entrance(&self) -> (PathBuf, String) {
        let network = format!("--net=/proc/{}/ns/net", self.pid());
        (find_program("nsenter"), network)
    }

    /// `ip` there.
    #[track_caller]
    pub(crate) fn ip(&self, args: &[&str]) {
        let (program, network) = self.entrance();
        let mut command = command(program, None);
        command.arg(network).arg(find_program("ip")).args(args);
        Process::start("ip", command).finish().ok();
    }
}
