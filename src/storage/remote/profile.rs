//! AWS's configuration files, `~/.aws/config` and `~/.aws/credentials`: keys, region, endpoint, `credential_process`.
//!
//! Static keys are read again after a minute, as tools that renew credentials rewrite the file.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// How long static credentials are used before the files are read again.
const FRESH: Duration = Duration::from_secs(60);
/// How long before their expiry credentials are renewed.
const EARLY: Duration = Duration::from_secs(300);

/// The settings of the chosen profile.
#[derive(Debug, Default)]
pub struct Profile {
    pub region: Option<String>,
    pub endpoint: Option<String>,
    pub credentials: Option<Renewed>,
}

type Section = HashMap<String, String>;

/// Reads both files, if they exist.
///
/// # Errors
/// The requested profile is in neither.
pub fn read() -> Result<Profile, String> {
    let asked = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
    let name = asked.clone().unwrap_or_else(|| "default".to_owned());
    let section = section(&name);
    if section.is_empty() && asked.is_some() {
        return Err(format!("AWS_PROFILE: no profile is called {name} in ~/.aws/config and ~/.aws/credentials"));
    }
    let source = match (section.get("credential_process"), section.contains_key("aws_access_key_id")) {
        (_, true) => Some(Source::Files(name)),
        (Some(command), false) => Some(Source::Process(command.clone())),
        (None, false) => None,
    };
    Ok(Profile {
        region: section.get("region").cloned(),
        endpoint: section.get("endpoint_url").cloned(),
        credentials: source.map(|source| Renewed { source, last: Mutex::new(None) }),
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The settings of a profile; those of the credentials file take precedence.
fn section(profile: &str) -> Section {
    let file = |variable_name: &str, name: &str| {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws").join(name));
        let path = variable(variable_name).map(PathBuf::from).or_else(home)?;
        std::fs::read_to_string(path).ok()
    };
    let in_config = if profile == "default" { profile.to_owned() } else { format!("profile {profile}") };
    let config = file("AWS_CONFIG_FILE", "config").unwrap_or_default();
    let mut section = parse(&config, &in_config);
    let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials").unwrap_or_default();
    section.extend(parse(&credentials, profile));
    section
}

/// Parses one section of AWS's INI format. Names are lower-cased; indented lines (nested settings) are skipped.
fn parse(text: &str, wanted: &str) -> Section {
    let mut here = false;
    let mut section = Section::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            here = name.split_whitespace().eq(wanted.split_whitespace());
        } else if let Some((name, value)) = line.split_once('=').filter(|_| here) {
            let value = value.split(" #").next().unwrap_or(value).trim();
            section.insert(name.trim().to_lowercase(), value.to_owned());
        }
    }
    section
}

/// The source of credentials.
#[derive(Debug)]
enum Source {
    /// This profile in the files.
    Files(String),
    Process(String),
}

/// Credentials that are renewed before they expire.
pub struct Renewed {
    source: Source,
    last: Mutex<Option<(Arc<AwsCredential>, Instant)>>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Credentials must not be printed.
        f.debug_struct("Renewed").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Renewed {
    fn get(&self) -> Result<Arc<AwsCredential>, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((credential, until)) = &*last
            && Instant::now() < *until
        {
            return Ok(Arc::clone(credential));
        }
        let (credential, lasts) = match &self.source {
            Source::Files(profile) => (of_section(&section(profile))?, FRESH),
            Source::Process(command) => of_process(command)?,
        };
        let credential = Arc::new(credential);
        *last = Some((Arc::clone(&credential), Instant::now() + lasts));
        Ok(credential)
    }
}

impl CredentialProvider for Renewed {
    type Credential = AwsCredential;

    // The desugared form of the trait's `async fn`.
    fn get_credential<'life0, 'async_trait>(
        &'life0 self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let failed = |cause: String| object_store::Error::Unauthenticated { path: String::new(), source: cause.into() };
        Box::pin(std::future::ready(self.get().map_err(failed)))
    }
}

fn of_section(section: &Section) -> Result<AwsCredential, String> {
    let wanted = |name: &str| section.get(name).cloned().ok_or_else(|| format!("the profile has no {name}"));
    Ok(AwsCredential {
        key_id: wanted("aws_access_key_id")?,
        secret_key: wanted("aws_secret_access_key")?,
        token: section.get("aws_session_token").cloned(),
    })
}

/// The credentials that a `credential_process` prints, and how long to use them.
fn of_process(command: &str) -> Result<(AwsCredential, Duration), String> {
    let failed = |cause: String| format!("credential_process: {cause}");
    let output = Command::new("sh").args(["-c", command]).stdin(std::process::Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed("prints no JSON as AWS describes it (Version 1)".to_owned()))?;
    let text = |name: &str| said.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let wanted = |name: &str| text(name).ok_or_else(|| failed(format!("its answer has no {name}")));
    let credential = AwsCredential {
        key_id: wanted("AccessKeyId")?,
        secret_key: wanted("SecretAccessKey")?,
        token: text("SessionToken"),
    };
    let until = text("Expiration").and_then(|text| seconds(&text));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let lasts = match until {
        Some(until) => Duration::from_secs(until.saturating_sub(now)).saturating_sub(EARLY),
        None => Duration::from_secs(3600),
    };
    Ok((credential, lasts.max(Duration::from_secs(1))))
}

/// Parses an ISO 8601 time, `2026-11-28T20:00:00Z` or with an offset, to seconds since 1970.
fn seconds(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "Z" | "" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            sign * (zone.get(1..3)?.parse::<i64>().ok()? * 3600 + zone.get(4..6)?.parse::<i64>().ok()? * 60)
        }
    };
    // Days since 1970 in the proleptic Gregorian calendar, with years that start in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_as_aws_writes_them() {
        let text = "[default]\nregion = eu-west-1\n[profile  lab]\nRegion=us-west-2 # far\nendpoint_url = http://h\ns3 =\n  \
                    region = no\n# region = no\n";
        let of = |name| parse(text, name);
        assert_eq!(of("default").get("region").map(String::as_str), Some("eu-west-1"));
        let lab = of("profile lab");
        assert_eq!(lab.get("region").map(String::as_str), Some("us-west-2"));
        assert_eq!(lab.get("endpoint_url").map(String::as_str), Some("http://h"));
        assert!(of("profile other").is_empty());
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:30:15Z"), Some(1_709_209_815));
        assert_eq!(seconds("2026-11-28T20:00:00.123+01:00"), Some(1_795_892_400));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn a_credential_process_is_asked() {
        let (credential, lasts) =
            of_process(r#"echo '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c"}'"#)
                .expect("answers");
        assert_eq!((credential.key_id.as_str(), credential.token.as_deref()), ("a", Some("c")));
        assert_eq!(lasts, Duration::from_secs(3600));
        assert!(of_process("exit 3").is_err() && of_process("echo no").is_err());
    }
}
