//! The daemon's end of the socket: a thread that accepts, and one a connection.

use super::message::{self, Reply, Request};
use super::socket::{self, Listener};
use super::{ControlError, ControlResult, ControlService};
use crate::base::{ErrorClass, Timestamp};
use crate::ingest::{SpoolKeys, SpooledEntries, Spools};
use crate::store::{BlockStore as _, LocalStore, StoreError, StoreKey};
use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may be silent between two requests, unless it is the writing one.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// How long a piece of a message may be on its way.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be accepted: what lacks then is memory or descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
#[derive(Debug)]
pub struct ControlServer {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    service: Arc<dyn ControlService>,
    spools: Spools,
    /// Of the store, in messages.
    label: String,
    listener: Listener,
    stopping: AtomicBool,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    last: u64,
    open: HashMap<u64, UnixStream>,
    /// The connection that writes.
    writing: Option<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("listener", &self.listener)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// Serves the processes of this user and of root on the archive's socket. The
/// caller holds the catalog's writer lock. `spools`: of an encrypted archive,
/// for the entries that other processes leave in temporary files.
///
/// Errors: `Socket` where no socket can be made; `Refused` (`Busy`) while another daemon answers.
pub fn serve(
    archive: &Path,
    service: Arc<dyn ControlService>,
    spools: Option<SpoolKeys>,
) -> ControlResult<ControlServer> {
    let store = LocalStore::open(archive)?;
    let label = store.label().to_owned();
    let spools = Spools::new(Arc::new(store), spools);
    let listener = Listener::bind(archive)?;
    let shared = Arc::new(Shared {
        service,
        spools,
        label,
        listener,
        stopping: AtomicBool::new(false),
        connections: Mutex::default(),
    });
    let accepting = {
        let shared = Arc::clone(&shared);
        thread::Builder::new().name("control".into()).spawn(move || shared.accept())
    };
    let accepting = accepting.map_err(|source| ControlError::Socket {
        operation: "start a thread for",
        socket: shared.listener.path().to_path_buf(),
        source,
    })?;
    Ok(ControlServer { shared, accepting: Some(accepting) })
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, and those that wait for a request.
        if let Err(error) = rustix::net::shutdown(&self.shared.listener.listener, rustix::net::Shutdown::Both) {
            tracing::warn!(%error, "the control socket is not closed cleanly");
        }
        for stream in self.shared.connections().open.values() {
            // Fails for one that the other side has closed.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            // A thread that panicked has told so already.
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn accept(self: Arc<Self>) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        while !self.is_stopping() {
            threads.retain(|thread| !thread.is_finished());
            let stream = match self.listener.listener.accept() {
                Ok((stream, _)) => stream,
                Err(_) if self.is_stopping() => break,
                Err(error) => {
                    tracing::warn!(%error, "a control connection was not accepted");
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            match Connection::open(&self, stream) {
                Ok(Some(connection)) => {
                    let thread = thread::Builder::new().name("control-client".into());
                    match thread.spawn(move || connection.serve()) {
                        Ok(thread) => threads.push(thread),
                        Err(error) => tracing::warn!(%error, "no thread for a control connection"),
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a control connection failed"),
            }
        }
        for thread in threads {
            // A thread that panicked has told so already.
            let _ = thread.join();
        }
    }
}

/// One client.
struct Connection {
    shared: Arc<Shared>,
    id: u64,
    stream: UnixStream,
}

impl Connection {
    /// `None` for one that is refused.
    fn open(shared: &Arc<Shared>, mut stream: UnixStream) -> io::Result<Option<Self>> {
        stream.set_write_timeout(Some(MAX_WAIT))?;
        let refusal = if !socket::is_allowed(&stream)? {
            Some(ControlError::refused(ErrorClass::Denied, "the archive is mounted by another user"))
        } else if shared.connections().open.len() >= MAX_CONNECTIONS {
            Some(ControlError::refused(ErrorClass::Busy, "too many commands ask the mount's daemon; try again later"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            message::send(&mut stream, &Reply::failed(&refusal))?;
            return Ok(None);
        }
        let to_stop = stream.try_clone()?;
        let mut connections = shared.connections();
        // Looked at under the lock under which the server's end closes what is open.
        if shared.is_stopping() {
            return Ok(None);
        }
        connections.last += 1;
        let id = connections.last;
        connections.open.insert(id, to_stop);
        Ok(Some(Self { shared: Arc::clone(shared), id, stream }))
    }

    fn serve(mut self) {
        loop {
            let reply = match self.receive() {
                Ok(Some(request)) => self.answer(request),
                Ok(None) => return,
                // What follows a message that is not understood is not understood either.
                Err(error) => {
                    tracing::warn!(error = error.text(), "a control connection is closed");
                    let _ = message::send(&mut self.stream, &Reply::failed(&error));
                    return;
                }
            };
            let reply = reply.unwrap_or_else(|error| Reply::failed(&error));
            if let Err(error) = message::send(&mut self.stream, &reply) {
                tracing::debug!(%error, "a control client is gone");
                return;
            }
        }
    }

    /// The next request; `None` when the client has closed, or the server ends.
    fn receive(&mut self) -> ControlResult<Option<Request>> {
        let silence = if self.is_writing() { None } else { Some(MAX_SILENCE) };
        let mut first = [0];
        let begun = self.stream.set_read_timeout(silence).and_then(|()| self.stream.read(&mut first));
        match begun {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Ok(None),
        }
        let broken = |error: io::Error| ControlError::Protocol { why: format!("a message is not whole ({error})") };
        self.stream.set_read_timeout(Some(MAX_WAIT)).map_err(broken)?;
        let bytes = message::receive_rest(&mut self.stream, first[0]).map_err(broken)?;
        message::parse(&bytes).map(Some)
    }

    fn is_writing(&self) -> bool {
        self.shared.connections().writing == Some(self.id)
    }

    /// Objects and names change only for the connection that has begun to write.
    fn check_writing(&self) -> ControlResult<()> {
        if self.is_writing() {
            return Ok(());
        }
        Err(ControlError::Protocol { why: "a change came before `begin`".into() })
    }

    fn answer(&mut self, request: Request) -> ControlResult<Reply> {
        let service = Arc::clone(&self.shared.service);
        match request {
            Request::Status {} => return Ok(Reply::Status { status: service.status()? }),
            Request::Sync { path } => self.sync(path)?,
            Request::Flush {} => service.flush()?,
            Request::Begin { purpose } => self.begin(purpose)?,
            Request::End {} => self.end(),
            Request::Sequence {} => return Ok(Reply::Number { number: service.sequence()? }),
            Request::AddObject { records } => {
                self.check_writing()?;
                service.add_object(&message::object_of(&records)?)?;
            }
            Request::CommitEntries { spool } => {
                self.check_writing()?;
                let key = StoreKey::new(spool).map_err(|error| StoreError::bad_key(&self.shared.label, error))?;
                let mut entries = SpooledEntries::open(&self.shared.spools, &key)?;
                return Ok(Reply::committed(service.commit_entries(&mut entries)?));
            }
            Request::RemoveObject { record } => {
                self.check_writing()?;
                service.remove_object(&record.object()?)?;
            }
            Request::RemoveHistory { seconds, nanoseconds } => {
                if nanoseconds >= 1_000_000_000 {
                    return Err(ControlError::Protocol { why: format!("{nanoseconds} nanoseconds are no time") });
                }
                let number = service.remove_history(Timestamp { seconds, nanoseconds })?;
                return Ok(Reply::Number { number });
            }
            Request::RemovePath { path, recursive } => {
                let number = service.remove_path(&path.path()?, recursive)?;
                return Ok(Reply::Number { number });
            }
        }
        Ok(Reply::Done {})
    }

    fn sync(&mut self, path: Option<message::Bytes>) -> ControlResult<()> {
        let path = path.map(message::Bytes::path).transpose()?;
        let Self { shared, stream, .. } = self;
        shared.service.sync(path.as_ref(), &mut |progress| {
            !shared.is_stopping() && message::send(stream, &Reply::Progress { progress }).is_ok()
        })
    }

    fn begin(&mut self, purpose: super::Purpose) -> ControlResult<()> {
        {
            let mut connections = self.shared.connections();
            if connections.writing.is_some() {
                let what = "another blockframe process is writing to this archive; wait until it is done";
                return Err(ControlError::refused(ErrorClass::Busy, what));
            }
            connections.writing = Some(self.id);
        }
        self.shared.service.begin(purpose).inspect_err(|_| self.shared.connections().writing = None)
    }

    fn end(&mut self) {
        if self.is_writing() {
            // In this order, so that the next one begins after this one has ended.
            self.shared.service.end();
            self.shared.connections().writing = None;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
        self.shared.connections().open.remove(&self.id);
    }
}
