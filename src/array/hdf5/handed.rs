//! In the parent: the answers of children, for containers of this process. In a child: the answers to report.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::structure::Shared;
pub use super::structure::{Answer, Answers, Question};

/// Parses files in another process.
pub trait Parser: Send + Sync {
    /// Answers a question about a file, or the group `inner` in it.
    ///
    /// # Errors
    /// How that process ended, as the end of a sentence that starts with the store.
    fn ask(&self, file: &Path, inner: &str, question: &Question) -> Result<Answer, String>;
}

/// A file that another process parses.
#[derive(Clone)]
pub struct Parsed {
    pub parser: Arc<dyn Parser>,
    /// The answers known so far, by the group in the file.
    pub known: HashMap<String, Answers>,
}

#[derive(Default)]
struct Handed {
    files: HashMap<PathBuf, Parsed>,
    /// Lists of strings, each stored once: most stores of a collection have the same genes.
    lists: HashSet<Arc<Vec<String>>>,
}

static HANDED: LazyLock<Mutex<Handed>> = LazyLock::new(Mutex::default);

fn handed() -> MutexGuard<'static, Handed> {
    HANDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a parser for a file, which this process then does not parse itself. The caller must watch the file for changes.
pub fn offer(file: &Path, parser: &Arc<dyn Parser>, known: impl IntoIterator<Item = (String, Answers)>) {
    let mut handed = handed();
    let Handed { files, lists } = &mut *handed;
    let parsed = || Parsed { parser: Arc::clone(parser), known: HashMap::new() };
    let entry = files.entry(file.to_owned()).or_insert_with(parsed);
    for (inner, mut answers) in known {
        for answer in answers.values_mut() {
            if let Answer::Strings(Shared(list)) = answer {
                match lists.get(list) {
                    Some(same) => *list = Arc::clone(same),
                    None => drop(lists.insert(Arc::clone(list))),
                }
            }
        }
        entry.known.entry(inner).or_default().extend(answers);
    }
}

/// Unregisters files: containers opened from now on parse them themselves.
pub fn withdraw<'a>(files: impl IntoIterator<Item = &'a Path>) {
    let mut handed = handed();
    for file in files {
        handed.files.remove(file);
    }
    if handed.files.is_empty() {
        handed.lists = HashSet::new();
    }
}

/// The parser of a file, and the known answers about the group in it.
pub fn of(file: &Path, inner: &str) -> Option<(Arc<dyn Parser>, Answers)> {
    let handed = handed();
    let entry = handed.files.get(file)?;
    Some((Arc::clone(&entry.parser), entry.known.get(inner).cloned().unwrap_or_default()))
}

/// In a child: the answers of its containers, by group; `None` unless recording.
static RECORD: Mutex<Option<Vec<(String, Answers)>>> = Mutex::new(None);

fn record() -> MutexGuard<'static, Option<Vec<(String, Answers)>>> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts recording the answers of dropped containers.
pub fn begin() {
    *record() = Some(Vec::new());
}

pub fn is_recording() -> bool {
    record().is_some()
}

/// Records the answers of a container.
pub fn keep(inner: &str, answers: Answers) {
    if let Some(record) = record().as_mut() {
        record.push((inner.to_owned(), answers));
    }
}

/// All answers recorded since the last call.
pub fn take() -> Vec<(String, Answers)> {
    record().as_mut().map(std::mem::take).unwrap_or_default()
}
