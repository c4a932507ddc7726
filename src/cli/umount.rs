//! `shufflefs umount`: unmounts, including dead mounts.

use std::path::PathBuf;

use clap::Args;

use super::exit::{self, Outcome};
use crate::mount::list;
use crate::mount::unmount::{Left, unmount};

#[derive(Debug, Args)]
#[command(after_help = super::exit::HELP)]
pub struct UmountArgs {
    /// The mount to end. Waits until its daemon is gone; a mount in use is detached, and ends when its files are closed
    /// [default: none, it must be given]
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
}

pub fn umount(args: &UmountArgs) -> Outcome {
    if let Left::Detached { holders } = unmount(&args.mountpoint)? {
        let (place, holders) = (args.mountpoint.display(), list(&holders));
        exit::say(&format!("{place}: still open by {holders}; detached, the daemon ends when they are closed"));
    }
    Ok(0)
}
