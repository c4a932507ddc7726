//! `shufflefs probe`: opens stores as a mount would and says nothing, or dies of it. Hidden; see `session::probe`.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, OrExit, Outcome};
use crate::session::probe;

#[derive(Debug, Args)]
pub struct ProbeArgs {
    #[arg(value_name = "STORE", required = true)]
    stores: Vec<PathBuf>,
}

pub fn probe(args: &ProbeArgs) -> Outcome {
    probe::child(&args.stores).or_exit(Exit::Internal).map(|()| 0)
}
