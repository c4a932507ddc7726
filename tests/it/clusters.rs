//! Real launchers and automounters: Slurm, Open MPI, MPICH, torchrun, autofs, started here and ended with the test.
//!
//! `scripts/setup --tests` installs what they need. If it is missing, a test says so and passes, unless SHUFFLEFS_REQUIRE_CLUSTERS is
//! set, as in scripts/test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::area::{Area, README, Ran, Serving, installed, is_root, kill, processes, until};
use crate::support::{ROOT, bounded, python, succeed};

/// Rows of the area's store.
const ROWS: u64 = 2000;

fn launcher(path: &str) -> PathBuf {
    Path::new(ROOT).join("target/clusters").join(path)
}

/// What each process of a job runs: `shufflefs run` with these options, and a command that writes the rows that it sees in
/// `epoch` to the file `rows-RANK`, and the mount's options to `options-RANK`.
fn rank_command(area: &Area, options: &[&str], rank: &str, epoch: &str) -> Vec<String> {
    let out = area.path("");
    let out = out.display();
    let script = format!(
        "cut -f 1 {{}}/{epoch}/*.tsv | grep -v row > {out}/rows-{rank}; cat {{}}/.shufflefs/options.json > {out}/options-{rank}"
    );
    let binary = env!("CARGO_BIN_EXE_shufflefs");
    let store = area.store.to_str().unwrap();
    [&[binary, "run", "--format", "tsv", "--batch-size", "10"][..], options, &[store, "--", "sh", "-c", &script]]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Checks that the ranks together have read every row once, and each as many. Returns the options of their mounts.
#[track_caller]
fn each_row_once(area: &Area, ranks: usize) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    let mut options = Vec::new();
    for rank in 0..ranks {
        let text = fs::read_to_string(area.path(&format!("rows-{rank}"))).unwrap();
        let rows: Vec<u64> = text.lines().map(|row| row.parse().unwrap()).collect();
        assert_eq!(rows.len() as u64, ROWS / ranks as u64, "rank {rank}");
        all.extend(rows);
        let text = fs::read_to_string(area.path(&format!("options-{rank}"))).unwrap();
        options.push(serde_json::from_str(&text).unwrap());
        for name in ["rows", "options"] {
            fs::remove_file(area.path(&format!("{name}-{rank}"))).unwrap();
        }
    }
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..ROWS), "each row once");
    options
}

