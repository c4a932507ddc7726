//! stub
pub enum Container {}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind { Group, Array }
