//! One method a kernel operation: decode, call, answer.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use tokio::sync::oneshot;

use super::convert::{self, FOREVER};
use super::reply::{Dispatcher, errno};
use crate::fs::inode::ROOT;
use crate::fs::{Found, Fs};
use crate::name;

/// Numbers are never reused, so one generation serves.
const GENERATION: Generation = Generation(0);

/// The size of a file system that has none, for tools that look for room.
const CAPACITY_BLOCKS: u64 = 1 << 40;
const CAPACITY_FILES: u64 = 1 << 32;
const BLOCK_SIZE: u32 = 4096;

pub(super) struct Adapter {
    fs: Arc<Fs>,
    dispatcher: Dispatcher,
    max_background: u16,
    /// Told when the mount has ended.
    ended: Option<oneshot::Sender<()>>,
}

impl Adapter {
    pub(super) fn new(
        fs: Arc<Fs>,
        dispatcher: Dispatcher,
        max_background: u16,
        ended: oneshot::Sender<()>,
    ) -> Self {
        Self { fs, dispatcher, max_background, ended: Some(ended) }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_MAX_PAGES,
        ] {
            // An older kernel lacks some of these; everything works without them, if more slowly.
            let _unsupported = config.add_capabilities(wanted);
        }
        let _previous = config.set_max_background(self.max_background);
        let _previous = config.set_max_write(1 << 20);
        Ok(())
    }

    fn destroy(&mut self) {
        if let Some(ended) = self.ended.take() {
            // The receiver is gone when the daemon has given up waiting.
            let _unheard = ended.send(());
        }
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.dispatcher.run(async move {
            match fs.lookup(parent.0, name.as_bytes()).await {
                Ok(Found::Entry(attributes, valid)) => {
                    reply.entry(&valid, &convert::file_attr(&attributes), GENERATION);
                }
                Ok(Found::Absent(valid)) => reply.entry(&valid, &convert::absent(), GENERATION),
                Err(error) => reply.error(errno("lookup", &error)),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(async move {
            match fs.getattr(ino.0).await {
                Ok((attributes, valid)) => {
                    let valid = if ino.0 == ROOT { FOREVER } else { valid };
                    reply.attr(&valid, &convert::file_attr(&attributes));
                }
                Err(error) => reply.error(errno("getattr", &error)),
            }
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(async move {
            let for_writing = flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0;
            match fs.open(ino.0, for_writing).await {
                Ok(opened) => {
                    let flags = if opened.keep_cache {
                        FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
                    } else {
                        FopenFlags::FOPEN_NOFLUSH
                    };
                    reply.opened(FileHandle(opened.handle), flags);
                }
                Err(error) => reply.error(errno("open", &error)),
            }
        });
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(async move {
            match fs.read(fh.0, offset, size).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno("read", &error)),
            }
        });
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(ino.0, fh.0);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        // Nothing here is ever dirty.
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno("opendir", &error)),
        }
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(async move {
            let cursor = match fs.read_dir(fh.0, offset).await {
                Ok(cursor) => cursor,
                Err(error) => return reply.error(errno("readdir", &error)),
            };
            for item in cursor {
                let attr = convert::file_attr(&item.attributes);
                let is_full = reply.add(attr.ino, item.next_offset, attr.kind, OsStr::from_bytes(&item.name));
                // The kernel gets the number only.
                if item.is_held {
                    fs.forget(attr.ino.0, 1);
                }
                if is_full {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(async move {
            let cursor = match fs.read_dir(fh.0, offset).await {
                Ok(cursor) => cursor,
                Err(error) => return reply.error(errno("readdirplus", &error)),
            };
            for item in cursor {
                let attr = convert::file_attr(&item.attributes);
                let name = OsStr::from_bytes(&item.name);
                if reply.add(attr.ino, item.next_offset, name, &item.valid, &attr, GENERATION) {
                    if item.is_held {
                        fs.forget(attr.ino.0, 1);
                    }
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.fs.releasedir(ino.0, fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let name_max = u32::try_from(name::MAX_LEN).unwrap_or(255);
        let (blocks, files) = (CAPACITY_BLOCKS, CAPACITY_FILES);
        reply.statfs(blocks, blocks, blocks, files, files, BLOCK_SIZE, name_max, BLOCK_SIZE);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.dispatcher.run(async move {
            match fs.getxattr(ino.0, name.as_bytes()).await {
                Ok(value) => answer_xattr(reply, size, &value),
                Err(error) => reply.error(errno("getxattr", &error)),
            }
        });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(async move {
            match fs.listxattr(ino.0).await {
                Ok(names) => answer_xattr(reply, size, &names),
                Err(error) => reply.error(errno("listxattr", &error)),
            }
        });
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks the mode bits (default_permissions); the server decides the rest.
        reply.ok();
    }
}

/// A size of 0 asks how long the value is.
fn answer_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    let Ok(len) = u32::try_from(value.len()) else { return reply.error(Errno::E2BIG) };
    match size {
        0 => reply.size(len),
        _ if len <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}
