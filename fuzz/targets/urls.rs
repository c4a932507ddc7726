//! Names of remote objects, patterns and sets of names: input from users, and from listings of servers.

use std::path::{Path, PathBuf};

use shufflefs::storage::name::{self, Name};
use shufflefs::storage::pattern;

/// One input.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (one, other) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(parsed) = Name::parse(one) {
        assert!(name::is_remote(Path::new(one)) && one.starts_with(&parsed.root) && !parsed.bucket.is_empty());
        assert!(!parsed.key.ends_with('/'));
        // A password would be shown.
        assert!(parsed.account.is_some() || !parsed.root.contains('@'), "{}", parsed.root);
        let _ = name::is_loopback(&parsed.bucket);
    }
    let _ = (name::unknown_scheme(one), name::is_loopback(one));
    if let Ok(shown) = name::conceal(PathBuf::from(one)) {
        let shown = shown.to_string_lossy();
        if let Some(query) = name::query_of(&shown) {
            assert!(query.len() < 4 || !shown.contains(&format!("?{query}")), "{shown}");
        }
    }
    if let Ok(all) = pattern::sets(one) {
        assert!(!all.is_empty());
    }
    let plain = !one.contains(['*', '?', '[', '\0']);
    if plain {
        assert!(pattern::fits_path(Path::new(one), Path::new(one)));
    }
    let _ = pattern::fits_path(Path::new(one), Path::new(other));
}
