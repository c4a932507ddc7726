//! `shufflefs run`: the command has the environment that it has without it, and nothing is left behind.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::area::{Area, README, Ran, Serving, in_time, is_alive, kill, mounts_below, processes, until};

/// Each as root and as nobody.
fn areas() -> impl Iterator<Item = Area> {
    let makers: [fn() -> Option<Area>; 2] = [|| Some(Area::new()), Area::of_nobody];
    makers.into_iter().filter_map(|make| make())
}

fn sh(area: &Area, script: &str) -> Ran {
    area.run(["run", "store.h5ad", "--", "sh", "-c", script])
}

#[test]
fn exit_codes_pass_through() {
    for area in areas() {
        for code in [0, 7, 255] {
            let ran = sh(&area, &format!("exit {code}"));
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""));
        }
        area.run(["run", "store.h5ad", "--", "no-such-command"]).refused(127, "not found");
        area.run(["run", "store.h5ad", "--", "./store.h5ad"]).refused(126, "cannot be executed");
        area.run(["run", "no-such.h5ad", "--", "true"]).refused(125, "no-such.h5ad");
        area.run(["run", "store.h5ad"]).refused(125, "COMMAND");
        area.run(["run", "--seed", "x", "store.h5ad", "--", "true"]).refused(125, "seed");
    }
}

#[test]
fn death_by_a_signal_passes_through() {
    for area in areas() {
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV] {
            assert_eq!(sh(&area, &format!("kill -{signal} $$")).signal, Some(signal));
        }
    }
}

#[test]
fn the_command_finds_the_mount() {
    for area in areas() {
        let ran = sh(&area, "echo $SHUFFLEFS_MOUNT; echo =:{}:{}; cat {}/README.txt; ls {}");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let place = ran.stdout.lines().next().unwrap().to_owned();
        assert!(ran.stdout.contains(&format!("=:{place}:{place}\n")), "{ran:?}");
        assert!(ran.stdout.contains(README));
        assert!(!Path::new(&place).exists(), "others never see it");

        let ran = area.run(["run", "--at", "new/place", "store.h5ad", "--", "ls", "new/place"]);
        assert!(ran.stdout.contains(README), "{ran:?}");
        assert!(!area.path("new").exists());
        area.run(["run", "--at", "store.h5ad", "store.h5ad", "--", "true"]).refused(125, "not a directory");
    }
}

#[test]
fn stdio_passes_through() {
    for area in areas() {
        let mut command = area.command(["run", "store.h5ad", "--", "sh", "-c", "cat; echo oops >&2"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"hello").unwrap();
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "hello", "oops\n"));
    }
}

#[test]
fn the_command_is_who_the_caller_is() {
    for area in areas() {
        // Only signals 1 to 31 of the ignored ones: the C library uses those from 32.
        let status = "grep -E '^(Uid|Gid|Cap(Prm|Eff|Amb)|SigBlk|NoNewPrivs)' /proc/self/status; \
                      echo $((0x$(grep SigIgn /proc/self/status | cut -f2) & 0x7fffffff))";
        let mut plain = Command::new("sh");
        let ran = sh(&area, status);
        let is_nobody = ran.stdout.contains("65534");
        if is_nobody {
            plain = Command::new("setpriv");
            plain.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh"]);
        }
        // As the area does for its commands.
        unsafe { plain.pre_exec(crate::area::heed_signals) };
        let plain = Ran::from(plain.args(["-c", status]).output().unwrap());
        assert_eq!(ran.stdout, plain.stdout);
        let open = sh(&area, "ls -l /proc/$$/fd");
        assert!(!open.stdout.contains("/dev/fuse") && !open.stdout.contains("signalfd"), "{open:?}");
    }
}

#[test]
fn root_without_the_capability_gains_none() {
    if !crate::area::is_root() {
        return;
    }
    let area = Area::new();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin,-sys_ptrace", env!("CARGO_BIN_EXE_shufflefs"), "run"]);
    command.arg(&area.store).args(["--", "sh", "-c", "cat {}/README.txt >&2 && grep CapEff /proc/self/status"]);
    let ran = Ran::from(command.output().unwrap());
    let effective = ran.stdout.split_whitespace().last().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // CAP_SYS_PTRACE is 19, CAP_SYS_ADMIN 21.
    assert_eq!(effective.map(|set| set & (1 << 19 | 1 << 21)), Some(0), "{ran:?}");
}

#[test]
fn signals_reach_the_command_once() {
    for area in areas() {
        let script = "n=0; trap 'n=$((n+1)); echo $n' USR1; trap 'echo bye; exit 3' TERM; echo ready; \
                      while :; do sleep 0.05; done";
        let mut command = area.command(["run", "store.h5ad", "--", "sh", "-c", script]);
        let output = fs::File::create(area.path("out")).unwrap();
        let mut serving = Serving(command.stdout(output).spawn().unwrap());
        let said = |text: &str| fs::read_to_string(area.path("out")).unwrap() == text;
        until("it is ready", || said("ready\n"));
        kill(serving.pid(), libc::SIGUSR1);
        until("it got one", || said("ready\n1\n"));
        kill(serving.pid(), libc::SIGUSR1);
        until("it got another", || said("ready\n1\n2\n"));
        kill(serving.pid(), libc::SIGTERM);
        assert_eq!(serving.end().code(), Some(3));
        assert!(said("ready\n1\n2\nbye\n"));
    }
}

#[test]
fn nothing_stays_when_anything_is_killed() {
    for area in areas() {
        for victim in ["shufflefs", "command"] {
            // The marker distinguishes this command from those of other tests.
            let marker = format!("1000.{}", std::process::id());
            let mut command = area.command(["run", "store.h5ad", "--", "sleep", &marker]);
            let mut serving = Serving(command.spawn().unwrap());
            let sleeps = || processes(|line| line.trim_end() == format!("sleep {marker}"));
            until("the command runs", || sleeps().len() == 1);
            let child = sleeps()[0];
            kill(if victim == "shufflefs" { serving.pid() } else { child }, libc::SIGKILL);
            let status = serving.end();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
            until("the command is gone", || !is_alive(child));
            assert!(mounts_below(&area.path(".")).is_empty());
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!table.contains(&*area.store.to_string_lossy()), "{table}");
        }
    }
}

#[test]
fn runs_nest() {
    let area = Area::new();
    let binary = env!("CARGO_BIN_EXE_shufflefs");
    let ran = area.run(["run", "store.h5ad", "--", binary, "run", "store.h5ad", "--", "ls", "{}"]);
    // The outer run has replaced the braces already.
    assert!(ran.code == Some(0) && ran.stdout.contains(README), "{ran:?}");
    let inner = format!("{binary} run store.h5ad -- sh -c 'ls $SHUFFLEFS_MOUNT'");
    assert!(in_time("nested", move || sh(&area, &inner)).stdout.contains(README));
}
