//! Why stores cannot be served as requested: one line, from whichever room.

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
    /// The request cannot be fulfilled; the message says what to request instead.
    #[error("{0}")]
    Refused(String),
    /// An error of one option, view or file, which the message names first.
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

/// Adds what an error is about.
pub trait About<T> {
    /// # Errors
    /// The same error, with its subject in front.
    fn about(self, subject: impl Display) -> Result<T, SessionError>;
}

impl<T, E: Into<SessionError>> About<T> for Result<T, E> {
    fn about(self, subject: impl Display) -> Result<T, SessionError> {
        self.map_err(|error| SessionError::About { subject: subject.to_string(), cause: Box::new(error.into()) })
    }
}
