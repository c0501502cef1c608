//! Row Level Security by rules instead of SQL: policies of a bucket's objects, and what the server's
//! statements ask of them. RLS is always on: a bucket without policies shows users nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::Identity;
use crate::error::{S3Error, S3Result};

/// A statement on `storage.objects`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    Select,
    Insert,
    Update,
    Delete,
}

impl Command {
    /// `FOR ALL`.
    pub const ALL: [Self; 4] = [Self::Select, Self::Insert, Self::Update, Self::Delete];
}

/// The `USING` / `WITH CHECK` expression of a policy, as far as tests need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicate {
    /// `true`
    Always,
    /// `(storage.foldername(name))[1] = auth.uid()::text`
    FirstFolderIsSub,
    /// The key lies below this folder, at any depth.
    Under(String),
    /// `storage.extension(name) = …`
    Extension(String),
    /// `owner_id = auth.uid()::text`: the row was last written by the caller.
    Owner,
    /// `auth.role() = …`
    Role(String),
    /// `auth.jwt() #>> path = value`, the path given with dots.
    Claim {
        path: String,
        value: Value,
    },
    /// `(storage.foldername(name))[level] = auth.jwt() #>> path`, the level counted from 1.
    FolderIsClaim {
        level: usize,
        path: String,
    },
    /// An expression that fails with an SQLSTATE, e.g. `22012` of `1 / 0`, for rows that the other one holds for.
    Raises {
        sqlstate: String,
        of: Box<Predicate>,
    },
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
}

/// A permissive policy on the objects of one bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub commands: Vec<Command>,
    /// `TO` roles; empty means every role.
    #[serde(default)]
    pub roles: Vec<String>,
    pub predicate: Predicate,
}

impl Policy {
    /// A policy for one command, for every role.
    #[must_use]
    pub fn new(command: Command, predicate: Predicate) -> Self {
        Self { commands: vec![command], roles: Vec::new(), predicate }
    }

    /// A policy for all four commands, for every role.
    #[must_use]
    pub fn all(predicate: Predicate) -> Self {
        Self { commands: Command::ALL.to_vec(), roles: Vec::new(), predicate }
    }

    /// Restricts the policy to a role (call again for more).
    #[must_use]
    pub fn to(mut self, role: &str) -> Self {
        self.roles.push(role.to_owned());
        self
    }

    /// Preset: everything below the folder named by one's `sub`, and reading of `shared/`.
    #[must_use]
    pub fn user_folders() -> Vec<Self> {
        vec![
            Self::all(Predicate::FirstFolderIsSub).to("authenticated"),
            Self::new(Command::Select, Predicate::Under("shared".to_owned())).to("authenticated"),
        ]
    }

    /// Preset: the policies that `tests/rls.sql` gives the second bucket. Besides folders of users and `shared/`, as
    /// above: `board/` by owner, where all read and add but change only what is theirs; `public/` by role, where
    /// `anon` reads; `team/<name>/` by the claim `app_metadata.team`; `notes/` by extension, where all read, and files
    /// named `*.txt` are changed.
    #[must_use]
    pub fn laboratory() -> Vec<Self> {
        let under = |folder: &str| Predicate::Under(folder.to_owned());
        let own = || Predicate::And(vec![under("board"), Predicate::Owner]);
        let team = Predicate::FolderIsClaim { level: 2, path: "app_metadata.team".to_owned() };
        let text = || Predicate::And(vec![under("notes"), Predicate::Extension("txt".to_owned())]);
        let mut policies = Self::user_folders();
        policies.extend([
            Self::new(Command::Select, under("board")).to("authenticated"),
            Self::new(Command::Insert, own()).to("authenticated"),
            Self::new(Command::Update, own()).to("authenticated"),
            Self::new(Command::Delete, own()).to("authenticated"),
            Self::new(Command::Select, under("public")).to("anon"),
            Self::all(Predicate::And(vec![under("public"), Predicate::Role("authenticated".to_owned())])),
            Self::all(Predicate::And(vec![under("team"), team])).to("authenticated"),
            Self::new(Command::Select, under("notes")).to("authenticated"),
            Self::all(text()).to("authenticated"),
        ]);
        policies
    }

    /// Preset: the policy that `tests/rls.sql` gives the third bucket, which divides by zero for every object whose name
    /// begins with `broken/`, and lets authenticated users do everything elsewhere.
    #[must_use]
    pub fn broken() -> Vec<Self> {
        let broken = || Box::new(Predicate::Under("broken".to_owned()));
        vec![
            Self::all(Predicate::Not(broken())).to("authenticated"),
            Self::all(Predicate::Raises { sqlstate: "22012".to_owned(), of: broken() }).to("authenticated"),
        ]
    }

    /// Preset: authenticated users may do everything.
    #[must_use]
    pub fn authenticated_all() -> Vec<Self> {
        vec![Self::all(Predicate::Always).to("authenticated")]
    }

    /// Preset: authenticated users may read everything and write nothing.
    #[must_use]
    pub fn authenticated_read() -> Vec<Self> {
        vec![Self::new(Command::Select, Predicate::Always).to("authenticated")]
    }

