//! Names of AnnData's elements; no other module spells them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Elements at the root of an AnnData; none of them is another AnnData.
pub const ROOT: [&str; 10] = ["X", "obs", "var", LAYERS, OBSM, "varm", "obsp", "varp", "uns", "raw"];

pub const LAYERS: &str = "layers";
pub const OBSM: &str = "obsm";

/// A matrix with a row for each row of obs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum MatrixName {
    X,
    RawX,
    /// A matrix in `layers`.
    Layer(String),
    /// A matrix in `obsm`.
    Obsm(String),
}

impl MatrixName {
    /// The matrix with a path in a store; `None` if the path is not that of a matrix.
    pub fn at(path: &str) -> Option<MatrixName> {
        match path.split_once('/') {
            None if path == "X" => Some(MatrixName::X),
            Some(("raw", "X")) => Some(MatrixName::RawX),
            Some((_, "")) => None,
            Some((LAYERS, name)) => Some(MatrixName::Layer(name.to_owned())),
            Some((OBSM, name)) => Some(MatrixName::Obsm(name.to_owned())),
            _ => None,
        }
    }

    /// The path in a store.
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// The dataframe with the names of its columns, if there is one.
    pub fn frame(&self) -> Option<Frame> {
        match self {
            MatrixName::X | MatrixName::Layer(_) => Some(Frame::Var),
            MatrixName::RawX => Some(Frame::RawVar),
            MatrixName::Obsm(_) => None,
        }
    }

    pub fn is_layer(&self) -> bool {
        matches!(self, MatrixName::Layer(_))
    }

    pub fn is_obsm(&self) -> bool {
        matches!(self, MatrixName::Obsm(_))
    }
}

impl fmt::Display for MatrixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MatrixName::X => f.write_str("X"),
            MatrixName::RawX => f.write_str("raw/X"),
            MatrixName::Layer(name) => write!(f, "{LAYERS}/{name}"),
            MatrixName::Obsm(name) => write!(f, "{OBSM}/{name}"),
        }
    }
}

impl From<MatrixName> for String {
    fn from(name: MatrixName) -> String {
        name.path()
    }
}

impl TryFrom<String> for MatrixName {
    type Error = String;

    fn try_from(path: String) -> Result<MatrixName, String> {
        MatrixName::at(&path).ok_or_else(|| format!("{path} is no place of a matrix"))
    }
}

/// A dataframe of AnnData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    Obs,
    Var,
    RawVar,
}

impl Frame {
    /// The path in a store.
    pub fn path(self) -> &'static str {
        match self {
            Frame::Obs => "obs",
            Frame::Var => "var",
            Frame::RawVar => "raw/var",
        }
    }

    /// The dataframe with a path, also of old layouts.
    pub fn at(path: &str) -> Option<Frame> {
        match path {
            "obs" => Some(Frame::Obs),
            "var" => Some(Frame::Var),
            "raw/var" | "raw.var" => Some(Frame::RawVar),
            _ => None,
        }
    }
}

/// The path of an element of `raw` before anndata 0.7: `raw.X` for `raw/X`. `None` for other elements.
pub fn before_0_7(path: &str) -> Option<String> {
    path.strip_prefix("raw/").map(|rest| format!("raw.{rest}"))
}

/// Whether an element belongs to `raw`, in any layout.
pub fn is_raw(path: &str) -> bool {
    path.starts_with("raw/") || path.starts_with("raw.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_anndata() {
        let layer = |name: &str| MatrixName::Layer(name.to_owned());
        let obsm = |name: &str| MatrixName::Obsm(name.to_owned());
        for (path, name) in [
            ("X", MatrixName::X),
            ("raw/X", MatrixName::RawX),
            ("layers/counts", layer("counts")),
            ("obsm/X_pca", obsm("X_pca")),
            ("obsm/a/b", obsm("a/b")),
        ] {
            assert_eq!((MatrixName::at(path), name.path()), (Some(name.clone()), path.to_owned()));
        }
        for path in ["x", "raw", "raw/var", "raw/X/a", "layers", "layers/", "obs/a", "/X", "X/", ""] {
            assert_eq!(MatrixName::at(path), None, "{path}");
        }
        for frame in [Frame::Obs, Frame::Var, Frame::RawVar] {
            assert_eq!(Frame::at(frame.path()), Some(frame));
        }
        assert_eq!((before_0_7("raw/var"), before_0_7("X")), (Some("raw.var".to_owned()), None));
    }
}
