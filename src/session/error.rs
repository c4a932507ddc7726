//! Why stores cannot be served as asked: one line, whatever room it comes from.

use std::fmt::Display;
use std::io;

use crate::array::ArrayError;
use crate::collection::CollectionError;
use crate::plan::PlanError;
use crate::view::ViewError;

/// Why a session cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Collection(#[from] CollectionError),
    #[error(transparent)]
    Store(#[from] ArrayError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What was asked for cannot be had; the message says what to ask for instead.
    #[error("{0}")]
    Refused(String),
    /// An error of one option, view or file, which is named first.
    #[error("{subject}: {cause}")]
    About { subject: String, cause: Box<SessionError> },
    #[error(transparent)]
    System(#[from] io::Error),
}

impl SessionError {
    pub fn refused(message: impl Display) -> SessionError {
        SessionError::Refused(message.to_string())
    }
}

/// Names what an error is about.
pub trait About<T> {
    /// # Errors
    /// The same error, after its subject.
    fn about(self, subject: impl Display) -> Result<T, SessionError>;
}

impl<T, E: Into<SessionError>> About<T> for Result<T, E> {
    fn about(self, subject: impl Display) -> Result<T, SessionError> {
        self.map_err(|error| SessionError::About { subject: subject.to_string(), cause: Box::new(error.into()) })
    }
}
