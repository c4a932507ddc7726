//! Contains panics: of libraries on damaged input, which become errors (needed for pco, whose bit stream has lengths that are not
//! validated), and of our own code, which fail one request.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is being caught, so that the panic hook need not print it.
pub fn is_catching_panics() -> bool {
    GUARDED.get()
}

/// Calls a function; a panic becomes an error message. Everything the call owned is dropped, so no partial state is seen afterwards.
pub fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(before);
    result.map_err(|panic| format!("cannot be decoded ({})", words(panic.as_ref())))
}

/// Calls our own code for one request. A panic in it, which the panic hook prints and logs, ends that request and not the thread.
/// Reply objects that the call owned are dropped, which sends an error.
pub fn contain_panic(call: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(call));
}

/// The message of a panic, in one line.
pub fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown cause").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_words() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        let error = catch_panic(|| -> u8 { std::panic::resume_unwind(Box::new("index\n 9".to_owned())) });
        assert_eq!(error, Err("cannot be decoded (index 9)".to_owned()));
        assert!(!is_catching_panics());
    }
}
