//! A password comes from `SUPABASE_PASSWORD`, from standard input, or from the terminal without echo: never from argv.

use std::io::{self, BufRead, IsTerminal, Write};

use super::error::CliError;
use super::setting::Setting;
use super::settings::Settings;
use crate::secret::Secret;

/// The password of `email`.
///
/// # Errors
/// Where none is given.
pub fn of(settings: &Settings, email: &str) -> Result<Secret, CliError> {
    if let Some(found) = settings.get(Setting::Password) {
        return Ok(found.value);
    }
    let told = |error: io::Error| CliError::failed(format!("cannot read the password: {error}"));
    let text = if io::stdin().is_terminal() {
        rpassword::prompt_password(format!("Password of {email}: ")).map_err(told)?
    } else {
        line().map_err(told)?
    };
    if text.is_empty() {
        return Err(CliError::failed(format!(
            "no password of {email}; set SUPABASE_PASSWORD, write it to standard input, or run this in a terminal"
        )));
    }
    Ok(Secret::new(text))
}

/// The address to sign in with.
///
/// # Errors
/// Where none is given and nobody can be asked.
pub fn email(settings: &Settings) -> Result<String, CliError> {
    if let Some(found) = settings.get(Setting::Email) {
        return Ok(found.text().to_owned());
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::usage("no address to sign in with; give --email or SUPABASE_EMAIL"));
    }
    let asked = || {
        eprint!("Email: ");
        io::stderr().flush()?;
        line()
    };
    let text = asked().map_err(|error| CliError::failed(format!("cannot read the address: {error}")))?;
    match text.trim() {
        "" => Err(CliError::failed("no address to sign in with")),
        email => Ok(email.to_owned()),
    }
}

fn line() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().read_line(&mut text)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}
