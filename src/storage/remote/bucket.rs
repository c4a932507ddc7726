//! Clients of the services. Credentials and endpoints follow the conventions of each.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::flight::Flight;
use super::profile;
use crate::storage::name::{Name, Service, is_loopback};

/// A bucket, container or server: what one client connects to.
#[derive(Debug)]
pub struct Bucket {
    pub client: Arc<dyn ObjectStore>,
    pub flight: Flight,
    /// Whether it has returned an object: name and credentials are valid then.
    pub proven: AtomicBool,
}

impl Bucket {
    /// Creates the client for a name; makes no request.
    ///
    /// # Errors
    /// Invalid settings, in one line.
    pub fn connect(address: &Name, query: Option<&str>, anonymous: bool) -> std::io::Result<Bucket> {
        // rustls does not choose its provider on its own, though there is only one. Repeated calls have no effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client: object_store::Result<Arc<dyn ObjectStore>> = match address.service {
            Service::S3 => s3(address, anonymous)?.build().map(|client| Arc::new(client) as _),
            Service::Gcs => gcs(address, anonymous).build().map(|client| Arc::new(client) as _),
            Service::Azure => azure(address, anonymous).build().map(|client| Arc::new(client) as _),
            Service::Http => http(address, query).build().map(|client| Arc::new(client) as _),
        };
        let client = client.map_err(|error| Error::new(ErrorKind::InvalidInput, settings(&error)))?;
        Ok(Bucket { client, flight: Flight::default(), proven: AtomicBool::new(false) })
    }
}

/// An error in settings, as one line.
fn settings(error: &object_store::Error) -> String {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    if text.contains("Account must be specified") {
        return "the account is not named: set AZURE_STORAGE_ACCOUNT_NAME".to_owned();
    }
    text
}

/// No retries by the client: `request` retries, counts them, and notices an overloaded server.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn options(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(5))
        .with_read_timeout(Duration::from_secs(15))
        .with_pool_idle_timeout(Duration::from_secs(60))
}

fn is_http(endpoint: &str) -> bool {
    endpoint.starts_with("http://")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn s3(address: &Name, anonymous: bool) -> std::io::Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&address.bucket).with_retry(once());
    let said = profile::read().map_err(|cause| Error::new(ErrorKind::InvalidInput, cause))?;
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|name| variable(name));
    let endpoint = endpoint.or(said.endpoint);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).is_none()
        && let Some(region) = said.region
    {
        builder = builder.with_region(region);
    }
    if anonymous {
        builder = builder.with_skip_signature(true);
    } else if variable("AWS_ACCESS_KEY_ID").is_none()
        && variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_none()
        && let Some(credentials) = said.credentials
    {
        builder = builder.with_credentials(Arc::new(credentials));
    }
    let plain = endpoint.as_deref().is_some_and(is_http);
    Ok(builder.with_client_options(options(plain)))
}

fn gcs(address: &Name, anonymous: bool) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&address.bucket).with_retry(once());
    // The variable that Google's own libraries read.
    let emulator = variable("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
        true => host,
        false => format!("http://{host}"),
    });
    if let Some(emulator) = &emulator {
        builder = builder.with_base_url(emulator);
    }
    if anonymous || emulator.is_some() {
        builder = builder.with_skip_signature(true);
    }
    builder.with_client_options(options(emulator.as_deref().is_some_and(is_http)))
}

fn azure(address: &Name, anonymous: bool) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(&address.bucket).with_retry(once());
    if let Some(account) = &address.account {
        builder = builder.with_account(account);
    }
    if anonymous {
        builder = builder.with_skip_signature(true);
    }
    let plain = variable("AZURE_STORAGE_ENDPOINT").or_else(|| variable("AZURE_ENDPOINT"));
    let emulated = variable("AZURE_STORAGE_USE_EMULATOR").is_some_and(|value| value == "true" || value == "1");
    builder.with_client_options(options(emulated || plain.as_deref().is_some_and(is_http)))
}

fn http(address: &Name, query: Option<&str>) -> HttpBuilder {
    let plain = is_http(&address.root);
    debug_assert!(!plain || is_loopback(&address.bucket) || variable("SHUFFLEFS_ALLOW_HTTP").is_some());
    // A query belongs to one object, so its client has the whole URL of the object.
    let url = match query {
        Some(query) => format!("{}/{}?{query}", address.root, address.key),
        None => address.root.clone(),
    };
    HttpBuilder::new().with_url(url).with_retry(once()).with_client_options(options(plain))
}
