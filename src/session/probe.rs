//! The probe: children parse HDF5 files with libhdf5, and this process uses their answers. So a crash, an endless loop or excessive
//! memory of the library costs one line instead of the mount (see `isolate`), and each file is parsed once.
//!
//! A child walks a store with the code of the mount, [`Collection::open`] and [`Obs::load`], and the mount's own [`Selection`], and
//! reports all answers of the library. Further questions, which the mount has because it opens several stores, are sent to a child as
//! well: this process calls the library only for what a child has tried before.
//!
//! There is one child for each core. With slow storage there are more, as the library reads one piece after the other.

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::anndata::progress::Progress;
use crate::array::container::Container;
use crate::array::handed::{Answer, Answers, Parser, Question};
use crate::array::kinds::{self, file_of, needs_trial};
use crate::array::{Counters, handed};
use crate::collection::{Collection, Selection};
use crate::storage::{self, Identity, Version, in_flight, name};

use super::error::{About, SessionError};
use super::isolate::{self, Helper};
use super::memory;
use super::obs::Obs;
use super::spec::{ROW_NAMES, Spec};

/// The first line that is sent to a child.
#[derive(Serialize, Deserialize)]
struct Walk {
    selection: Selection,
    /// obs columns that views read.
    columns: Vec<String>,
}

/// A further line. Paths may not be UTF-8, so they are bytes.
#[derive(Serialize, Deserialize)]
enum Request {
    /// `seen`: the version of a remote object that the parent has seen.
    Store {
        path: Vec<u8>,
        file: Vec<u8>,
        seen: Option<Version>,
    },
    Ask {
        file: Vec<u8>,
        inner: String,
        question: Question,
    },
}

/// The reply to a request, as one line.
#[derive(Serialize, Deserialize)]
enum Reply {
    /// For each group of the file, by name, all answers about it.
    Store(Vec<(String, Vec<(Question, Answer)>)>),
    Ask(Answer),
}

/// Number of children, at most.
const MOST: usize = 16;
/// If opening a file and reading its start takes longer, the storage is slow.
const SLOW: Duration = Duration::from_millis(3);
/// Progress bars appear after this time.
const SHORT: Duration = Duration::from_secs(1);

/// Runs a child. Errors in stores are ignored here: the parent comes to the same error, and reports it.
///
/// # Errors
/// The pipes to the parent fail.
pub fn child() -> Result<(), SessionError> {
    isolate::volunteer();
    let mut lines = io::stdin().lock().lines();
    let refused = |error: &dyn std::fmt::Display| SessionError::Refused(error.to_string());
    let Some(first) = lines.next().transpose().map_err(|e| refused(&e))? else { return Ok(()) };
    let Walk { mut selection, columns } = serde_json::from_str(&first).map_err(|e| refused(&e))?;
    selection.looks = true;
    handed::begin();
    let mut last = None;
    for line in lines {
        let request: Request = serde_json::from_str(&line.map_err(|e| refused(&e))?).map_err(|e| refused(&e))?;
        let reply = match request {
            Request::Store { path, file, seen } => {
                last = None;
                if let Some(version) = seen {
                    storage::recall(Path::new(OsStr::from_bytes(&file)), version);
                }
                walk(Path::new(OsStr::from_bytes(&path)), &selection, &columns);
                let told = |(inner, answers): (String, Answers)| (inner, answers.into_iter().collect());
                Reply::Store(handed::take().into_iter().map(told).collect())
            }
            Request::Ask { file, inner, question } => Reply::Ask(ask(&mut last, file, inner, &question)),
        };
        let mut line = serde_json::to_vec(&reply).map_err(|e| refused(&e))?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line).and_then(|()| out.flush()).map_err(|e| refused(&e))?;
    }
    Ok(())
}

/// Opens a store as a mount of it alone would.
fn walk(path: &Path, selection: &Selection, columns: &[String]) {
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    let Ok(collection) = Collection::open(&[path.to_owned()], selection, &counters) else { return };
    let Ok(mut obs) = Obs::new(&collection, &counters) else { return };
    for name in columns {
        drop(obs.load(name));
    }
}

