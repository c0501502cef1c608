//! The `supafs` binary: everything is in the library, this only carries the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    supafs::cli::run(std::env::args_os())
}
