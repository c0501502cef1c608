//! The list of `-o`, as /etc/fstab and mount(8) write it.

use std::path::PathBuf;

use super::error::CliError;
use super::setting::{SPELLINGS, Setting, nearest};
use super::settings::{Files, Layer, Source};
use super::units;

/// Options for mount(8), systemd or the boot, which mean nothing to a mount that is under way.
const FOR_OTHERS: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "nosuid",
    "nodev",
    "default_permissions",
    "exec",
    "async",
    "atime",
    "diratime",
    "relatime",
    "norelatime",
    "strictatime",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "silent",
    "loud",
    "iversion",
    "noiversion",
];
/// Options that the kernel gets as they are.
const FOR_KERNEL: &[&str] = &["noatime", "nodiratime", "noexec", "sync", "dirsync"];
/// Refused, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("suid", "a mount of supafs is always nosuid"),
    ("dev", "a mount of supafs is always nodev"),
    ("allow_root", "use allow_other with file_mode and dir_mode"),
    ("fsname", "supafs names the mount after the bucket"),
    ("subtype", "the type is always fuse.supafs"),
    ("remount", "unmount and mount again"),
    ("bind", "use `mount --bind` on the mount point"),
    ("auto_unmount", "`supafs mount` and `supafs unmount` clear a dead mount point themselves"),
];

/// What a list of options means.
#[derive(Debug)]
pub struct OptionList {
    pub layer: Layer,
    pub files: Files,
    pub kernel: Vec<String>,
    pub nonempty: bool,
    pub all: bool,
    pub buckets: Vec<String>,
}

/// Reads the lists in the order given; a later option beats an earlier one.
///
/// # Errors
/// An option that supafs does not know, with the nearest one that it knows.
pub fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<OptionList, CliError> {
    let mut result = OptionList {
        layer: Layer::new(Source::OptionList),
        files: Files::default(),
        kernel: Vec::new(),
        nonempty: false,
        all: false,
        buckets: Vec::new(),
    };
    for option in lists.into_iter().flat_map(|list| list.split(',')).map(str::trim) {
        match option.split_once('=') {
            _ if option.is_empty() => {}
            Some((name, value)) => result.valued(name, value)?,
            None => result.bare(option)?,
        }
    }
    Ok(result)
}

impl OptionList {
    fn bare(&mut self, name: &str) -> Result<(), CliError> {
        match name {
            "ro" | "read_only" | "read-only" => self.layer.set(Setting::ReadOnly, Some("true")),
            "rw" => self.layer.set(Setting::ReadOnly, Some("false")),
            "allow_other" | "allow-other" => self.layer.set(Setting::AllowOther, Some("true")),
            "nonempty" => self.nonempty = true,
            "all" => self.all = true,
            _ if FOR_OTHERS.contains(&name) || is_comment(name) => {}
            _ if FOR_KERNEL.contains(&name) => self.kernel.push(name.to_owned()),
            _ => return Err(refuse(name)),
        }
        Ok(())
    }

    fn valued(&mut self, name: &str, value: &str) -> Result<(), CliError> {
        let value_text = || Some(value.to_owned());
        match name.replace('-', "_").as_str() {
            "profile" => self.files.profile = value_text(),
            "config" => self.files.config = Some(PathBuf::from(value)),
            "env_file" => self.files.env_file = Some(PathBuf::from(value)),
            "bucket" => self.buckets.push(value.to_owned()),
            "umask" => {
                self.mask(Setting::FileMode, name, value, 0o666)?;
                self.mask(Setting::DirMode, name, value, 0o777)?;
            }
            // As in other file systems, a file mask is taken from 0777.
            "fmask" => self.mask(Setting::FileMode, name, value, 0o777)?,
            "dmask" => self.mask(Setting::DirMode, name, value, 0o777)?,
            "user" | "comment" => {}
            _ if is_comment(name) => {}
            key => match Setting::by_key(key) {
                Some(spelling) if spelling.flag => self.layer.set(spelling.setting, value_text()),
                Some(spelling) => {
                    return Err(CliError::usage(format!(
                        "-o {key}: not an option, because others could see it; put it into a profile, an env \
                         file, or {}",
                        spelling.variable
                    )));
                }
                None => return Err(refuse(name)),
            },
        }
        Ok(())
    }

    fn mask(&mut self, setting: Setting, name: &str, value: &str, all: u16) -> Result<(), CliError> {
        let mask =
            units::mode(value).map_err(|why| CliError::usage(format!("-o {name}: {value:?} {why}")))?;
        self.layer.set(setting, Some(format!("{:o}", all & !mask)));
        Ok(())
    }
}

fn is_comment(name: &str) -> bool {
    name.starts_with("x-") || name.starts_with("X-")
}

fn refuse(name: &str) -> CliError {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return CliError::usage(format!("-o {name} is not possible: {why}"));
    }
    let own =
        ["ro", "rw", "nonempty", "all", "bucket", "profile", "config", "env_file", "umask", "fmask", "dmask"];
    let settings = SPELLINGS.iter().filter(|spelling| spelling.flag).map(|spelling| spelling.key);
    let known = settings.chain(own).chain(FOR_KERNEL.iter().copied()).chain(FOR_OTHERS.iter().copied());
    let hint = nearest(name, known).map_or_else(
        || "see `supafs mount --help`; every long option can be written with underscores".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    CliError::usage(format!("-o {name}: unknown option; {hint}"))
}

#[cfg(test)]
mod tests;