    /// A preset by its name on the command line.
    #[must_use]
    pub fn preset(name: &str) -> Option<Vec<Self>> {
        match name {
            "user_folders" => Some(Self::user_folders()),
            "laboratory" => Some(Self::laboratory()),
            "broken" => Some(Self::broken()),
            "authenticated_all" => Some(Self::authenticated_all()),
            "authenticated_read" => Some(Self::authenticated_read()),
            "none" => Some(Vec::new()),
            _ => None,
        }
    }

    fn covers(&self, command: Command, role: &str) -> bool {
        self.commands.contains(&command) && (self.roles.is_empty() || self.roles.iter().any(|r| r == role))
    }
}

/// The columns a predicate can look at.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub key: &'a str,
    pub owner: Option<&'a str>,
}

/// One caller against one bucket's policies.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub identity: &'a Identity,
    pub policies: &'a [Policy],
}

impl Access<'_> {
    /// Whether a policy lets `command` at `row`. `auth.uid()` casts the subject: where no other policy
    /// lets a row through, one that calls it fails the statement for subjects that are not UUIDs.
    pub fn allows(&self, command: Command, row: Row<'_>) -> S3Result<bool> {
        if self.identity.bypasses_policies() {
            return Ok(true);
        }
        let covers = |p: &&Policy| p.covers(command, &self.identity.role);
        let (casting, plain): (Vec<_>, Vec<_>) =
            self.policies.iter().filter(covers).partition(|p| p.predicate.casts());
        if plain.iter().any(|p| p.predicate.holds(self.identity, row)) {
            return Ok(true);
        }
        if let Some(sqlstate) = plain.iter().find_map(|p| p.predicate.raises(self.identity, row)) {
            return Err(S3Error::new(500, "DatabaseError", format!("database error, code: {sqlstate}")));
        }
        match self.identity.sub.as_deref() {
            Some(sub) if !casting.is_empty() && !is_uuid(sub) => {
                let message = format!("invalid input syntax for type uuid: \"{sub}\"");
                Err(S3Error::invalid_parameter(message))
            }
            _ => Ok(casting.iter().any(|p| p.predicate.holds(self.identity, row))),
        }
    }

    /// `INSERT … ON CONFLICT DO UPDATE … RETURNING`: what a PUT or the target of a COPY needs. `existing`
    /// is the row that is there, if one is.
    pub fn check_upsert(&self, key: &str, existing: Option<Row<'_>>) -> S3Result<()> {
        use Command::{Insert, Select, Update};
        let new = Row { key, owner: self.identity.sub.as_deref() };
        let mut allowed = self.allows(Insert, new)? && self.allows(Select, new)?;
        if let Some(old) = existing {
            allowed = allowed
                && self.allows(Select, old)?
                && self.allows(Update, old)?
                && self.allows(Update, new)?;
        }
        if allowed { Ok(()) } else { Err(S3Error::row_security()) }
    }
}

impl Predicate {
    fn holds(&self, identity: &Identity, row: Row<'_>) -> bool {
        let sub = identity.sub.as_deref();
        match self {
            Self::Always => true,
            Self::FirstFolderIsSub => row.key.split_once('/').is_some_and(|(first, _)| Some(first) == sub),
            Self::Under(folder) => {
                let folder = folder.trim_end_matches('/');
                row.key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
            }
            Self::Extension(extension) => {
                let name = row.key.rsplit('/').next().unwrap_or_default();
                // What stands behind the last dot; of a name without a dot, all of it.
                name.rsplit('.').next() == Some(extension)
            }
            Self::Owner => sub.is_some() && row.owner == sub,
            Self::Role(role) => identity.role == *role,
            Self::Claim { path, value } => claim(identity, path) == Some(value),
            Self::FolderIsClaim { level, path } => {
                // The last component is the object's name, and in no folder.
                let folders = row.key.rsplit_once('/').map_or("", |(folders, _)| folders);
                let folder = folders.split('/').nth(level - 1);
                folder.is_some() && folder == claim(identity, path).and_then(Value::as_str)
            }
            Self::Raises { .. } => false,
            Self::And(all) => all.iter().all(|p| p.holds(identity, row)),
            Self::Or(any) => any.iter().any(|p| p.holds(identity, row)),
            Self::Not(inner) => !inner.holds(identity, row),
        }
    }

    fn raises(&self, identity: &Identity, row: Row<'_>) -> Option<&str> {
        match self {
            Self::Raises { sqlstate, of } => of.holds(identity, row).then_some(sqlstate),
            _ => None,
        }
    }

    fn casts(&self) -> bool {
        match self {
            Self::FirstFolderIsSub | Self::Owner => true,
            Self::And(inner) | Self::Or(inner) => inner.iter().any(Self::casts),
            Self::Not(inner) => inner.casts(),
            Self::Always
            | Self::Raises { .. }
            | Self::Under(_)
            | Self::Extension(_)
            | Self::Role(_)
            | Self::Claim { .. }
            | Self::FolderIsClaim { .. } => false,
        }
    }
}

fn claim<'a>(identity: &'a Identity, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = identity.claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

fn is_uuid(text: &str) -> bool {
    let hex = text.bytes().filter(|b| *b != b'-');
    text.len() == 36 && hex.clone().count() == 32 && hex.clone().all(|b| b.is_ascii_hexdigit())
}
