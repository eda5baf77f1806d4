//! How many CPUs a process may use is what its control group lets it have.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::process::{Server, after_a_line};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A control group below that of the tests.
struct Group(PathBuf);

impl Group {
    /// One whose processes have the time of one CPU; none where this process may not make such.
    fn of_one_cpu() -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        // A number, the controllers (none: version 2 with all of them), the group.
        let groups = own.lines().filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let second = controllers.is_empty();
            let is_it = second || controllers.split(',').any(|name| name == "cpu");
            is_it.then(|| {
                let root = if second { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/cpu" };
                (Path::new(root).join(path.trim_start_matches('/')), second)
            })
        });
        groups.filter_map(|(own, second)| Group::below(&own, second)).next()
    }

    fn below(own: &Path, second: bool) -> Option<Group> {
        let path = own.join(format!("braid-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Group(path);
        let limits: &[(&str, &str)] = match second {
            true => &[("cpu.max", "100000 100000")],
            false => &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")],
        };
        let set = |(name, value): &(&str, &str)| {
            let path = group.0.join(name);
            path.exists() && fs::write(path, value).is_ok()
        };
        limits.iter().all(set).then_some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is busy for a moment longer than its last process.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Those of the line that a start begins with.
fn reactors(server: &Server) -> u64 {
    let lines = server.before.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = { lines }.find(|line| line["msg"] == "starting a Braid server").unwrap();
    line["reactors"].as_u64().unwrap()
}

#[test]
fn there_are_as_many_reactors_as_the_control_group_has_cpus() {
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let directory = tempfile::tempdir().unwrap();
    let stop = |server: Server| {
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(15));
    };
    let server = Server::start(directory.path(), &[]);
    assert_eq!(reactors(&server), cpus);
    stop(server);
    let group = Group::of_one_cpu();
    let Some(group) = group.filter(|_| cpus > 1) else {
        eprintln!("SKIPPED: there is one CPU, or no control group with a quota can be made here");
        return;
    };
    let enter = format!("echo $$ >{}/cgroup.procs", group.0.display());
    let server = Server::start_as(directory.path(), &[], |command| after_a_line(command, &enter));
    assert_eq!(reactors(&server), 1);
    stop(server);
}