/// The container used last.
type Last = Option<(Vec<u8>, String, Box<dyn Container>)>;

/// Answers one question; errors are ignored, as the parent comes to them itself.
fn ask(last: &mut Last, file: Vec<u8>, inner: String, question: &Question) -> Answer {
    if last.as_ref().is_none_or(|(known, group, _)| *known != file || *group != inner) {
        let path = Path::new(OsStr::from_bytes(&file));
        let name = path.display().to_string().into();
        let opened = storage::locate(path).ok().and_then(|address| kinds::open_at(&address, name, &inner).ok());
        *last = opened.map(|container| (file, inner, container));
    }
    let answer = last.as_ref().and_then(|(_, _, container)| container.answer(question));
    // Collected answers must not be reported for the next store.
    drop(handed::take());
    answer.unwrap_or(Answer::Tried)
}

/// Files that children parse; they must not change.
#[derive(Default)]
pub struct Probed {
    files: Vec<Identity>,
    /// `None` if no file needs the library.
    children: Option<Arc<Children>>,
}

impl Probed {
    /// # Errors
    /// A file is not the one that was parsed.
    pub fn confirm(&self) -> Result<(), SessionError> {
        for file in &self.files {
            if let Some(cause) = file.changed().about(&file.address)? {
                let again = "while it was being opened; try again once nobody writes it";
                return Err(SessionError::Refused(format!("{cause} {again}")));
            }
        }
        Ok(())
    }
}

impl Drop for Probed {
    /// Withdraws the children from the containers, which hold references to them, and ends them.
    fn drop(&mut self) {
        handed::withdraw(self.files.iter().map(|file| file.address.path()));
        if let Some(children) = &self.children {
            children.dismiss();
        }
    }
}

/// The children; each answers one caller at a time.
struct Children {
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Helper>,
    /// The number of living children.
    count: usize,
    /// Whether they have been told to end.
    dismissed: bool,
}

