//! Names of remote objects, and the removal of secrets from them.
//!
//! The query of an `https://` URL may be a signature, which gives access to everyone who knows it. So the command line takes it off and
//! stores it here (`conceal`): names in messages, logs, documents and the table of mounts are without it, and requests add it again
//! (`query_of`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

/// URL schemes of remote stores, in all spellings that are accepted.
pub const SCHEMES: [&str; 8] = ["s3://", "s3a://", "gs://", "az://", "abfs://", "abfss://", "https://", "http://"];

/// The kind of service behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    S3,
    Gcs,
    Azure,
    Http,
}

/// A parsed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub service: Service,
    /// The scheme and the server: `s3://bucket`, `https://host:port`.
    pub root: String,
    /// The bucket, the container, or the host and port.
    pub bucket: String,
    /// The account in `abfs://container@account.dfs...`.
    pub account: Option<String>,
    /// The path, without a slash at either end.
    pub key: String,
}

/// Whether a name is that of a remote store.
pub fn is_remote(name: &Path) -> bool {
    name.to_str().is_some_and(|name| SCHEMES.iter().any(|scheme| name.starts_with(scheme)))
}

/// A message if a name looks like a URL with an unknown scheme.
pub fn unknown_scheme(name: &str) -> Option<String> {
    let (scheme, rest) = name.split_once("://")?;
    let plain = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let known = SCHEMES.iter().any(|known| known.strip_suffix("://") == Some(scheme));
    if !plain || known || rest.is_empty() {
        return None;
    }
    let near = SCHEMES.iter().map(|known| (strsim::damerau_levenshtein(scheme, &known[..known.len() - 3]), known));
    let near = near.min().filter(|&(distance, _)| distance <= 2).map(|(_, known)| format!("; near: {known}"));
    Some(format!("no scheme is called {scheme}; known are {}{}", SCHEMES.join(", "), near.unwrap_or_default()))
}

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// The cause, without the name itself.
    pub fn parse(name: &str) -> Result<Name, String> {
        let scheme = SCHEMES.iter().find(|scheme| name.starts_with(**scheme)).ok_or("the scheme is not known")?;
        let service = match *scheme {
            "s3://" | "s3a://" => Service::S3,
            "gs://" => Service::Gcs,
            "https://" | "http://" => Service::Http,
            _ => Service::Azure,
        };
        let rest = &name[scheme.len()..];
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        let (bucket, account) = match host.split_once('@') {
            Some((container, host)) if service == Service::Azure => {
                (container, Some(host.split('.').next().unwrap_or(host).to_owned()))
            }
            Some(_) => {
                return Err(
                    "a user name or a password in a name is not read, as names are shown; use the credentials \
                            of the environment, or a presigned URL"
                        .to_owned(),
                );
            }
            None => (host, None),
        };
        if bucket.is_empty() {
            let what = if service == Service::Http { "host" } else { "bucket" };
            return Err(format!("no {what} is named: {scheme}{what}/KEY is expected"));
        }
        if service == Service::Http && *scheme == "http://" && !is_loopback(bucket) && !allowed_plain() {
            return Err("plain http lets anyone on the way change the bytes; use https://, or set \
                        SHUFFLEFS_ALLOW_HTTP=true"
                .to_owned());
        }
        Ok(Name {
            service,
            root: format!("{scheme}{host}"),
            bucket: bucket.to_owned(),
            account,
            key: key.trim_end_matches('/').to_owned(),
        })
    }
}

fn allowed_plain() -> bool {
    std::env::var("SHUFFLEFS_ALLOW_HTTP").is_ok_and(|value| value == "true" || value == "1")
}

/// Whether a host (with or without a port) is the local machine.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The queries, by the name that each was taken from.
static QUERIES: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