/// `--rank auto`, and one mount for all, under a launcher that starts four processes.
#[track_caller]
fn launches(area: &Area, launch: &dyn Fn() -> Command, rank: &str) {
    let ran = Ran::from(launch().args(rank_command(area, &["--rank", "auto"], rank, "epoch-0000")).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let options = each_row_once(area, 4);
    let alone = area.run(["run", "store.h5ad", "--", "cat", "{}/.shufflefs/options.json"]);
    let alone: serde_json::Value = serde_json::from_str(&alone.stdout).unwrap();
    for (rank, told) in options.iter().enumerate() {
        assert_eq!(told["rank"], format!("{rank}/4"));
        assert_eq!(told["memory"].as_u64().unwrap(), alone["memory"].as_u64().unwrap() / 4, "a rank's share");
    }
    let epoch = format!("rank-{rank}-of-4/epoch-0000");
    let ran = Ran::from(launch().args(rank_command(area, &["--node"], rank, &epoch)).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let options = each_row_once(area, 4);
    assert!(options.iter().all(|told| told["pid"] == options[0]["pid"]), "one daemon: {options:?}");
    assert_eq!(options[0]["memory"], alone["memory"], "the node's share");
    let pid = options[0]["pid"].as_i64().unwrap() as i32;
    until("the daemon ends", || !crate::area::is_alive(pid));
}

#[test]
fn open_mpi() {
    let mpirun = launcher("openmpi/bin/mpirun");
    if !installed("Open MPI", &[&mpirun]) {
        return;
    }
    let area = Area::new();
    let launch = || {
        let mut command = bounded(60, &mpirun);
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", "4"]);
        command
    };
    launches(&area, &launch, "$OMPI_COMM_WORLD_RANK");
}

#[test]
fn mpich() {
    let mpiexec = launcher("mpich/bin/mpiexec");
    if !installed("MPICH", &[&mpiexec]) {
        return;
    }
    let area = Area::new();
    let launch = || {
        let mut command = bounded(60, &mpiexec);
        command.args(["-n", "4"]);
        command
    };
    launches(&area, &launch, "$PMI_RANK");
}

/// Like `until`, for slow daemons.
#[track_caller]
fn patiently(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1200 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("in vain: {what}");
}

/// A Slurm cluster on this machine; its daemons end with it.
struct Slurm {
    directory: tempfile::TempDir,
    /// In the order of their start.
    daemons: Vec<Serving>,
}

impl Slurm {
    fn start() -> Slurm {
        let directory = tempfile::Builder::new().prefix("slurm-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = directory.path().to_str().unwrap().to_owned();
        for name in ["munge", "state", "spool"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let key = directory.path().join("munge/key");
        // The key of a test need not be secret.
        fs::write(&key, (0..1024u32).map(|i| (i * 131 % 251) as u8).collect::<Vec<u8>>()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
        // Ports derived from the pid, as test runs can overlap.
        let port = 20000 + std::process::id() % 10000 * 2;
        let text = include_str!("../clusters/slurm.conf");
        let next = (port + 1).to_string();
        let values = [("@HOST@", host.as_str()), ("@DIR@", &place), ("@PORT@", &port.to_string()), ("@NEXT@", &next)];
        let text = values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        fs::write(directory.path().join("slurm.conf"), text).unwrap();
        let mut slurm = Slurm { directory, daemons: Vec::new() };
        let munge = ["key", "socket", "pid", "log", "seed"].map(|kind| {
            format!(
                "--{}={place}/munge/{kind}",
                if kind == "socket" { kind.to_owned() } else { format!("{kind}-file") }
            )
        });
        slurm.daemon(Command::new("/usr/sbin/munged").args(["--foreground", "--force"]).args(munge));
        until("munged listens", || slurm.path("munge/socket").exists());
        let configuration = slurm.path("slurm.conf");
        slurm.daemon(Command::new("/usr/sbin/slurmctld").arg("-D").arg("-f").arg(&configuration));
        slurm.daemon(Command::new("/usr/sbin/slurmd").arg("-D").arg("-f").arg(&configuration).args(["-N", &host]));
        patiently("the node is idle", || {
            let nodes = slurm.command("sinfo").args(["-h", "-o", "%T"]).output().unwrap();
            String::from_utf8_lossy(&nodes.stdout).trim() == "idle"
        });
        slurm
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn daemon(&mut self, command: &mut Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.push(Serving(command.spawn().unwrap()));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = bounded(60, program);
        command.env("SLURM_CONF", self.path("slurm.conf")).current_dir(self.directory.path());
        command
    }

    /// Runs a script as a job of four tasks; returns the job's exit code and output.
    fn batch(&self, options: &[&str], script: &str) -> (Option<i32>, String) {
        for name in ["job-0.out", "job-1.out", "job-4294967294.out"] {
            let _ = fs::remove_file(self.path(name));
        }
        let path = self.path("job.sh");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut command = self.command("sbatch");
        command.args(["--wait", "-n", "4", "-o", "job-%a.out"]).args(options).arg(&path);
        let ran = Ran::from(command.output().unwrap());
        let written = fs::read_dir(self.directory.path()).unwrap().flatten().map(|entry| entry.path());
        let outputs = written.filter(|path| path.extension().is_some_and(|extension| extension == "out"));
        (ran.code, outputs.map(|path| fs::read_to_string(path).unwrap()).collect())
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            kill(daemon.pid(), libc::SIGTERM);
            for _ in 0..500 {
                if daemon.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

#[test]
fn slurm() {
    let programs = ["/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd", "/usr/bin/srun"].map(Path::new);
    if !installed("Slurm", &programs) {
        return;
    }
    let (area, slurm) = (Area::new(), Slurm::start());
    let step = || {
        let mut command = slurm.command("srun");
        command.args(["-n", "4"]);
        command
    };
    launches(&area, &step, "$SLURM_PROCID");

    // A batch script is not a rank, whatever its variables say; the steps that it starts are.
    let refused = rank_command(&area, &["--rank", "auto"], "0", "epoch-0000");
    let (code, text) = slurm.batch(&[], &quoted(&refused));
    assert!(code == Some(125) && text.contains("start shufflefs with srun"), "{code:?} {text}");
    let words = rank_command(&area, &["--rank", "auto"], "$SLURM_PROCID", "epoch-0000");
    let (code, text) = slurm.batch(&[], &format!("srun {}", quoted(&words)));
    assert_eq!(code, Some(0), "{text}");
    each_row_once(&area, 4);

    // Array tasks are separate jobs: two daemons, though the options are the same.
    let epoch = "rank-$SLURM_PROCID-of-2/epoch-0000";
    let words = rank_command(&area, &["--node"], "$SLURM_ARRAY_TASK_ID-$SLURM_PROCID", epoch);
    let (code, text) = slurm.batch(&["--array=0-1", "-n", "2"], &format!("srun -n 2 {}", quoted(&words)));
    assert_eq!(code, Some(0), "{text}");
    let pid = |name: &str| {
        let text = fs::read_to_string(area.path(&format!("options-{name}"))).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["pid"].as_i64().unwrap()
    };
    assert!(pid("0-0") == pid("0-1") && pid("1-0") == pid("1-1") && pid("0-0") != pid("1-0"));

    // Each task of an array writes a part, whatever the array's first index is, and one command makes the whole.
    let (binary, store, out) = (env!("CARGO_BIN_EXE_shufflefs"), area.store.clone(), area.path("array.zarr"));
    let shuffle = |more: &str| format!("'{binary}' shuffle {more} '{}' '{}'", store.display(), out.display());
    let (code, text) = slurm.batch(&["--array=3-5", "-n", "1"], &shuffle("--part auto"));
    assert_eq!(code, Some(0), "{text}");
    assert!((0..3).all(|i| text.contains(&format!("part {i}/3 is written"))), "{text}");
    assert!(!out.exists());
    let (code, text) = slurm.batch(&["-n", "1"], &shuffle("--finish 3"));
    assert_eq!(code, Some(0), "{text}");
    let said = succeed(python("check_shuffled.py").arg(&out).arg(&store));
    assert!(said.starts_with(&format!("{ROWS} ")) && said.trim_end().ends_with(" 3"), "{said}");
    // Not in an array.
    let ran = area.run(["shuffle", "--part", "auto", "store.h5ad", "x.zarr"]);
    ran.refused(2, "no task of a Slurm array");
}

#[test]
fn torchrun() {
    let torch = [launcher("torch/bin/torchrun"), launcher("torch/bin/python")];
    if torch.iter().any(|path| !path.exists()) {
        eprintln!("skipped: PyTorch is not in target/clusters/torch (scripts/setup --torch makes it; 5 GB)");
        return;
    }
    let area = Area::new();
    let launch = || {
        let mut command = bounded(120, &torch[0]);
        // Without `--` torchrun would parse `--node` as its own option.
        command.args(["--standalone", "--nproc-per-node", "4", "--no-python", "--"]).env("OMP_NUM_THREADS", "1");
        command
    };
    launches(&area, &launch, "$RANK");
    // Two ranks train from one mount: gradients are averaged, each row is seen once.
    let mut command = area.command(["run", "--batch-size", "100", "store.h5ad", "--"]);
    command.arg(&torch[0]).args(["--standalone", "--nproc-per-node", "2"]);
    command.arg(Path::new(ROOT).join("tests/python/train_ddp.py")).args(["{}", &ROWS.to_string()]);
    command.env("PYTHONPATH", Path::new(ROOT).join("python")).env("OMP_NUM_THREADS", "1");
    let ran = Ran::from(command.output().unwrap());
    assert!(ran.code == Some(0) && ran.stdout.contains("each row once"), "{ran:?}");
}

/// Four ranks are killed in mid-epoch; three continue with the remaining batches. Every row of the epoch is seen once.
#[test]
fn an_epoch_goes_on_with_fewer_ranks() {
    let area = Area::new();
    let options = ["--batch-size", "10", "--fetch-factor", "4", "--seed", "3"];
    let job = format!("--node=elastic-{}", std::process::id());
    let start = |rank: usize, world: usize, more: &[&str]| {
        let line = [&["run", &job][..], &options, &["store.h5ad", "--"]].concat();
        let mut command = area.command(line);
        let reader = python("elastic_rank.py");
        // Without `timeout`, whose child would not be killed.
        command.args(reader.get_args().skip(2)).arg("{}").arg(area.path("")).args(more);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", world.to_string());
        Serving(command.spawn().unwrap())
    };
    // Each rank stops by itself after five steps and waits to be killed, as ranks that train in step do.
    let mut ranks: Vec<Serving> = (0..4).map(|rank| start(rank, 4, &["5"])).collect();
    until("all ranks have made five steps", || (0..4).all(|rank| area.path(&format!("stopped-{rank}")).exists()));
    for rank in &mut ranks {
        kill(rank.pid(), libc::SIGKILL);
        rank.end();
    }
    let plan =
        [&["plan"][..], &options, &["--resume", "epoch=0,step=5,world=4", "--world", "3", "store.h5ad"]].concat();
    let rest = area.run(plan);
    assert_eq!(rest.code, Some(0), "{rest:?}");
    fs::write(area.path("rest"), &rest.stdout).unwrap();
    let rest = area.path("rest");
    let mut ranks: Vec<Serving> = (0..3).map(|rank| start(rank, 3, &[rest.to_str().unwrap()])).collect();
    assert!(ranks.iter_mut().all(|rank| rank.end().code() == Some(0)));
    let mut rows: Vec<u64> = Vec::new();
    for name in ["4-0", "4-1", "4-2", "4-3", "3-0", "3-1", "3-2"] {
        let text = fs::read_to_string(area.path(&format!("seen-{name}"))).unwrap();
        rows.extend(text.lines().map(|row| row.parse::<u64>().unwrap()));
    }
    rows.sort_unstable();
    assert!(rows.iter().copied().eq(0..ROWS), "each row once: {} rows", rows.len());
}

/// autofs mounts on access to the directory, and unmounts when it is idle.
#[test]
fn autofs() {
    let automount = Path::new("/usr/sbin/automount");
    if !installed("autofs", &[automount, Path::new("/sbin/mount.fuse")]) {
        return;
    }
    let area = Area::new();
    let top = area.path("auto");
    let (map, master) = (area.path("auto.map"), area.path("auto.master"));
    let store = area.store.display();
    fs::write(&map, format!("cells -fstype=fuse.shufflefs,ro,batch_size=64 :{store}\n")).unwrap();
    fs::write(&master, format!("{} {} --timeout=2\n", top.display(), map.display())).unwrap();
    // mount.fuse searches only the system's directories, so the binary is in one of them, in a namespace of the automounter.
    let binaries = Path::new(env!("CARGO_BIN_EXE_shufflefs")).parent().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount --bind \"$0\" /usr/local/sbin && exec automount --foreground --dont-check-daemon --pid-file \"$1\" \"$2\"");
    command.arg(binaries).arg(area.path("auto.pid")).arg(&master);
    let log = fs::File::create(area.path("auto.log")).unwrap();
    let mut serving =
        Serving(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let pid = serving.pid();
    let is_there = |place: &Path| {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        table.lines().any(|line| line.split(' ').nth(4) == place.to_str())
    };
    patiently("autofs is there", || is_there(&top));
    let cells = top.join("cells");
    let readme = format!("/proc/{pid}/root{}/{README}", cells.display());
    for _ in 0..2 {
        // By another program, so that a deadlock is a failure here and does not hang the test.
        let text = succeed(bounded(20, "cat").arg(&readme));
        assert!(text.contains("shufflefs"), "{text}");
        patiently("it is idle and unmounted", || !is_there(&cells));
        // Checked without access to the directory, which would mount it again.
        let store = area.store.to_str().unwrap();
        until("the daemon ends", || processes(|line| line.contains("shufflefs") && line.contains(store)).is_empty());
        assert!(!is_there(&cells));
    }
    kill(pid, libc::SIGTERM);
    serving.end();
}

/// A Kubernetes sidecar: its mount propagates to the trainer's namespace, and when it is killed, the same command is started
/// again.
#[test]
fn a_killed_sidecar_is_started_again() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    let volume = area.path("epochs");
    fs::create_dir(&volume).unwrap();
    succeed(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&volume));
    succeed(Command::new("mount").arg("--make-shared").arg(&volume));
    let cells = volume.join("cells");
    fs::create_dir(&cells).unwrap();
    let namespace = |propagation: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", propagation]).stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    let trainer = Serving(namespace("slave").args(["sleep", "600"]).spawn().unwrap());
    let place = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).unwrap();
    until("the trainer has a namespace", || place(&trainer.pid().to_string()) != place("self"));
    let readme = format!("/proc/{}/root{}/{README}", trainer.pid(), cells.display());
    for _ in 0..2 {
        let mut sidecar = namespace("shared");
        sidecar.arg(env!("CARGO_BIN_EXE_shufflefs")).args(["mount", "--foreground"]).arg(&area.store).arg(&cells);
        let mut sidecar = Serving(sidecar.spawn().unwrap());
        patiently("the trainer sees the mount", || fs::read(&readme).is_ok_and(|text| !text.is_empty()));
        kill(sidecar.pid(), libc::SIGKILL);
        sidecar.end();
        assert_eq!(fs::read(&readme).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    }
}
