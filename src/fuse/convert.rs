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

pub(super) fn nanos(time: TimeOrNow) -> i64 {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => nanos(after),
        Err(before) => -nanos(before.duration()),
    }
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
