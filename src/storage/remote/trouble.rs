//! Classifies errors of requests: whether to retry, and a line for the user.

use std::error::Error as _;
use std::io::{Error, ErrorKind};

use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};

/// The meaning of a failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such object.
    Absent,
    /// The object is not in the version that was opened.
    Changed(String),
    /// The server asks for fewer requests.
    Busy(String),
    /// A retry may succeed.
    Passing(String),
    /// The range lies beyond the object's end.
    Range,
    /// These credentials are not permitted.
    Denied(String),
    /// No retry would help.
    Final(String),
}

impl Trouble {
    /// Classifies an error of the client.
    pub fn of(error: &StoreError) -> Trouble {
        let text = one_line(&error.to_string());
        match error {
            StoreError::NotFound { .. }
                if code(&text) == Some("NoSuchBucket") || text.contains("ContainerNotFound") =>
            {
                Trouble::Final("there is no such bucket (404)".to_owned())
            }
            StoreError::NotFound { .. } => Trouble::Absent,
            StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
                Trouble::Changed("it was written since (412)".to_owned())
            }
            StoreError::PermissionDenied { .. } => Trouble::Denied(denied(&text, 403)),
            StoreError::Unauthenticated { .. } => Trouble::Denied(denied(&text, 401)),
            _ => Trouble::other(error, &text),
        }
    }

    fn other(error: &StoreError, text: &str) -> Trouble {
        if is_about_credentials(text) {
            return Trouble::Denied(format!(
                "no credentials were found (environment, profile, instance role); set them, or say --anonymous if the \
                 bucket is public ({})",
                shortened(text)
            ));
        }
        match status(text) {
            Some(404) => return Trouble::Final("there is no such bucket, or it cannot be listed (404)".to_owned()),
            Some(416) => return Trouble::Range,
            Some(429 | 503) => return Trouble::Busy(answer(text)),
            Some(408 | 500..=599) => return Trouble::Passing(answer(text)),
            Some(_) => return Trouble::Final(answer(text)),
            None => {}
        }
        if ["Received non-partial response", "Range request not supported"].iter().any(|words| text.contains(words)) {
            return Trouble::Final(
                "the server ignores ranges (it answered 200 to a request for a part); serve it from another server, or \
                 download it"
                    .to_owned(),
            );
        }
        if text.contains("redirect without LOCATION") || text.contains("BareRedirect") {
            return Trouble::Final("the bucket is in another region; set AWS_REGION to it (301)".to_owned());
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<HttpError>() {
                let text = deepest(error);
                return match error.kind() {
                    _ if text.contains("certificate") => Trouble::Final(text),
                    HttpErrorKind::Connect => Trouble::Passing(format!("cannot connect: {text}")),
                    HttpErrorKind::Timeout => Trouble::Passing("no answer in time".to_owned()),
                    _ => Trouble::Passing(format!("the connection broke: {text}")),
                };
            }
            cause = error.source();
        }
        Trouble::Final(shortened(text))
    }

    /// The error of a request that is not retried; `what` was requested.
    pub fn error(self, what: &str) -> Error {
        let said =
            |kind, cause: String| Error::new(kind, if what.is_empty() { cause } else { format!("{what}: {cause}") });
        match self {
            Trouble::Absent => said(ErrorKind::NotFound, "there is no such object (404)".to_owned()),
            Trouble::Changed(cause) => said(ErrorKind::StaleNetworkFileHandle, cause),
            Trouble::Range => said(ErrorKind::UnexpectedEof, "the object ends before it (416)".to_owned()),
            Trouble::Denied(cause) => said(ErrorKind::PermissionDenied, cause),
            Trouble::Busy(cause) => {
                said(ErrorKind::TimedOut, format!("{cause}; mount with fewer readers, or try later"))
            }
            Trouble::Passing(cause) => said(ErrorKind::TimedOut, cause),
            Trouble::Final(cause) => said(ErrorKind::Other, cause),
        }
    }
}

/// The innermost cause, as text.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    one_line(&text)
}

/// The HTTP status. The client's error has no field for it, so it is taken from the text, which tests against real servers pin.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The service's error code, in XML answers.
fn code(text: &str) -> Option<&str> {
    Some(text.split_once("<Code>")?.1.split_once("</Code>")?.0)
}

/// Status and code of an answer, for messages.
fn answer(text: &str) -> String {
    let rest = text.split_once("status code: ").map_or(text, |(_, rest)| rest);
    let status = rest.split(':').next().unwrap_or(rest).trim();
    match code(text) {
        Some(code) => format!("the server answered {status} ({code})"),
        None => format!("the server answered {status}"),
    }
}

fn denied(text: &str, status: u16) -> String {
    let code = code(text).map(|code| format!(" {code}")).unwrap_or_default();
    let remedy = match code.trim() {
        "ExpiredToken" | "TokenRefreshRequired" => "the credentials have expired; renew them",
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => "the credentials are wrong",
        "RequestTimeTooSkewed" => "this machine's clock is wrong",
        _ => {
            "permission denied, or no such object where listing is not allowed (allow s3:ListBucket); check name, \
             credentials and policy, or say --anonymous if it is public"
        }
    };
    format!("{remedy} ({status}{code})")
}

fn is_about_credentials(text: &str) -> bool {
    ["169.254.169.254", "169.254.170.2", "metadata.google.internal", "/identity/oauth2/token"]
        .iter()
        .any(|place| text.contains(place))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The start of a text, with queries removed from its URLs.
fn shortened(text: &str) -> String {
    let words = text.split(' ').map(|word| word.split('?').next().unwrap_or(word));
    let text: String = words.collect::<Vec<_>>().join(" ");
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn statuses_are_read_from_the_clients_words() {
        let said = "Error after 0 retries: Server returned non-2xx status code: 503 Service Unavailable: \
                    <Error><Code>SlowDown</Code></Error>";
        let Trouble::Busy(cause) = Trouble::of(&generic(said)) else { panic!() };
        assert_eq!(cause, "the server answered 503 Service Unavailable (SlowDown)");
        let said = said.replace("503 Service Unavailable", "416 Range Not Satisfiable");
        assert_eq!(Trouble::of(&generic(&said)), Trouble::Range);
        let said = said.replace("416", "400");
        assert!(matches!(Trouble::of(&generic(&said)), Trouble::Final(_)));
    }

    #[test]
    fn no_signature_is_repeated() {
        let Trouble::Final(cause) = Trouble::of(&generic("GET https://h/x?X-Amz-Signature=secret failed")) else {
            panic!()
        };
        assert!(!cause.contains("secret"), "{cause}");
    }

    #[test]
    fn where_credentials_are_missing_the_remedy_is_told() {
        let said = "Error performing PUT http://169.254.169.254/latest/api/token in 1s";
        let error = Trouble::of(&generic(said)).error("");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("--anonymous"), "{error}");
    }
}
