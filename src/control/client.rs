//! A command's end of the connection.

use super::message::{self, Bytes, Reply, Request};
use super::{ControlError, ControlResult, DaemonStatus, Purpose, SyncProgress, socket};
use crate::base::Timestamp;
use crate::catalog::{CommitSummary, NewObject, ObjectRecord};
use crate::format::EntryPath;
use crate::format::journal::Record;
use crate::store::StoreKey;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A connection to the daemon of an archive's mount.
#[derive(Debug)]
pub struct ControlClient {
    /// None after a failure: where the next reply begins is unknown then.
    stream: Option<UnixStream>,
    socket: PathBuf,
}

impl ControlClient {
    /// Connects to the daemon of an archive; `None` when there is none, or
    /// none that this user may speak to.
    pub fn connect(archive: &Path) -> Option<Self> {
        let socket = socket::path_of(archive);
        match socket::connect(archive) {
            Ok(stream) => Some(Self { stream: Some(stream), socket }),
            Err(error) => {
                let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind());
                if !nobody {
                    tracing::warn!(socket = %socket.display(), %error, "the daemon is not asked");
                }
                None
            }
        }
    }

    fn failed(&mut self, operation: &'static str, source: io::Error) -> ControlError {
        self.stream = None;
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ControlError::Ended
            }
            io::ErrorKind::InvalidData => ControlError::Protocol { why: source.to_string() },
            _ => ControlError::Socket { operation, socket: self.socket.clone(), source },
        }
    }

    fn receive(&mut self) -> ControlResult<Reply> {
        let Some(stream) = &mut self.stream else { return Err(ControlError::Ended) };
        let mut first = [0];
        let received = stream.read_exact(&mut first).and_then(|()| message::receive_rest(stream, first[0]));
        let bytes = received.map_err(|error| self.failed("read from", error))?;
        message::parse(&bytes).inspect_err(|_| self.stream = None)
    }

    /// Asks, and hands the progress that comes before the reply to `progress`.
    fn ask(&mut self, request: &Request, progress: &mut dyn FnMut(SyncProgress)) -> ControlResult<Reply> {
        let Some(stream) = &mut self.stream else { return Err(ControlError::Ended) };
        // A daemon that refused the connection has said why, so the reply is read all the same.
        if let Err(error) = message::send(stream, request)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(self.failed("write to", error));
        }
        loop {
            match self.receive()?.checked()? {
                Reply::Progress { progress: now } => progress(now),
                reply => return Ok(reply),
            }
        }
    }

    fn unexpected<T>(&mut self, reply: &Reply) -> ControlResult<T> {
        self.stream = None;
        Err(ControlError::Protocol { why: format!("the reply {reply:?} belongs to another request") })
    }

    fn ask_done(&mut self, request: &Request) -> ControlResult<()> {
        match self.ask(request, &mut |_| {})? {
            Reply::Done {} => Ok(()),
            other => self.unexpected(&other),
        }
    }

    fn ask_number(&mut self, request: &Request) -> ControlResult<u64> {
        match self.ask(request, &mut |_| {})? {
            Reply::Number { number } => Ok(number),
            other => self.unexpected(&other),
        }
    }

    /// What the daemon is doing.
    pub fn status(&mut self) -> ControlResult<DaemonStatus> {
        match self.ask(&Request::Status {}, &mut |_| {})? {
            Reply::Status { status } => Ok(status),
            other => self.unexpected(&other),
        }
    }

    /// Returns when all that is staged now (at or below `path`) is committed.
    pub fn sync(&mut self, path: Option<&EntryPath>, progress: &mut dyn FnMut(SyncProgress)) -> ControlResult<()> {
        match self.ask(&Request::Sync { path: path.map(Bytes::of_path) }, progress)? {
            Reply::Done {} => Ok(()),
            other => self.unexpected(&other),
        }
    }

    /// Returns when every earlier change is durable, and visible in the catalog's database.
    pub fn flush(&mut self) -> ControlResult<()> {
        self.ask_done(&Request::Flush {})
    }

    /// Becomes the one process that writes through the daemon, until [`end`](Self::end) or
    /// the connection's end. Error: `Busy` while another one is.
    pub fn begin(&mut self, purpose: Purpose) -> ControlResult<()> {
        self.ask_done(&Request::Begin { purpose })
    }

    /// Ends what [`begin`](Self::begin) began.
    pub fn end(&mut self) -> ControlResult<()> {
        self.ask_done(&Request::End {})
    }

    /// The sequence number that a manifest or bundle written now carries.
    pub fn sequence(&mut self) -> ControlResult<u64> {
        self.ask_number(&Request::Sequence {})
    }

    /// Records an object that is durable on the store.
    pub fn add_object(&mut self, object: &NewObject) -> ControlResult<()> {
        self.ask_done(&Request::AddObject { records: message::records_of(object) })
    }

    /// Puts entries into the namespace that lie in a file below the directory of temporary files.
    pub fn commit_entries(&mut self, spool: &StoreKey) -> ControlResult<CommitSummary> {
        match self.ask(&Request::CommitEntries { spool: spool.to_string() }, &mut |_| {})? {
            Reply::Committed { created, changed, unchanged } => Ok(CommitSummary { created, changed, unchanged }),
            other => self.unexpected(&other),
        }
    }

    /// Forgets an object that no name needs.
    pub fn remove_object(&mut self, object: &ObjectRecord) -> ControlResult<()> {
        self.ask_done(&Request::RemoveObject { record: Bytes::of_record(&Record::Object(object.into())) })
    }

    /// Forgets the states of names and nodes that ended before a time; returns how many.
    pub fn remove_history(&mut self, before: Timestamp) -> ControlResult<u64> {
        self.ask_number(&Request::remove_history(before))
    }

    /// Removes a name, with `recursive` all below it; returns how many names.
    pub fn remove_path(&mut self, path: &EntryPath, recursive: bool) -> ControlResult<u64> {
        self.ask_number(&Request::RemovePath { path: Bytes::of_path(path), recursive })
    }
}
