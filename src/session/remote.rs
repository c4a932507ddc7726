//! Settings of remote stores, for this process and for the children that try stores.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::{SessionError, Spec};
use crate::storage::name;
#[cfg(feature = "remote")]
use crate::storage::remote::{self, Settings};

/// The variable that hands them to a child: other users cannot read it, as they can a command line.
pub const HANDED: &str = "SHUFFLEFS_HANDED";
/// A read ends before the mount's own patience does, so that its reason is told.
#[cfg(feature = "remote")]
const SOONER: f64 = 0.9;

/// How a mount asks for remote objects.
///
/// # Errors
/// A cache that cannot be written.
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

/// How anything else asks for them.
#[cfg(feature = "remote")]
pub fn configure(anonymous: bool, timeout: Duration, index: Option<PathBuf>) {
    remote::configure(Settings { anonymous, patience: timeout.mul_f64(SOONER), index, cache: None });
}

#[cfg(not(feature = "remote"))]
pub fn configure(_: bool, _: Duration, _: Option<PathBuf>) {}

/// All stores are open.
pub fn opened() {
    #[cfg(feature = "remote")]
    remote::opened();
}

/// What a child needs to read what its parent reads; `network`: some of it lies behind one.
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

/// In a child: takes it up. Whether there is a network, and where what is learnt over it is kept.
pub fn take() -> (bool, Option<PathBuf>) {
    let handed: Value =
        std::env::var(HANDED).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let seconds = handed["seconds"].as_f64().unwrap_or(60.0).clamp(0.0, 1e9);
    let index = handed["index"].as_str().map(PathBuf::from);
    configure(handed["anonymous"].as_bool().unwrap_or(false), Duration::from_secs_f64(seconds), index.clone());
    #[cfg(feature = "remote")]
    remote::on_answer(|| {
        use std::io::Read;
        // The parent watches how many bytes its child reads, and the system does not count those of a socket.
        let _ = std::fs::File::open("/dev/zero").and_then(|mut zero| zero.read(&mut [0]));
    });
    for name in handed["names"].as_str().unwrap_or_default().lines() {
        // It was accepted before.
        let _ = name::conceal(PathBuf::from(name));
    }
    (handed["network"].as_bool().unwrap_or(true), index)
}
