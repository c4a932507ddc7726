//! Remote stores: the served bytes are equal to those from a local disk, or there is one clear line.
//!
//! The tests start servers on this machine's address: one with faults (`serve_objects.py`), and moto's S3, which checks signatures
//! (`serve_s3.py`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Mount, ROOT, list, python, shufflefs, store, stores, text};

pub const SMALL: [&str; 6] = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4"];
/// Without a profile and instance metadata.
const NOBODY: [(&str, &str); 3] =
    [("HOME", "/nonexistent"), ("AWS_CONFIG_FILE", "/nonexistent"), ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")];

/// A server that ends with the test.
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
    /// Its first line of output.
    pub said: String,
}

impl Server {
    fn start(script: &str, arguments: &[String]) -> Server {
        let mut command = python(script);
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
        let input = child.stdin.take();
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
        assert!(!said.is_empty(), "{script} ended before it served");
        Server { child, input, said: said.trim().to_owned() }
    }

    /// Serves a directory, with faults chosen by the URL.
    pub fn objects(directory: &Path) -> Server {
        Server::start("serve_objects.py", &[directory.display().to_string()])
    }

    pub fn url(&self, mode: &str, name: &str) -> PathBuf {
        PathBuf::from(format!("http://127.0.0.1:{}/{mode}/{name}", self.said))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take()); // End of input ends it.
        let _ = self.child.wait();
    }
}

/// moto's S3 with these objects in bucket `cells`, and the variables for a client; None if it is not installed.
fn s3(objects: &[String]) -> Option<(Server, Vec<(String, String)>)> {
    if !is_there("moto.server") {
        return None;
    }
    let server = Server::start("serve_s3.py", objects);
    let said: Value = serde_json::from_str(&server.said).expect("JSON");
    let variable = |name: &str, value: &Value| (name.to_owned(), value.as_str().unwrap_or_default().to_owned());
    let mut variables: Vec<(String, String)> = NOBODY.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    variables.push(("AWS_ENDPOINT_URL".to_owned(), format!("http://127.0.0.1:{}", said["port"])));
    variables.push(variable("AWS_ACCESS_KEY_ID", &said["key"]));
    variables.push(variable("AWS_SECRET_ACCESS_KEY", &said["secret"]));
    Some((server, variables))
}

/// Whether all servers must be installed, as in `scripts/test`.
pub fn is_required() -> bool {
    std::env::var_os("SHUFFLEFS_TEST_SERVERS").is_some()
}

/// Whether Python has a module. If not, prints that, or fails if all must be tested.
fn is_there(module: &str) -> bool {
    let found = python("has_module.py").arg(module).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        println!("{module} is not installed: what needs it is not tested (scripts/setup installs it)");
        assert!(!is_required(), "{module} is missing: run scripts/setup");
    }
    found
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Every file of the first epoch, and the first batch in each format; the error of unreadable files.
fn contents(mount: &Mount) -> BTreeMap<PathBuf, Result<Vec<u8>, ErrorKind>> {
    let epoch = Path::new("epoch-0000");
    let mut names: Vec<PathBuf> = list(&mount.join(epoch)).into_iter().map(|name| epoch.join(name)).collect();
    for other in ["h5ad", "safetensors", "X.npy", "obs.tsv"] {
        names.push(epoch.join(format!("batch-00000.{other}")));
    }
    names.into_iter().map(|name| (name.clone(), fs::read(mount.join(name)).map_err(|error| error.kind()))).collect()
}

fn line(output: &std::process::Output) -> String {
    text(&output.stderr).trim().to_owned()
}

/// Mounts both, and compares all files; or both must be refused.
pub fn same(local: &Path, remote: &Path, variables: &[(&str, &str)], may_not_list: bool) {
    let here = Mount::try_new(&[local.to_owned()], &SMALL);
    let there = Mount::with(&[remote.to_owned()], &SMALL, variables);
    match (here, there) {
        (Ok(here), Ok(there)) => {
            let (expected, got) = (contents(&here), contents(&there));
            assert!(expected.values().any(Result::is_ok), "{}: nothing was read", local.display());
            for (name, bytes) in &expected {
                let found = &got[name];
                let failed = found.as_ref().err();
                assert!(found == bytes, "{}: {} is not the local one ({failed:?})", remote.display(), name.display());
            }
        }
        (Err(_), Err(there)) => assert_eq!(there.status.code(), Some(3), "{}", line(&there)),
        (Ok(_), Err(there)) if may_not_list && line(&there).contains("cannot list") => {}
        (here, there) => {
            let tell = |mount: Result<Mount, std::process::Output>| mount.err().map(|output| line(&output));
            panic!("{}: locally {:?}, remotely {:?}", remote.display(), tell(here), tell(there));
        }
    }
}

