//! The S3 endpoint: from a project ref or a URL, normalised to end in one `/`.

use std::path::PathBuf;

use super::misplaced::shown;

/// Path of the S3 protocol behind Supabase's gateway.
pub const S3_PATH: &str = "/storage/v1/s3/";

/// What people copy from elsewhere: none of these is where objects are.
const OTHER_APIS: &[&str] = &[
    "/rest/v1",
    "/auth/v1",
    "/graphql/v1",
    "/realtime/v1",
    "/functions/v1",
    "/storage/v1",
    "/storage/v1/object",
];

/// Supabase's have 20 letters; those of self-hosted servers are names that people choose.
const LONGEST_REF: usize = 40;

/// A checked endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Ends in `/`: the SDK joins a path without it wrongly (aws-sdk-rust#1387).
    pub url: String,
    pub https: bool,
    /// In lower case, without the port.
    pub host: String,
    /// `/…/`, or `/` alone.
    pub path: String,
    /// Whether the URL came without a path and got [`S3_PATH`].
    pub completed: bool,
    /// The file of a project's folder that named the project.
    pub linked: Option<PathBuf>,
}

impl Endpoint {
    /// The endpoint of a hosted project. The storage host is the one preferred for large transfers.
    ///
    /// # Errors
    /// Text that cannot be a project ref.
    pub fn of_project(project_ref: &str) -> Result<Self, String> {
        check_project_ref(project_ref)?;
        Self::parse(&format!("https://{project_ref}.storage.supabase.co{S3_PATH}"))
    }

    /// The endpoint of a project by its API URL, as `supabase.createClient` takes it.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn of_api(url: &str) -> Result<Self, String> {
        let api = Self::parse(url)?;
        if let (Some(project_ref), true) = (api.project_ref(), api.completed) {
            let domain = api.host.rsplit('.').next().unwrap_or("co");
            return Self::parse(&format!("https://{project_ref}.storage.supabase.{domain}{S3_PATH}"));
        }
        if api.completed || api.path.ends_with(S3_PATH) {
            return Ok(Self { completed: false, ..api });
        }
        Self::parse(&format!("{}{S3_PATH}", api.url.trim_end_matches('/')))
    }

    /// The API URL of the project, without a slash at its end: where Supabase Auth is, below `/auth/v1`.
    #[must_use]
    pub fn api_url(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("https", &self.url));
        let authority = rest.split('/').next().unwrap_or_default();
        // The host for large transfers serves nothing but Storage.
        let authority = authority.replacen(".storage.supabase.", ".supabase.", 1);
        let before = self.path.strip_suffix(S3_PATH).unwrap_or_default();
        format!("{scheme}://{authority}{before}")
    }

    /// Checks and normalises a URL.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = |why: &str| {
            format!(
                "the endpoint {:?} {why}; write e.g. https://<project-ref>.storage.supabase.co{S3_PATH}",
                shown(text)
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("has no http:// or https://"))?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong("is neither http nor https")),
        };
        if rest.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(wrong("has a character that no URL has"));
        }
        if let Some(api) = OTHER_APIS.iter().find(|api| rest.trim_end_matches('/').ends_with(**api)) {
            let url = text.trim_end_matches('/');
            return Err(format!(
                "{} is the URL of another API of the project; leave the {api} away: {}",
                shown(text),
                shown(&url[..url.len() - api.len()])
            ));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("has a query or a fragment"));
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            // Not shown: what stands before the @ may be a password.
            return Err("the endpoint has a user name in it; credentials are given in other ways".to_owned());
        }
        let authority = authority.to_ascii_lowercase();
        let host = host_of(&authority).ok_or_else(|| wrong("has no valid host"))?;
        let trimmed = path.trim_end_matches('/');
        let completed = trimmed.is_empty();
        let path = if completed { S3_PATH.to_owned() } else { format!("{trimmed}/") };
        let scheme = if https { "https" } else { "http" };
        Ok(Self { url: format!("{scheme}://{authority}{path}"), https, host, path, completed, linked: None })
    }

    /// The project that the host names, for hosted projects.
    #[must_use]
    pub fn project_ref(&self) -> Option<&str> {
        let below =
            self.host.strip_suffix(".supabase.co").or_else(|| self.host.strip_suffix(".supabase.in"))?;
        let project = below.strip_suffix(".storage").unwrap_or(below);
        (!project.is_empty() && !project.contains('.')).then_some(project)
    }

    /// Whether the endpoint is on this machine, as with the Supabase CLI.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host == "[::1]" || self.host.starts_with("127.")
    }
}

fn host_of(authority: &str) -> Option<String> {
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        _ => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 3;
    let fine = bracketed || (!host.is_empty() && host.chars().all(plain));
    fine.then(|| host.to_owned())
}

/// A project ref goes into a host name: nothing but what may stand there.
///
/// # Errors
/// What is wrong, and where to find the ref.
pub fn check_project_ref(project_ref: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !project_ref.is_empty() && project_ref.len() <= LONGEST_REF && project_ref.chars().all(fine) {
        return Ok(());
    }
    Err(format!(
        "{:?} is no project ref: it is the part of https://<project-ref>.supabase.co in front of \
         .supabase.co; give a whole URL with --endpoint",
        shown(project_ref)
    ))
}

#[cfg(test)]
mod tests;
