//! The command line: one file a command, over settings that come from flags, environment and files.

mod access;
mod args;
mod background;
mod buckets;
mod common_args;
mod doctor;
mod endpoint;
mod env_file;
mod error;
mod fuse_access;
mod identity;
mod lab;
mod local_stack;
mod login;
mod misplaced;
mod mount;
mod mount_table;
mod mountpoint;
mod online;
mod option_list;
mod password;
mod presence;
mod profile;
mod setting;
mod settings;
mod spool;
mod units;
mod unmount;
mod variables;
mod whoami;

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use error::CliError;

/// Parses and runs; `args` begins with the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(args) = as_mount_helper(args.into_iter().collect()) else { return ExitCode::SUCCESS };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too, with code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Err(error) = crate::sys::raise_descriptor_limit() {
        eprintln!("supafs: cannot raise the limit of open files: {error}");
    }
    if let Err(error) = crate::sys::harden() {
        eprintln!("supafs: cannot protect this process: {error}");
        return ExitCode::FAILURE;
    }
    variables::make_absolute();
    let result = match cli.command {
        Command::Mount(args) => mount::run(&args),
        Command::Unmount(args) => unmount::run(&args),
        Command::Login(args) => login::sign_in(&args),
        Command::Logout(args) => login::sign_out(&args),
        Command::Whoami(args) => whoami::run(&args),
        Command::Buckets(args) => buckets::run(&args),
        Command::Spool(command) => spool::run(&command),
        Command::Access(args) => lab::access(&args),
        Command::Diff(args) => lab::diff(&args),
        Command::Test(args) => lab::test(&args),
        Command::Doctor(args) => return doctor::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Told(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("supafs: {error}");
            ExitCode::from(error.code())
        }
    }
}

/// A line that the user should see before the command goes on.
fn warn(text: &str) {
    eprintln!("supafs: warning: {text}");
}

/// Runs requests of a command that serves nothing. No thread is left behind.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(future))
}

/// Called as `mount.supafs` or `mount.fuse.supafs`, this is mount(8)'s helper: SOURCE DIR and its own flags.
/// `None` where it only has to say yes (`-f`, a dry run).
fn as_mount_helper(args: Vec<OsString>) -> Option<Vec<OsString>> {
    let name = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    if !(name.starts_with("mount.") && name.ends_with("supafs")) {
        return Some(args);
    }
    let mut result: Vec<OsString> = ["supafs", "mount"].map(OsString::from).to_vec();
    let mut rest = args.into_iter().skip(1);
    while let Some(arg) = rest.next() {
        match arg.to_string_lossy().as_ref() {
            "-f" => return None,
            "-r" => result.extend(["-o", "ro"].map(OsString::from)),
            "-n" | "-s" | "-v" | "-w" | "-i" => {}
            "-t" | "-N" => drop(rest.next()),
            _ => result.push(arg),
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests;
