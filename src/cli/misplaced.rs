//! A key or token in a setting that is shown, such as a URL or a region, is told before anything shows or sends it.

use super::error::CliError;
use super::setting::{SPELLINGS, Setting};
use super::settings::Settings;
use crate::auth::jwt;
use crate::secret::masked;

/// Hexadecimal digits of a secret access key as Supabase makes it.
const SECRET_DIGITS: usize = 64;
/// A setting of one word that is longer than this is shown in part.
const LONG: usize = 40;

/// The API keys of a project, which are for everybody to see.
const PUBLIC_KEYS: [Setting; 2] = [Setting::AnonKey, Setting::PublishableKey];

/// Looks at every setting in force that is no secret, and at those that hold a key of another kind.
///
/// # Errors
/// The first that holds a key which belongs elsewhere, with where keys belong; its text is not shown.
pub fn check(settings: &Settings) -> Result<(), CliError> {
    for found in PUBLIC_KEYS.iter().filter_map(|setting| settings.get(*setting)) {
        if is_secret_access_key(found.text().trim()) {
            return Err(CliError::failed(format!(
                "{found} is a secret access key, as it looks: it belongs in SUPABASE_S3_SECRET_ACCESS_KEY; an anon key \
                 begins with eyJ, a publishable one with sb_publishable_"
            )));
        }
    }
    for spelling in SPELLINGS.iter().filter(|spelling| !spelling.secret) {
        // An id has a check of its own, with its secret; what a command line says is never shown.
        let own_check = matches!(spelling.setting, Setting::AccessKeyId | Setting::SessionTokenCommand);
        if let Some(found) = settings.get(spelling.setting).filter(|_| !own_check)
            && let Some(what) = of(found.text())
        {
            return Err(CliError::failed(format!("{found} {}", words(what))));
        }
    }
    Ok(())
}

/// The same for a name that is no setting of the table: a profile or a file.
///
/// # Errors
/// As [`check`].
pub fn check_name(origin: &str, text: &str) -> Result<(), CliError> {
    of(text).map_or(Ok(()), |what| Err(CliError::failed(format!("{origin} {}", words(what)))))
}

fn of(text: &str) -> Option<&'static str> {
    if jwt::api_key(text).is_some() {
        Some("an API key or a token")
    } else if is_secret_access_key(text) {
        Some("a secret access key, as it looks")
    } else {
        None
    }
}

fn is_secret_access_key(text: &str) -> bool {
    text.len() == SECRET_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn words(what: &str) -> String {
    format!(
        "is {what}; secrets belong in SUPABASE_S3_SECRET_ACCESS_KEY, SUPABASE_ANON_KEY or SUPABASE_PUBLISHABLE_KEY, \
         SUPABASE_SESSION_TOKEN or SUPABASE_JWT_SECRET"
    )
}

/// A value as a message may show it: one long word may be a secret of a kind that cannot be told.
#[must_use]
pub fn shown(text: &str) -> String {
    let is_word = text.len() > LONG
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-.".contains(&byte));
    if is_word { masked(text) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_what_people_set() {
        for text in ["sb_secret_x", "sb_publishable_x", "eyJhbGciOiJIUzI1NiJ9.e30.sig", &"0a".repeat(32)] {
            assert!(of(text).is_some(), "{text}");
        }
        for text in [
            "us-east-1",
            "abcdefghijklmnopqrst",
            "https://abc.supabase.co",
            "5s",
            "/run/token",
            &"0a".repeat(16),
        ] {
            assert_eq!(of(text), None, "{text}");
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown(&"q".repeat(60)), "qqqqqqqq…");
    }
}
