//! Command lines: each line of the input is an argument; among them lists in `-o`, sizes and times.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// One input.
pub fn run(data: &[u8]) {
    let arguments: Vec<OsString> =
        data.split(|&byte| byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    // Help and version of clap are printed, and slow.
    let is_question = |word: &OsString| {
        let word = word.to_string_lossy();
        word.contains("help")
            || (word.starts_with('-') && !word.starts_with("--") && word.contains(['h', 'V']))
            || word == "--version"
    };
    if !arguments.iter().any(is_question)
        && let Err(line) = shufflefs::cli::parses(arguments)
    {
        assert!(!line.contains('\n'), "{line}");
    }
}
