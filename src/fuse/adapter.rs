//! One method a kernel operation: decode, call, answer.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use tokio::sync::oneshot;

use super::convert::{self, FOREVER};
use super::reply::{Dispatcher, Now, errno};
use super::waiting::Answer;
use crate::attrs::Attrs;
use crate::fs::inode::ROOT;
use crate::fs::{Attributes, Changes, Creation, Found, Fs, FsError, Invalidation, Opened};
use crate::meta::NodeKind;
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
        // Not FUSE_ATOMIC_O_TRUNC: with it, the kernel lets a program that runs be emptied, where others get ETXTBSY.
        for wanted in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_BIG_WRITES,
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

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            match fs.lookup(parent.0, name.as_bytes()).await {
                Ok(Found::Entry(attributes, valid)) => match reply.take() {
                    Some(reply) => reply.entry(&valid, &convert::file_attr(&attributes), GENERATION),
                    None => fs.forget(attributes.ino, 1),
                },
                Ok(Found::Absent(valid)) => {
                    reply.send(|reply| reply.entry(&valid, &convert::absent(), GENERATION));
                }
                Err(error) => reply.error(errno("lookup", &error)),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            match fs.getattr(ino.0).await {
                Ok((attributes, valid)) => {
                    let valid = if ino.0 == ROOT { FOREVER } else { valid };
                    reply.send(|reply| reply.attr(&valid, &convert::file_attr(&attributes)));
                }
                Err(error) => reply.error(errno("getattr", &error)),
            }
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, thread) = (Arc::clone(&self.fs), req.pid());
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let truncates = flags.0 & libc::O_TRUNC != 0;
            let for_writing = flags.acc_mode() != OpenAccMode::O_RDONLY || truncates;
            match fs.open_and_cut(ino.0, for_writing, truncates).await {
                Ok(opened) => {
                    fs.opened_by(opened.handle, thread);
                    match reply.take() {
                        Some(reply) => reply.opened(FileHandle(opened.handle), open_flags(opened)),
                        None => fs.release(ino.0, opened.handle),
                    }
                }
                Err(error) => reply.error(errno("open", &error)),
            }
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (fs, name, creation) = (Arc::clone(&self.fs), name.to_owned(), creation(req, mode));
        let thread = req.pid();
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let (exclusive, truncates) = (flags & libc::O_EXCL != 0, flags & libc::O_TRUNC != 0);
            match fs.create(parent.0, name.as_bytes(), creation, exclusive, truncates).await {
                Ok((attributes, opened)) => {
                    fs.opened_by(opened.handle, thread);
                    let Some(reply) = reply.take() else {
                        fs.release(attributes.ino, opened.handle);
                        fs.forget(attributes.ino, 1);
                        return fs.changed_unheard(parent.0, name.as_bytes());
                    };
                    let attr = convert::file_attr(&attributes);
                    let handle = FileHandle(opened.handle);
                    reply.created(&fs.validity(), &attr, GENERATION, handle, open_flags(opened));
                }
                Err(error) => reply.error(errno("create", &error)),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Pages of a mapping have their place, whatever the descriptor was opened for.
        let appends = flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        // The data is the request's own buffer: only what has to wait for an upload takes a copy along.
        let by = (fh.0, req.pid());
        match self.dispatcher.now(self.fs.write(by, offset, data, appends)) {
            Now::Ready(Ok(written)) => reply.written(written),
            Now::Ready(Err(error)) => reply.error(errno("write", &error)),
            Now::Panicked => {}
            Now::Pending => {
                let (fs, data) = (Arc::clone(&self.fs), data.to_vec());
                self.dispatcher.run_for_caller(req.pid(), reply, |reply| async move {
                    match fs.write(by, offset, &data, appends).await {
                        Ok(written) => reply.send(|reply| reply.written(written)),
                        Err(error) => reply.error(errno("write", &error)),
                    }
                });
            }
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let fs = Arc::clone(&self.fs);
        let (set_atime, set_mtime) = (atime.map(convert::nanos), mtime.map(convert::nanos));
        if set_atime == Some(None) || set_mtime == Some(None) {
            // To keep another time than the one that was asked for would go unnoticed.
            return reply.error(Errno::EINVAL);
        }
        let changes = Changes {
            size,
            atime: set_atime.flatten(),
            attrs: Attrs {
                mtime: set_mtime.flatten(),
                mode: mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()),
                uid,
                gid,
            },
        };
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            match fs.setattr(ino.0, changes).await {
                Ok((attributes, valid)) => match reply.take() {
                    Some(reply) => reply.attr(&valid, &convert::file_attr(&attributes)),
                    None => fs.invalidate(Invalidation::Contents { ino: ino.0 }),
                },
                Err(error) => reply.error(errno("setattr", &error)),
            }
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let node = match mode & libc::S_IFMT {
            libc::S_IFREG => None,
            libc::S_IFIFO => Some(NodeKind::Pipe),
            libc::S_IFSOCK => Some(NodeKind::Socket),
            // The kernel opens no device on a mount like this one.
            _ => return reply.error(Errno::EPERM),
        };
        let (fs, name, creation) = (Arc::clone(&self.fs), name.to_owned(), creation(req, mode));
        self.dispatcher.run(req.pid(), reply, move |reply| async move {
            let result = match node {
                None => fs.mknod(parent.0, name.as_bytes(), creation).await,
                Some(kind) => fs.make_node(parent.0, name.as_bytes(), kind, creation).await,
            };
            answer_entry(&fs, reply, "mknod", (parent.0, &name), result);
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (fs, name, creation) = (Arc::clone(&self.fs), name.to_owned(), creation(req, mode));
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let result = fs.mkdir(parent.0, name.as_bytes(), creation).await;
            answer_entry(&fs, reply, "mkdir", (parent.0, &name), result);
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (fs, name, creation) = (Arc::clone(&self.fs), name.to_owned(), creation(req, 0o777));
        let target = target.as_os_str().to_owned();
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let made = fs.symlink(parent.0, name.as_bytes(), target.as_bytes(), creation).await;
            answer_entry(&fs, reply, "symlink", (parent.0, &name), made);
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            match fs.readlink(ino.0).await {
                Ok(target) => reply.send(|reply| reply.data(&target)),
                Err(error) => reply.error(errno("readlink", &error)),
            }
        });
    }

    fn link(&self, req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.dispatcher.run(req.pid(), reply, move |reply| async move {
            let result = fs.link(ino.0, parent.0, name.as_bytes()).await;
            answer_entry(&fs, reply, "link", (parent.0, &name), result);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let removed = fs.unlink(parent.0, name.as_bytes()).await;
            answer_names(&fs, reply, "unlink", &[(parent.0, &name)], removed);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let removed = fs.rmdir(parent.0, name.as_bytes()).await;
            answer_names(&fs, reply, "rmdir", &[(parent.0, &name)], removed);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (fs, name, newname) = (Arc::clone(&self.fs), name.to_owned(), newname.to_owned());
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
            let renamed = fs.rename(from, to, no_replace).await;
            let names = [(parent.0, name.as_os_str()), (newparent.0, newname.as_os_str())];
            answer_names(&fs, reply, "rename", &names, renamed);
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run_for_caller(req.pid(), reply, |reply| async move {
            answer(reply, "fallocate", fs.allocate(fh.0, offset, length, mode).await);
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run_for_caller(req.pid(), reply, |reply| async move {
            match fs.clone_range((fh_in.0, offset_in), (fh_out.0, offset_out), len).await {
                Ok(copied) => {
                    reply.send(|reply| reply.written(u32::try_from(copied).unwrap_or(u32::MAX)));
                }
                Err(error) => reply.error(errno("copy_file_range", &error)),
            }
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (fs, name, value) = (Arc::clone(&self.fs), name.to_owned(), value.to_vec());
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            answer(reply, "setxattr", fs.setxattr(ino.0, name.as_bytes(), Some(&value), flags).await);
        });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            answer(reply, "removexattr", fs.setxattr(ino.0, name.as_bytes(), None, 0).await);
        });
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = Arc::clone(&self.fs);
        let read = |reply: Answer<ReplyData>| async move {
            match fs.read(fh.0, offset, size).await {
                Ok(bytes) => reply.send(|reply| reply.data(&bytes)),
                Err(error) => reply.error(errno("read", &error)),
            }
        };
        // What is read past the page cache may be waited for by a thread other than the one that asked.
        if flags.0 & libc::O_DIRECT == 0 {
            self.dispatcher.run_for_pages(req.pid(), reply, read);
        } else {
            self.dispatcher.run(req.pid(), reply, read);
        }
    }

    fn flush(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _lock: LockOwner, reply: ReplyEmpty) {
        let (fs, thread) = (Arc::clone(&self.fs), req.pid());
        self.dispatcher.run(thread, reply, |reply| async move {
            answer(reply, "close", fs.flush(fh.0, thread).await);
        });
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
        let _context = self.dispatcher.enter();
        self.fs.release(ino.0, fh.0);
        reply.ok();
    }

    fn fsync(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            answer(reply, "fsync", fs.fsync(fh.0).await);
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno("opendir", &error)),
        }
    }

    fn readdir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let cursor = match fs.read_dir(fh.0, offset).await {
                Ok(cursor) => cursor,
                Err(error) => return reply.error(errno("readdir", &error)),
            };
            let Some(mut reply) = reply.take() else { return };
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
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let fs = Arc::clone(&self.fs);
        self.dispatcher.run(req.pid(), reply, |reply| async move {
            let cursor = match fs.read_dir(fh.0, offset).await {
                Ok(cursor) => cursor,
                Err(error) => return reply.error(errno("readdirplus", &error)),
            };
            let Some(mut reply) = reply.take() else { return };
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

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (fs, name, thread) = (Arc::clone(&self.fs), name.to_owned(), req.pid());
        self.dispatcher.run(thread, reply, move |reply| async move {
            match fs.getxattr(ino.0, name.as_bytes(), thread).await {
                Ok(value) => reply.send(|reply| answer_xattr(reply, size, &value)),
                Err(error) => reply.error(errno("getxattr", &error)),
            }
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let (fs, thread) = (Arc::clone(&self.fs), req.pid());
        self.dispatcher.run(thread, reply, move |reply| async move {
            match fs.listxattr(ino.0, thread).await {
                Ok(names) => reply.send(|reply| answer_xattr(reply, size, &names)),
                Err(error) => reply.error(errno("listxattr", &error)),
            }
        });
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks the mode bits (default_permissions); the server decides the rest.
        reply.ok();
    }
}

fn answer(reply: Answer<ReplyEmpty>, operation: &'static str, result: Result<(), FsError>) {
    match result {
        Ok(()) => reply.send(ReplyEmpty::ok),
        Err(error) => reply.error(errno(operation, &error)),
    }
}

/// A name: of something in this directory.
type Name<'a> = (u64, &'a OsStr);

/// Answers a change of names. Where the caller was killed meanwhile, the kernel learns of it nevertheless.
fn answer_names(
    fs: &Fs,
    reply: Answer<ReplyEmpty>,
    operation: &'static str,
    names: &[Name<'_>],
    result: Result<(), FsError>,
) {
    let result = result.map_err(|error| (errno(operation, &error), error));
    match (reply.take(), result) {
        (Some(reply), Ok(())) => reply.ok(),
        (Some(reply), Err((errno, _))) => reply.error(errno),
        (None, Ok(())) => names.iter().for_each(|(ino, name)| fs.changed_unheard(*ino, name.as_bytes())),
        (None, Err((_, error))) => {
            for (ino, name) in names {
                fs.failed_unheard(*ino, name.as_bytes(), &error);
            }
        }
    }
}

fn answer_entry(
    fs: &Fs,
    reply: Answer<ReplyEntry>,
    operation: &'static str,
    (parent, name): Name<'_>,
    made: Result<Attributes, FsError>,
) {
    let made = made.map_err(|error| (errno(operation, &error), error));
    match (reply.take(), made) {
        (Some(reply), Ok(attributes)) => {
            reply.entry(&fs.validity(), &convert::file_attr(&attributes), GENERATION);
        }
        (Some(reply), Err((errno, _))) => reply.error(errno),
        (None, Ok(attributes)) => {
            fs.forget(attributes.ino, 1);
            fs.changed_unheard(parent, name.as_bytes());
        }
        (None, Err((_, error))) => fs.failed_unheard(parent, name.as_bytes(), &error),
    }
}

fn open_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    // Only what can be written has to be told of a close.
    flags.set(FopenFlags::FOPEN_NOFLUSH, !opened.is_writable);
    flags
}

/// The kernel has taken the umask off.
fn creation(request: &Request, mode: u32) -> Creation {
    Creation { mode: u16::try_from(mode & 0o7777).unwrap_or(0), uid: request.uid(), gid: request.gid() }
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
