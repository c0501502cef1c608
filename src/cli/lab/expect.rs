//! The file of `supafs test`: identities, and what is expected of each, in TOML. Everything wrong in it is told with
//! its line and column.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::Map;
use toml::Spanned;

use super::who::{Kind, Who};
use crate::cli::setting::nearest;
use crate::lab::Operation;

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectations {
    pub identities: Vec<Who>,
    pub probe_delete: bool,
    pub cases: Vec<Case>,
}

/// One thing that is either so or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Index among the identities.
    pub who: usize,
    /// `BUCKET/PATH`
    pub path: String,
    pub expected: Expected,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    May(Operation),
    MayNot(Operation),
    /// So many objects.
    SeesCount(u64),
    /// These: objects, and folders with something in them, which end in `/`.
    SeesNames(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    probe_delete: bool,
    identities: BTreeMap<Spanned<String>, Spanned<RawIdentity>>,
    #[serde(default)]
    expect: Vec<Spanned<RawExpect>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdentity {
    as_user: Option<String>,
    #[serde(default)]
    anon: bool,
    #[serde(default)]
    keys: bool,
    role: Option<String>,
    email: Option<String>,
    claims: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    r#as: Spanned<toml::Value>,
    path: Spanned<String>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
    sees: Option<Spanned<toml::Value>>,
}

/// What is wrong, and where it stands.
struct Wrong(Range<usize>, String);

/// Reads a file's text; `name` is for messages.
///
/// # Errors
/// `NAME:LINE:COLUMN: ` and what is wrong.
pub fn parse(name: &str, text: &str) -> Result<Expectations, String> {
    let file = toml::from_str::<RawFile>(text)
        .map_err(|error| Wrong(error.span().unwrap_or(0..0), error.message().trim().to_owned()));
    file.and_then(|file| expectations(&file)).map_err(|Wrong(span, what)| {
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{name}:{line}:{column}: {what}")
    })
}

fn expectations(file: &RawFile) -> Result<Expectations, Wrong> {
    let identities = file
        .identities
        .iter()
        .map(|(name, raw)| {
            let kind = identity(raw.get_ref()).map_err(|why| Wrong(raw.span(), why))?;
            Ok(Who { name: name.get_ref().clone(), kind })
        })
        .collect::<Result<Vec<_>, Wrong>>()?;
    let mut cases = Vec::new();
    for raw in &file.expect {
        expect(raw, &identities, &mut cases)?;
    }
    Ok(Expectations { identities, probe_delete: file.probe_delete, cases })
}

fn identity(raw: &RawIdentity) -> Result<Kind, String> {
    let RawIdentity { as_user, anon, keys, role, email, claims } = raw;
    // With as_user, an address is what the token says; alone, it is who signs in.
    let signs_in = email.as_ref().filter(|_| as_user.is_none() && !anon && !keys);
    if [as_user.is_some(), *anon, *keys, signs_in.is_some()].into_iter().filter(|is| *is).count() != 1 {
        return Err(
            "an identity is one of as_user = \"UUID\", email = \"…\", anon = true, keys = true".to_owned()
        );
    }
    if let Some(email) = signs_in {
        return match (role, claims) {
            (None, None) => Ok(Kind::SignsIn(email.clone())),
            _ => Err("who signs in has a role and claims already; they go with as_user".to_owned()),
        };
    }
    if *keys {
        return match (role, email, claims) {
            (None, None, None) => Ok(Kind::Keys),
            _ => Err("access keys have no role, email or claims".to_owned()),
        };
    }
    let mut all = match claims {
        Some(claims) => serde_json::to_value(claims).map_err(|error| error.to_string())?,
        None => Map::new().into(),
    };
    if let (Some(email), Some(all)) = (email, all.as_object_mut()) {
        all.insert("email".to_owned(), email.clone().into());
    }
    let claims = all.as_object().cloned().unwrap_or_default();
    let kind = Kind::Minted { sub: as_user.clone(), role: role.clone(), claims };
    kind.check()?;
    Ok(kind)
}

fn expect(raw: &Spanned<RawExpect>, identities: &[Who], cases: &mut Vec<Case>) -> Result<(), Wrong> {
    let RawExpect { r#as, path, allow, deny, sees } = raw.get_ref();
    if path.get_ref().split('/').next().is_none_or(str::is_empty) {
        return Err(Wrong(path.span(), "a path is BUCKET, BUCKET/FOLDER/ or BUCKET/KEY".to_owned()));
    }
    let may = operations(allow)?;
    let may_not = operations(deny)?;
    if let Some((both, _)) =
        may.iter().find(|(operation, _)| may_not.iter().any(|(other, _)| other == operation))
    {
        return Err(Wrong(raw.span(), format!("{} is allowed and denied at once", both.name())));
    }
    let sees = sees.as_ref().map(seen).transpose()?;
    if may.is_empty() && may_not.is_empty() && sees.is_none() {
        return Err(Wrong(raw.span(), "it expects nothing; give allow, deny or sees".to_owned()));
    }
    for who in whom(r#as, identities)? {
        let may = may.iter().map(|(operation, _)| Expected::May(*operation));
        let may_not = may_not.iter().map(|(operation, _)| Expected::MayNot(*operation));
        for expected in may.chain(may_not).chain(sees.clone()) {
            cases.push(Case { who, path: path.get_ref().clone(), expected });
        }
    }
    Ok(())
}

fn whom(given: &Spanned<toml::Value>, identities: &[Who]) -> Result<Vec<usize>, Wrong> {
    let names: Option<Vec<&str>> = match given.get_ref() {
        toml::Value::String(name) => Some(vec![name.as_str()]),
        toml::Value::Array(names) => names.iter().map(toml::Value::as_str).collect(),
        _ => None,
    };
    let names = names.filter(|names| !names.is_empty()).ok_or_else(|| {
        Wrong(given.span(), "`as` is the name of an identity, or a list of names".to_owned())
    })?;
    names
        .into_iter()
        .map(|name| {
            identities.iter().position(|who| who.name == name).ok_or_else(|| {
                let known = identities.iter().map(|who| who.name.as_str());
                let hint = hint(name, known);
                Wrong(given.span(), format!("there is no identity {name:?} in [identities]{hint}"))
            })
        })
        .collect()
}

fn operations(names: &[Spanned<String>]) -> Result<Vec<(Operation, Range<usize>)>, Wrong> {
    names
        .iter()
        .map(|name| {
            let operation = Operation::by_name(name.get_ref()).ok_or_else(|| {
                let known = Operation::ALL.map(Operation::name);
                let hint = hint(name.get_ref(), known);
                Wrong(name.span(), format!("{:?} is none of {}{hint}", name.get_ref(), known.join(", ")))
            })?;
            Ok((operation, name.span()))
        })
        .collect()
}

fn seen(given: &Spanned<toml::Value>) -> Result<Expected, Wrong> {
    let wrong = || Wrong(given.span(), "`sees` is a number of objects, or a list of their names".to_owned());
    match given.get_ref() {
        toml::Value::Integer(count) => u64::try_from(*count).map(Expected::SeesCount).map_err(|_| wrong()),
        toml::Value::Array(names) => {
            let names = names.iter().map(|name| name.as_str().map(ToOwned::to_owned));
            names.collect::<Option<Vec<_>>>().map(Expected::SeesNames).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