/// Files and directories of `../shared/data`, if it exists.
fn shared() -> Vec<(String, PathBuf)> {
    let data = Path::new(ROOT).join("../shared/data");
    if !data.is_dir() {
        println!("{} is not there: only the stores that tests write are served", data.display());
        return Vec::new();
    }
    let stores = list(&data).into_iter().filter(|name| !name.ends_with(".json") && !name.ends_with(".tsv"));
    stores.map(|name| (name.clone(), data.join(name))).collect()
}

/// Stores of every layout, written by tests.
pub fn written() -> Vec<(String, PathBuf)> {
    let names = WRITTEN;
    names.iter().map(|name| (*name).to_owned()).zip(stores(&names)).collect()
}

const WRITTEN: [&str; 4] =
    ["csr-float32-gzip.h5ad", "csr-float32-blosc.v2.zarr", "dense-float32-none.h5ad", "csr-float32-none.v2.zarr"];

#[test]
fn stores_over_http_are_what_they_are_locally() {
    for (name, path) in shared().into_iter().chain(written()) {
        let server = Server::objects(path.parent().expect("a directory"));
        same(&path, &server.url("none-0", &name), &[], true);
    }
}

#[test]
fn stores_in_s3_are_what_they_are_locally() {
    let all: Vec<(String, PathBuf)> = shared().into_iter().chain(written()).collect();
    let objects: Vec<String> = all.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
    let Some((_server, variables)) = s3(&objects) else { return };
    for (name, path) in &all {
        same(path, &PathBuf::from(format!("s3://cells/{name}")), &borrowed(&variables), false);
    }
}

/// Whatever a server does, a read gives the right bytes or an error.
#[test]
fn faults_end_in_right_bytes_or_an_error() {
    let stores = written();
    let server = Server::objects(stores[0].1.parent().expect("a directory"));
    for (name, path) in &stores {
        let expected = contents(&Mount::new(std::slice::from_ref(path), &SMALL));
        for mode in [
            "plain", "lax", "busy", "reset", "cut", "short", "shifted", "long", "dead", "mute", "denied", "beyond",
            "moved", "changed", "replaced",
        ] {
            // A server that does not answer uses the whole timeout.
            let seeds = if ["mute", "dead", "busy"].contains(&mode) { 1 } else { 2 };
            for seed in 0..seeds {
                let options = [&SMALL[..], &["--timeout", "8s"]].concat();
                let url = server.url(&format!("{mode}-{seed}"), name);
                let began = Instant::now();
                let mount = Mount::try_new(std::slice::from_ref(&url), &options);
                let recovers = ["plain", "lax", "busy", "reset", "cut", "moved"].contains(&mode);
                match mount {
                    Ok(mount) => {
                        let mut whole = true;
                        for (file, got) in contents(&mount) {
                            match got {
                                Ok(bytes) => assert!(
                                    expected[&file].as_ref() == Ok(&bytes),
                                    "{}: {} is wrong",
                                    url.display(),
                                    file.display()
                                ),
                                Err(_) => whole &= expected[&file].is_err(),
                            }
                            if !whole && mode == "mute" {
                                break;
                            }
                        }
                        assert!(whole || !recovers, "{}: was not recovered from", url.display());
                    }
                    Err(output) => {
                        let said = line(&output);
                        assert!(!recovers, "{said}");
                        assert!(output.status.code() == Some(3) && !said.contains('\n'), "{}: {said}", url.display());
                    }
                }
                assert!(began.elapsed() < Duration::from_secs(60), "{}: too slow", url.display());
            }
        }
    }
}

