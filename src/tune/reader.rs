//! The reader of the mount in measurements: a child process, because a process that reads its own mount and is killed during a read
//! never ends. It is Python with the libraries that trainers use, or, without these, this program, which reads whole files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::format::Extension;

/// Reads each format as its users do; writes one line for each job.
const SCRIPT: &str = r#"
import json, sys, time

def npz(path):
    import numpy
    with numpy.load(path) as file:
        return [file[name] for name in file.files]

def safetensors(path):
    from safetensors.numpy import load_file
    return load_file(path)

def npy(path):
    import numpy
    return numpy.load(path)

def arrow(path):
    import pyarrow
    return pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()

def parquet(path):
    import pyarrow.parquet
    return pyarrow.parquet.read_table(path)

def h5ad(path):
    import anndata
    return anndata.read_h5ad(path)

READ = {"npz": npz, "safetensors": safetensors, "npy": npy, "arrow": arrow, "parquet": parquet, "h5ad": h5ad}
for line in sys.stdin:
    job = json.loads(line)
    try:
        read = READ[job["format"]]
        end, count, start = None, 0, time.perf_counter()
        for path in job["files"]:
            read(path)
            count, end = count + 1, time.perf_counter()
            if end - start > job["seconds"]:
                break
        answer = {"files": count, "seconds": end - start if end else 0}
    except Exception as error:
        answer = {"error": type(error).__name__ + ": " + str(error)}
    print(json.dumps(answer), flush=True)
"#;

/// Files to read in order, until all are read or the time is over.
#[derive(Serialize, Deserialize)]
struct Job {
    format: String,
    files: Vec<PathBuf>,
    seconds: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Read { files: usize, seconds: f64 },
    Failed { error: String },
}

/// A child that answers one job after the other. Dropping it ends the child.
pub struct Reader {
    child: Child,
    jobs: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Reader {
    /// Starts Python, whose executable is `program`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn python(program: &Path) -> Result<Reader, String> {
        let mut command = Command::new(program);
        command.args(["-W", "ignore", "-c", SCRIPT]);
        Reader::start(command).map_err(|error| format!("{}: {error}", program.display()))
    }

    /// Starts this program as the reader ([`child`]).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn plain() -> Result<Reader, String> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("reader");
        Reader::start(command).map_err(|error| error.to_string())
    }

    fn start(mut command: Command) -> io::Result<Reader> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (jobs, output) = (child.stdin.take(), child.stdout.take());
        let (sender, answers) = sync_channel(1);
        std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Reader { child, jobs, answers })
    }

    /// Reads files within a time limit; returns how many were read, and the seconds.
    ///
    /// # Errors
    /// A library is missing, a file cannot be read, there is no answer.
    pub fn read(&mut self, format: Extension, files: &[PathBuf], limit: Duration) -> Result<(usize, f64), String> {
        let job = Job { format: format.as_str().to_owned(), files: files.to_vec(), seconds: limit.as_secs_f64() };
        let mut line = serde_json::to_vec(&job).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let jobs = self.jobs.as_mut().ok_or("it has ended")?;
        jobs.write_all(&line).map_err(|error| error.to_string())?;
        // The first job may import libraries, which takes long.
        let answer = self.answers.recv_timeout(limit + Duration::from_secs(60)).map_err(|_| "no answer".to_owned())?;
        match serde_json::from_str(&answer).map_err(|error| error.to_string())? {
            Answer::Read { files, seconds } => Ok((files, seconds)),
            Answer::Failed { error } => Err(error),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child of [`Reader::plain`]: reads whole files into one buffer.
///
/// # Errors
/// Standard input or output is closed.
pub fn child() -> io::Result<()> {
    let mut buffer = vec![0; 4 << 20];
    for line in io::stdin().lock().lines() {
        let answer = match serde_json::from_str::<Job>(&line?) {
            Ok(job) => match read(&job, &mut buffer) {
                Ok((files, seconds)) => Answer::Read { files, seconds },
                Err(error) => Answer::Failed { error: error.to_string() },
            },
            Err(error) => Answer::Failed { error: error.to_string() },
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn read(job: &Job, buffer: &mut [u8]) -> io::Result<(usize, f64)> {
    let start = Instant::now();
    let mut count = 0;
    for path in &job.files {
        let mut file = File::open(path)?;
        while file.read(buffer)? > 0 {}
        count += 1;
        if start.elapsed().as_secs_f64() > job.seconds {
            break;
        }
    }
    Ok((count, start.elapsed().as_secs_f64()))
}
