//! Parses, dispatches, exits with a documented code.

fn main() {
    shufflefs::cli::leave(shufflefs::cli::main(std::env::args_os().collect()))
}