#[test]
fn what_cannot_be_reached_is_told_in_one_line_and_soon() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::objects(directory.path());
    fs::create_dir(directory.path().join("plates")).expect("a directory");
    let port = &server.said;
    let nobody: Vec<(String, String)> = NOBODY.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let with = |more: &[(&str, String)]| {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        nobody.iter().cloned().chain(more).collect::<Vec<_>>()
    };
    let endpoint = format!("http://127.0.0.1:{port}/denied-0");
    let keys = with(&[
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "a".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
    ]);
    type Case<'a> = (String, &'a [(String, String)], &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("s4://cells/x.h5ad".to_owned(), &nobody, "near: s3://"),
        ("s3:///x.h5ad".to_owned(), &nobody, "no bucket"),
        ("s3://cells/x.h5ad".to_owned(), &nobody, "--anonymous"),
        ("s3://cells/x.h5ad".to_owned(), &keys, "permission denied"),
        ("https://user:word@example.org/x.h5ad".to_owned(), &nobody, "presigned"),
        ("http://example.org/x.h5ad".to_owned(), &nobody, "https://"),
        (format!("http://127.0.0.1:{port}/none-0/x.h5ad"), &nobody, "no such"),
        (format!("http://127.0.0.1:{port}/none-0/plates/*.h5ad"), &nobody, "cannot list"),
        ("http://127.0.0.1:1/x.h5ad".to_owned(), &nobody, "cannot connect"),
        (format!("http://127.0.0.1:{port}/whole-0/x.h5ad"), &nobody, "ignores ranges"),
        (format!("http://127.0.0.1:{port}/unnamed-0/x.h5ad"), &nobody, "no version"),
    ];
    fs::copy(store(WRITTEN[0]), directory.path().join("x.h5ad")).expect("copies");
    for (name, variables, word) in cases {
        let name = if name.contains("none-0/x.h5ad") { name.replace("x.h5ad", "absent.h5ad") } else { name };
        let began = Instant::now();
        let Err(output) = Mount::with(&[PathBuf::from(&name)], &[], &borrowed(variables)) else {
            panic!("{name}: mounts")
        };
        let said = line(&output);
        assert!(said.contains(word) && !said.contains('\n') && !said.contains(":word@"), "{name}: {said}");
        assert_eq!(output.status.code(), Some(3), "{name}: {said}");
        assert!(began.elapsed() < Duration::from_secs(12), "{name}: {:?}", began.elapsed());
    }
}

#[test]
fn signatures_are_not_shown() {
    let path = store(WRITTEN[0]);
    let server = Server::objects(path.parent().expect("a directory"));
    let log = tempfile::NamedTempFile::new().expect("a file");
    let name = format!("{}?X-Amz-Signature=verysecret", server.url("none-0", WRITTEN[0]).display());
    let options = [&SMALL[..], &["--log", log.path().to_str().expect("text")]].concat();
    let mount = Mount::new(&[PathBuf::from(&name)], &options);
    assert!(contents(&mount).values().any(Result::is_ok));
    let mut places = vec![
        fs::read_to_string("/proc/self/mountinfo").expect("reads"),
        fs::read_to_string(log.path()).expect("reads"),
    ];
    for name in list(&mount.join(".shufflefs")) {
        places.extend(fs::read_to_string(mount.join(".shufflefs").join(name)));
    }
    assert!(places.iter().any(|text| text.contains("127.0.0.1")), "the URL itself is shown");
    assert!(places.iter().all(|text| !text.contains("verysecret")));
    let info = shufflefs().args(["info", "--json", &name]).output().expect("runs");
    assert!(info.status.success() && !text(&info.stdout).contains("verysecret"), "{}", line(&info));
}

/// Mounts of local paths have no network threads and no sockets.
#[test]
fn local_mounts_have_no_network() {
    let mount = Mount::new(&[store(WRITTEN[0])], &SMALL);
    assert!(contents(&mount).values().any(Result::is_ok));
    let pid = &mount.json(".shufflefs/options.json")["pid"];
    let process = PathBuf::from(format!("/proc/{pid}"));
    for task in list(&process.join("task")) {
        let name = fs::read_to_string(process.join("task").join(task).join("comm")).unwrap_or_default();
        assert_ne!(name.trim(), "network");
    }
    for number in list(&process.join("fd")) {
        let target = fs::read_link(process.join("fd").join(number)).unwrap_or_default();
        assert!(!target.to_string_lossy().starts_with("socket:"), "{}", target.display());
    }
}

#[test]
fn patterns_are_expanded_by_listing() {
    let objects: Vec<String> = stores(&WRITTEN[..2])
        .iter()
        .zip(["plates/a.h5ad", "plates/b.zarr"])
        .map(|(path, name)| format!("{name}={}", path.display()))
        .collect();
    let Some((_server, variables)) = s3(&objects) else { return };
    let variables = borrowed(&variables);
    let local = contents(&Mount::new(&stores(&WRITTEN[..2]), &[&SMALL[..], &["--join", "outer"]].concat()));
    for name in ["s3://cells/plates/*", "s3://cells/plates/{a.h5ad,b.zarr}", "s3://cells/plat?s/[ab].*"] {
        let mount = Mount::with(&[PathBuf::from(name)], &[&SMALL[..], &["--join", "outer"]].concat(), &variables);
        let mount = mount.unwrap_or_else(|output| panic!("{name}: {}", line(&output)));
        assert!(contents(&mount) == local, "{name}");
    }
    let Err(output) = Mount::with(&[PathBuf::from("s3://cells/plates/*.h5")], &[], &variables) else { panic!() };
    assert!(line(&output).contains("no object matches") && output.status.code() == Some(3), "{}", line(&output));
}
