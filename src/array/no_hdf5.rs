//! HDF5 files in a build without the feature `hdf5`: recognised, and refused with a message.

use super::container::Kind;

pub const KIND: Kind = Kind {
    recognises: |candidate| candidate.is_hdf5(),
    open: |candidate| {
        Err(candidate.fail(
            "an HDF5 file, and this build reads zarr only: use a build with the feature `hdf5` (the default), or write the \
             store as zarr (`anndata.read_h5ad(file).write_zarr(...)`)",
        ))
    },
    needs_trial: false,
};

/// Stubs of `hdf5::handed`: without a C library there are no children that parse stores.
pub mod handed {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::Arc;

    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Question;

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Answer {
        Tried,
    }

    pub type Answers = HashMap<Question, Answer>;

    pub trait Parser: Send + Sync {
        /// # Errors
        /// None: nothing can be asked.
        fn ask(&self, file: &Path, inner: &str, question: &Question) -> Result<Answer, String>;
    }

    pub fn offer(_: &Path, _: &Arc<dyn Parser>, _: impl IntoIterator<Item = (String, Answers)>) {}

    pub fn withdraw<'a>(_: impl IntoIterator<Item = &'a Path>) {}

    pub fn begin() {}

    pub fn take() -> Vec<(String, Answers)> {
        Vec::new()
    }
}
