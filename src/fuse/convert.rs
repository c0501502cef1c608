//! Attributes and errors in the kernel's form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};

use crate::fs::{Attributes, ErrorKind, FileKind};

/// What stat suggests to readers as a buffer size.
const PREFERRED_IO: u32 = 128 * 1024;

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: attributes.atime,
        mtime: attributes.mtime,
        ctime: attributes.ctime,
        crtime: attributes.ctime,
        kind: match attributes.kind {
            FileKind::Directory => FileType::Directory,
            FileKind::File => FileType::RegularFile,
            FileKind::Link => FileType::Symlink,
            FileKind::Pipe => FileType::NamedPipe,
            FileKind::Socket => FileType::Socket,
        },
        perm: attributes.mode,
        // 1, also for directories: tools that count subdirectories by links then do not.
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: PREFERRED_IO,
        flags: 0,
    }
}

/// Nanoseconds since the epoch of a time that somebody sets; `None` where they do not fit: before 1677, after 2262.
///
/// The kernel tells a time before the epoch as negative seconds and nanoseconds that count upwards, and fuser 0.18 takes
/// both off the epoch (`system_time_from_time`): -0.5 s, which is -1 s and 500,000,000 ns, arrives as -1.5 s. Seconds and
/// nanoseconds are whole in what arrives, so that the time can be put together again.
pub(super) fn nanos(time: TimeOrNow) -> Option<i64> {
    const SECOND: i128 = 1_000_000_000;
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    let (sign, span) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (1, after),
        Err(before) => (-1, before.duration()),
    };
    i64::try_from(sign * i128::from(span.as_secs()) * SECOND + i128::from(span.subsec_nanos())).ok()
}

/// The answer that lets the kernel remember that there is no such name: an entry with inode 0.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) fn errno(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::Access => Errno::EACCES,
        ErrorKind::Stale => Errno::ESTALE,
        ErrorKind::Io => Errno::EIO,
        ErrorKind::TimedOut => Errno::ETIMEDOUT,
        ErrorKind::NameTooLong => Errno::ENAMETOOLONG,
        ErrorKind::TooLong => Errno::E2BIG,
        ErrorKind::NotDirectory => Errno::ENOTDIR,
        ErrorKind::IsDirectory => Errno::EISDIR,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::NoAttribute => Errno::ENODATA,
        ErrorKind::NotSupported => Errno::EOPNOTSUPP,
        ErrorKind::BadHandle => Errno::EBADF,
        ErrorKind::Invalid => Errno::EINVAL,
        ErrorKind::Exists => Errno::EEXIST,
        ErrorKind::NotEmpty => Errno::ENOTEMPTY,
        ErrorKind::TooLarge => Errno::EFBIG,
        ErrorKind::NoSpace => Errno::ENOSPC,
        ErrorKind::Quota => Errno::EDQUOT,
        // Not EMFILE: the caller's own limit is another one.
        ErrorKind::NoDescriptor => Errno::ENFILE,
        ErrorKind::NotPermitted => Errno::EPERM,
        ErrorKind::UnsupportedType => Errno::from_i32(libc::EMEDIUMTYPE),
        ErrorKind::CrossDevice => Errno::EXDEV,
        ErrorKind::Busy => Errno::EBUSY,
    }
}

/// Attributes of the root never age.
pub(super) const FOREVER: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuser makes of the kernel's seconds and nanoseconds.
    fn arrives(secs: i64, nanos: u32) -> TimeOrNow {
        let span = Duration::new(secs.unsigned_abs(), nanos);
        TimeOrNow::SpecificTime(if secs >= 0 { UNIX_EPOCH + span } else { UNIX_EPOCH - span })
    }

    #[test]
    fn a_time_before_the_epoch_is_what_was_set() {
        for (secs, fraction, wanted) in [
            (-1, 500_000_000, -500_000_000),
            (-2, 500_000_000, -1_500_000_000),
            (-1, 999_999_999, -1),
            (-1, 0, -1_000_000_000),
            (-2, 1, -1_999_999_999),
            (0, 1, 1),
            (1, 500_000_000, 1_500_000_000),
        ] {
            assert_eq!(nanos(arrives(secs, fraction)), Some(wanted), "{secs} {fraction}");
        }
    }

    #[test]
    fn a_time_that_64_bits_of_nanoseconds_do_not_hold_is_told() {
        assert_eq!(nanos(arrives(9_223_372_036, 854_775_807)), Some(i64::MAX));
        assert_eq!(nanos(arrives(9_223_372_036, 854_775_808)), None);
        assert_eq!(nanos(arrives(-9_223_372_037, 145_224_192)), Some(i64::MIN));
        assert_eq!(nanos(arrives(-9_223_372_037, 145_224_191)), None);
    }
}
