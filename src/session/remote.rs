//! Settings for remote stores, of this process and of its children.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::{SessionError, Spec};
use crate::storage::name;
#[cfg(feature = "remote")]
use crate::storage::remote::{self, Settings};

/// The environment variable that passes them to a child: other users cannot read it, unlike the command line.
pub const HANDED: &str = "SHUFFLEFS_HANDED";
/// Remote reads time out somewhat before the mount's own timeout, so that their reason is reported.
#[cfg(feature = "remote")]
const SOONER: f64 = 0.9;

/// Sets how a mount makes requests.
///
/// # Errors
/// The cache is not writable.
#[cfg(feature = "remote")]
pub fn of_mount(options: &Spec) -> Result<(), SessionError> {
    let cache = options.cache_dir.clone().map(|directory| (directory, options.cache_size));
    let patience = options.timeout.mul_f64(SOONER);
    remote::configure(Settings { anonymous: options.anonymous, patience, index: options.index_dir.clone(), cache });
    remote::try_cache().map_err(|error| {
        let directory = options.cache_dir.as_deref().unwrap_or(std::path::Path::new("")).display();
        SessionError::Refused(format!("--cache-dir {directory}: {error}; name a directory that you may write to"))
    })
}

#[cfg(not(feature = "remote"))]
pub fn of_mount(_: &Spec) -> Result<(), SessionError> {
    Ok(())
}

/// Sets how other commands make requests.
#[cfg(feature = "remote")]
pub fn configure(anonymous: bool, timeout: Duration, index: Option<PathBuf>) {
    remote::configure(Settings { anonymous, patience: timeout.mul_f64(SOONER), index, cache: None });
}

#[cfg(not(feature = "remote"))]
pub fn configure(_: bool, _: Duration, _: Option<PathBuf>) {}

/// Notes that all stores are open.
pub fn opened() {
    #[cfg(feature = "remote")]
    remote::opened();
}

/// The settings to pass to a child; `network`: whether its stores are remote.
pub fn handed(network: bool) -> String {
    #[cfg(feature = "remote")]
    let (anonymous, seconds, index) = {
        let settings = remote::settings();
        (settings.anonymous, settings.patience.as_secs_f64() / SOONER, settings.index.clone())
    };
    #[cfg(not(feature = "remote"))]
    let (anonymous, seconds, index) = (false, 0.0, None::<PathBuf>);
    let names = name::concealed();
    json!({"network": network, "anonymous": anonymous, "seconds": seconds, "index": index, "names": names}).to_string()
}

/// In a child: applies its parent's settings. Returns whether stores are remote, and the index directory.
pub fn take() -> (bool, Option<PathBuf>) {
    let handed: Value =
        std::env::var(HANDED).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let seconds = handed["seconds"].as_f64().unwrap_or(60.0).clamp(0.0, 1e9);
    let index = handed["index"].as_str().map(PathBuf::from);
    configure(handed["anonymous"].as_bool().unwrap_or(false), Duration::from_secs_f64(seconds), index.clone());
    #[cfg(feature = "remote")]
    remote::on_answer(|| {
        use std::io::Read;
        // The parent watches the bytes that its child reads, and the system does not count those of sockets.
        let _ = std::fs::File::open("/dev/zero").and_then(|mut zero| zero.read(&mut [0]));
    });
    for name in handed["names"].as_str().unwrap_or_default().lines() {
        // The parent has done the same without an error.
        let _ = name::conceal(PathBuf::from(name));
    }
    (handed["network"].as_bool().unwrap_or(true), index)
}
