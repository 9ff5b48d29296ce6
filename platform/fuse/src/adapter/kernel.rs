//! What the kernel offers and remembers, as the filesystem is told of it.

use blockframe_api::{KernelCache, Node};
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The connection to the kernel: shared by the adapter and by who runs its
/// session.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    passthrough: AtomicBool,
    attached: AtomicBool,
    notifier: Mutex<Option<Notifier>>,
}

impl Connection {
    /// It was agreed that the kernel may serve files by itself.
    pub(super) fn set_passthrough(&self) {
        self.passthrough.store(true, Ordering::Release);
    }

    /// Whether the kernel may serve files by itself.
    pub(crate) fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Acquire)
    }

    /// The session stands: the kernel's memory can be reached.
    pub(crate) fn begin(&self, notifier: Notifier) {
        *self.notifier.lock().unwrap_or_else(PoisonError::into_inner) = Some(notifier);
        self.attached.store(true, Ordering::Release);
    }

    /// Lets go of the device: as long as somebody holds it, programs on the
    /// mount wait for answers. True when the filesystem was attached.
    pub(crate) fn end(&self) -> bool {
        self.notifier.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.attached.swap(false, Ordering::AcqRel)
    }

    fn tell(&self, what: &'static str, send: impl FnOnce(&Notifier) -> io::Result<()>) {
        // A call can block for long; the lock is not held meanwhile.
        let notifier = self.notifier.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The library takes ENOENT, nothing is remembered, for success.
        if let Some(Err(error)) = notifier.as_ref().map(send) {
            tracing::debug!(what, %error, "the kernel was not told of a change");
        }
    }
}

impl KernelCache for Connection {
    fn forget_node(&self, node: Node) {
        self.tell("node", |notifier| notifier.inval_inode(INodeNo(node.number()), 0, 0));
    }

    fn forget_name(&self, parent: Node, name: &[u8]) {
        self.tell("name", |notifier| notifier.inval_entry(INodeNo(parent.number()), OsStr::from_bytes(name)));
    }
}
