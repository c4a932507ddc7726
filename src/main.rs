//! Parses, dispatches, exits with a documented code.

use shufflefs::slab::reserve::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() {
    shufflefs::cli::leave(shufflefs::cli::main(std::env::args_os().collect()))
}