/// Takes the query off a name, and stores it for requests.
///
/// # Errors
/// Two names that differ only in their queries.
pub fn conceal(name: PathBuf) -> Result<PathBuf, String> {
    let Some(text) = name.to_str().filter(|text| text.starts_with("https://") || text.starts_with("http://")) else {
        return Ok(name);
    };
    // A name with a password is refused when it is parsed; the password must not be shown before that.
    let hidden = text.split_once("://").and_then(|(scheme, rest)| {
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        Some(format!("{scheme}://***@{}/{key}", host.rsplit_once('@')?.1))
    });
    let text = hidden.as_deref().unwrap_or(text);
    let Some((plain, query)) = text.split_once('?') else { return Ok(PathBuf::from(text)) };
    // `::GROUP` follows the query, as it follows other names.
    let (query, inner) = query.split_once("::").map_or((query, None), |(query, inner)| (query, Some(inner)));
    let mut queries = QUERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = queries.insert(plain.to_owned(), query.to_owned());
    if known.is_some_and(|known| known != query) {
        return Err(format!("{plain}: is named with two different queries; mount one of them"));
    }
    Ok(PathBuf::from(match inner {
        Some(inner) => format!("{plain}::{inner}"),
        None => plain.to_owned(),
    }))
}

/// The query that was taken off a name.
pub fn query_of(name: &str) -> Option<String> {
    QUERIES.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

/// All queries, one a line, to be passed to a child process in its environment, which other users cannot read.
pub fn concealed() -> String {
    let queries = QUERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = queries.iter().map(|(name, query)| format!("{name}?{query}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let parsed = |name: &str| {
            let address = Name::parse(name).unwrap_or_else(|cause| panic!("{name}: {cause}"));
            (address.service, address.root, address.bucket, address.key)
        };
        let is = |service, root: &str, bucket: &str, key: &str| (service, root.into(), bucket.into(), key.into());
        assert_eq!(parsed("s3://b/a/x.h5ad"), is(Service::S3, "s3://b", "b", "a/x.h5ad"));
        assert_eq!(parsed("gs://b/x.zarr/"), is(Service::Gcs, "gs://b", "b", "x.zarr"));
        assert_eq!(parsed("https://h:8443/x"), is(Service::Http, "https://h:8443", "h:8443", "x"));
        let azure = Name::parse("abfss://c@acc.dfs.core.windows.net/x.h5ad").expect("parses");
        assert_eq!((azure.bucket.as_str(), azure.account.as_deref()), ("c", Some("acc")));
        for (name, word) in
            [("s3:///x", "no bucket"), ("https://user:secret@h/x", "password"), ("http://example.org/x", "https://")]
        {
            let cause = Name::parse(name).expect_err(name);
            assert!(cause.contains(word) && !cause.contains("secret"), "{cause}");
        }
        assert!(Name::parse("http://127.0.0.1:9000/x").is_ok() && Name::parse("http://[::1]:9/x").is_ok());
    }

    #[test]
    fn a_typo_in_a_scheme_is_told() {
        let cause = unknown_scheme("s4://bucket/x.h5ad").expect("is none");
        assert!(cause.contains("s4") && cause.contains("s3://"), "{cause}");
        assert_eq!(unknown_scheme("s3://bucket/x"), None);
        assert_eq!(unknown_scheme("/data/odd://name"), None);
    }

    #[test]
    fn signatures_are_kept_aside() {
        let name = conceal("https://h.example/x.h5mu?X-Sig=secret::mod/rna".into()).expect("one");
        assert_eq!(name, Path::new("https://h.example/x.h5mu::mod/rna"));
        assert_eq!(query_of("https://h.example/x.h5mu").as_deref(), Some("X-Sig=secret"));
        assert!(conceal("https://h.example/x.h5mu?X-Sig=other".into()).is_err());
        let hidden = conceal("https://user:secret@h.example/x".into()).expect("one");
        assert_eq!(hidden, Path::new("https://***@h.example/x"));
        assert_eq!(conceal("s3://b/what?.h5ad".into()).as_deref(), Ok(Path::new("s3://b/what?.h5ad")));
    }
}
