//! `shufflefs info`: what is in a store, and what would stop a mount of it.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure, Outcome};

#[derive(Debug, Args)]
#[command(after_help = super::exit::HELP)]
pub struct InfoArgs {
    /// AnnData stores (.h5ad, .zarr)
    #[arg(value_name = "STORE", required = true)]
    pub stores: Vec<PathBuf>,

    /// Print JSON [default: text]
    #[arg(long)]
    pub json: bool,
}

pub fn info(args: &InfoArgs) -> Outcome {
    let error = anyhow::anyhow!("info on {} stores: not yet", args.stores.len());
    Err(Failure {
        exit: Exit::Internal,
        error,
    })
}
