//! `run --node`: processes of one job share a mount, whichever comes first or is killed; nothing is left behind.

use std::fs;
use std::process::Stdio;

use crate::area::{Area, README, Ran, Serving, in_time, is_alive, kill, processes, until};

/// As root and as nobody, who has only user namespaces.
fn areas() -> impl Iterator<Item = Area> {
    let makers: [fn() -> Option<Area>; 2] = [|| Some(Area::new()), Area::of_nobody];
    makers.into_iter().filter_map(|make| make())
}

/// A process of the job `job`: its command writes the daemon's pid to a file and then waits for a file.
fn member(area: &Area, job: &str, name: &str) -> Serving {
    let script = format!(
        "sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' {{}}/.shufflefs/options.json > {name}.new; mv {name}.new {name}; \
         until [ -e stop-{name} ]; do sleep 0.05; done; cat {{}}/{README} > {name}.text"
    );
    let mut command = area.command(["run", &format!("--node={job}"), "store.h5ad", "--", "sh", "-c", &script]);
    Serving(command.stdout(Stdio::null()).spawn().unwrap())
}

/// The daemon that a member uses.
fn daemon(area: &Area, name: &str) -> i32 {
    until("the member runs", || area.path(name).exists());
    fs::read_to_string(area.path(name)).unwrap().trim().parse().unwrap()
}

fn stop(area: &Area, name: &str) {
    fs::write(area.path(&format!("stop-{name}")), "").unwrap();
}

/// A name that no other test has.
fn job(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[test]
fn all_share_one_daemon_which_ends_with_the_last() {
    for area in areas() {
        let job = job("share");
        let mut members: Vec<(String, Serving)> =
            (0..4).map(|i| (format!("m{i}"), member(&area, &job, &format!("m{i}")))).collect();
        let daemons: Vec<i32> = members.iter().map(|(name, _)| daemon(&area, name)).collect();
        assert!(daemons.iter().all(|pid| *pid == daemons[0]), "{daemons:?}");
        // A later member also finds it.
        let mut late = member(&area, &job, "late");
        assert_eq!(daemon(&area, "late"), daemons[0]);
        for (name, serving) in &mut members {
            assert!(is_alive(daemons[0]));
            stop(&area, name);
            assert_eq!(serving.end().code(), Some(0));
            assert!(fs::read_to_string(area.path(&format!("{name}.text"))).unwrap().contains("shufflefs"));
        }
        assert!(is_alive(daemons[0]));
        stop(&area, "late");
        assert_eq!(late.end().code(), Some(0));
        until("the daemon ends", || !is_alive(daemons[0]));
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(&*area.store.to_string_lossy()), "{table}");
    }
}

/// The others continue if any member is killed, even the one that started the daemon.
#[test]
fn a_killed_member_takes_nothing_along() {
    for area in areas() {
        let job = job("kill");
        let mut first = member(&area, &job, "first");
        let pid = daemon(&area, "first");
        let mut second = member(&area, &job, "second");
        assert_eq!(daemon(&area, "second"), pid);
        kill(first.pid(), libc::SIGKILL);
        first.end();
        let mut third = member(&area, &job, "third");
        assert_eq!(daemon(&area, "third"), pid);
        kill(third.pid(), libc::SIGKILL);
        third.end();
        // A scheduler's signal is for the members: the daemon continues.
        kill(pid, libc::SIGTERM);
        stop(&area, "second");
        assert_eq!(second.end().code(), Some(0));
        assert!(area.path("second.text").exists());
        until("the daemon ends", || !is_alive(pid));
    }
}

#[test]
fn a_killed_daemon_leaves_nothing_and_another_begins_anew() {
    for area in areas() {
        let job = job("daemon");
        let mut first = member(&area, &job, "first");
        let pid = daemon(&area, "first");
        kill(pid, libc::SIGKILL);
        until("the daemon is gone", || !is_alive(pid));
        stop(&area, "first");
        // Its command reads from a mount that no longer exists.
        assert_ne!(first.end().code(), Some(0));
        let mut second = member(&area, &job, "second");
        assert_ne!(daemon(&area, "second"), pid);
        stop(&area, "second");
        assert_eq!(second.end().code(), Some(0));
    }
}

#[test]
fn only_the_same_job_with_the_same_options_shares() {
    let area = Area::new();
    let name = job("same");
    let mut first = member(&area, &name, "first");
    let pid = daemon(&area, "first");
    let of = |options: &[&str]| {
        let line = ["run"].iter().chain(options).chain(&["store.h5ad", "--", "cat", "{}/.shufflefs/options.json"]);
        let ran = area.run(line);
        serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))["pid"].clone()
    };
    let (same, other) = (format!("--node={name}"), format!("--node={name}x"));
    assert_eq!(of(&[&same]), pid);
    assert_ne!(of(&[&other]), pid);
    assert_ne!(of(&[&same, "--seed", "1"]), pid);
    assert_ne!(of(&[]), pid);
    stop(&area, "first");
    assert_eq!(first.end().code(), Some(0));
}

#[test]
fn failures_reach_every_member() {
    for area in areas() {
        let line = |job: &str| {
            [String::from("run"), format!("--node={job}"), "no-such.h5ad".into(), "--".into(), "true".into()]
        };
        let job = job("fail");
        let started: Vec<_> = (0..4)
            .map(|_| area.command(line(&job)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
            .collect();
        for child in started {
            let ran = in_time("a refusal", move || Ran::from(child.wait_with_output().unwrap()));
            ran.refused(125, "no-such.h5ad");
        }
        area.run(["run", "--node", "--rank", "0/2", "store.h5ad", "--", "true"]).refused(125, "--rank");
        let codes = area.run(["run", &format!("--node={job}"), "store.h5ad", "--", "sh", "-c", "exit 7"]);
        assert_eq!((codes.code, codes.stderr.as_str()), (Some(7), ""));
        let left = processes(|line| line.contains("--node=fail-") && line.contains(&*area.store.to_string_lossy()));
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The command's working directory is the caller's, though the mount belongs to another process.
#[test]
fn the_command_of_a_member_is_where_the_caller_is() {
    for area in areas() {
        let job = job("cwd");
        let mut first = member(&area, &job, "first");
        daemon(&area, "first");
        let ran = area.run([
            "run",
            &format!("--node={job}"),
            "store.h5ad",
            "--",
            "sh",
            "-c",
            "pwd; id -u; ls -l /proc/$$/fd",
        ]);
        let mut lines = ran.stdout.lines();
        assert_eq!(lines.next().map(std::path::PathBuf::from), Some(area.path("").components().collect()), "{ran:?}");
        assert!(matches!(lines.next(), Some("0" | "65534")));
        assert!(!ran.stdout.contains("socket"), "{ran:?}");
        stop(&area, "first");
        assert_eq!(first.end().code(), Some(0));
    }
}