impl Children {
    /// Starts `count` children, or as many as the system allows; `network`: for remote stores.
    ///
    /// # Errors
    /// None could be started.
    fn start(count: usize, walk: &[u8], patience: Duration, network: bool) -> io::Result<Children> {
        let mut idle = Vec::new();
        for _ in 0..count {
            let started =
                Helper::start("probe", patience, network).and_then(|mut child| child.send(walk).map(|()| child));
            match started {
                Ok(child) => idle.push(child),
                Err(error) if idle.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let count = idle.len();
        Ok(Children { state: Mutex::new(State { idle, count, dismissed: false }), returned: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.state().count
    }

    /// Ends those that are idle.
    fn dismiss(&self) {
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        state.count -= idle.len();
        state.dismissed = true;
    }

    /// Sends a request to an idle child; waits for one if all are busy.
    ///
    /// # Errors
    /// How the child ended, as the end of a sentence that starts with the store.
    fn exchange(&self, request: &Request, file: &Path) -> Result<Reply, String> {
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let waits = |state: &mut State| state.idle.is_empty() && state.count > 0;
        let mut state = self.returned.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = state.idle.pop() else { return Err("the process that parsed it has ended".to_owned()) };
        drop(state);
        let answer = child.exchange(&line, file);
        let mut state = self.state();
        match &answer {
            Ok(_) => state.idle.push(child),
            Err(_) => state.count -= 1,
        }
        drop(state);
        self.returned.notify_all();
        serde_json::from_slice(&answer?).map_err(|error| format!("its parser cannot be understood ({error})"))
    }
}

impl Parser for Children {
    fn ask(&self, file: &Path, inner: &str, question: &Question) -> Result<Answer, String> {
        if self.state().dismissed {
            return Ok(Answer::Tried);
        }
        let name = file.as_os_str().as_bytes().to_owned();
        let request = Request::Ask { file: name, inner: inner.to_owned(), question: question.clone() };
        match self.exchange(&request, file)? {
            Reply::Ask(answer) => Ok(answer),
            Reply::Store(_) => Err("its parser answers another question: please report it".to_owned()),
        }
    }
}

/// A store that needs libhdf5.
struct Parsed<'a> {
    path: &'a Path,
    file: Identity,
}

/// Has children parse the stores that need libhdf5; `also` names further columns to read.
///
/// # Errors
/// A child did not survive a store, or a file has changed in the meantime.
pub fn stores(spec: &Spec, also: &[String]) -> Result<Probed, SessionError> {
    let (parsed, slow) = to_parse(&spec.stores)?;
    if parsed.is_empty() {
        return Ok(Probed::default());
    }
    let selection = spec.selection(also);
    let mut columns = selection.also.clone();
    if spec.names_rows() {
        columns.push(ROW_NAMES[0].to_owned());
    }
    let mut walk = serde_json::to_vec(&Walk { selection, columns }).map_err(io::Error::other)?;
    walk.push(b'\n');
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = parsed.len().min(if slow { MOST } else { cores.min(MOST) });
    let network = parsed.iter().any(|store| name::is_remote(store.path));
    let children = match Children::start(count, &walk, spec.timeout, network) {
        Ok(children) => Arc::new(children),
        Err(error) => {
            tracing::warn!("no process can be started to parse the stores in, so it is done untried: {error}");
            return Ok(Probed { files: parsed.into_iter().map(|store| store.file).collect(), children: None });
        }
    };
    let parser = Arc::clone(&children) as Arc<dyn Parser>;
    // Dropping this ends the children, also on errors below.
    let files = parsed.iter().map(|store| store.file.clone()).collect();
    let probed = Probed { files, children: Some(Arc::clone(&children)) };
    let bar = Late::new(parsed.len());
    in_flight::for_each(children.count(), parsed.len(), |number| {
        let Some(store) = parsed.get(number) else { return Ok(()) };
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_owned();
        let seen = name::is_remote(store.path).then(|| store.file.version.clone());
        let request = Request::Store { path: bytes(store.path), file: bytes(store.file.address.path()), seen };
        let known = match children.exchange(&request, file_of(store.path)) {
            Ok(Reply::Store(known)) => known,
            Ok(Reply::Ask(_)) => Vec::new(),
            Err(reason) => return Err(SessionError::Refused(format!("{}: {reason}", store.path.display()))),
        };
        let known = known.into_iter().map(|(inner, answers)| (inner, answers.into_iter().collect::<Answers>()));
        handed::offer(store.file.address.path(), &parser, known);
        bar.add();
        Ok(())
    })?;
    probed.confirm()?;
    Ok(probed)
}

/// The stores that need libhdf5, and whether their storage is slow.
fn to_parse(stores: &[PathBuf]) -> Result<(Vec<Parsed<'_>>, bool), SessionError> {
    let found = Mutex::new(Vec::new());
    let slow = AtomicBool::new(false);
    in_flight::for_each(MOST, stores.len(), |number| {
        let Some(path) = stores.get(number) else { return Ok(()) };
        let began = Instant::now();
        if needs_trial(path) {
            slow.fetch_or(began.elapsed() > SLOW, Ordering::Relaxed);
            let file = file_of(path);
            let file = storage::locate(file).and_then(|address| Identity::of(&address)).about(file.display())?;
            found.lock().unwrap_or_else(PoisonError::into_inner).push((number, Parsed { path, file }));
        }
        Ok::<_, SessionError>(())
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(number, _)| *number);
    Ok((found.into_iter().map(|(_, store)| store).collect(), slow.into_inner()))
}

/// A progress bar that appears after [`SHORT`].
struct Late {
    began: Instant,
    total: usize,
    /// Steps before the bar appeared.
    done: Mutex<(usize, Option<Progress>)>,
}

impl Late {
    fn new(total: usize) -> Late {
        Late { began: Instant::now(), total, done: Mutex::default() }
    }

    fn add(&self) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, bar) = &mut *done;
        if let Some(bar) = bar {
            return bar.add(1);
        }
        *before += 1;
        if self.began.elapsed() > SHORT {
            let shown = Progress::new("opening stores".to_owned(), self.total as u64);
            shown.add(*before as u64);
            *bar = Some(shown);
        }
    }
}
