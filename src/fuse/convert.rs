//! Attributes and errors in the kernel's form.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo};

use crate::fs::{Attributes, ErrorKind};

/// What stat suggests to readers as a buffer size.
const PREFERRED_IO: u32 = 128 * 1024;

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: attributes.mtime,
        mtime: attributes.mtime,
        ctime: attributes.ctime,
        crtime: attributes.ctime,
        kind: if attributes.is_directory { FileType::Directory } else { FileType::RegularFile },
        perm: attributes.mode,
        // 1, also for directories: tools that count subdirectories by links then do not.
        nlink: 1,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: PREFERRED_IO,
        flags: 0,
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
        ErrorKind::NotDirectory => Errno::ENOTDIR,
        ErrorKind::IsDirectory => Errno::EISDIR,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::NoAttribute => Errno::ENODATA,
        ErrorKind::NotSupported => Errno::EOPNOTSUPP,
        ErrorKind::BadHandle => Errno::EBADF,
        ErrorKind::Invalid => Errno::EINVAL,
    }
}

/// Attributes of the root never age.
pub(super) const FOREVER: Duration = Duration::from_hours(1);
