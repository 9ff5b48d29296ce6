//! The one table from error classes to `errno`.

use blockframe_api::{ErrorClass, VfsError};
use fuser::Errno;

/// The `errno` that a program sees for an error of this class.
pub fn errno_of(class: ErrorClass) -> i32 {
    to_errno(class).code()
}

pub(crate) fn to_errno(class: ErrorClass) -> Errno {
    match class {
        ErrorClass::NotFound => Errno::ENOENT,
        ErrorClass::Exists => Errno::EEXIST,
        ErrorClass::NotDirectory => Errno::ENOTDIR,
        ErrorClass::IsDirectory => Errno::EISDIR,
        ErrorClass::NotEmpty => Errno::ENOTEMPTY,
        ErrorClass::TooManyLinks => Errno::EMLINK,
        ErrorClass::TooLarge => Errno::EFBIG,
        ErrorClass::Denied => Errno::EACCES,
        ErrorClass::Invalid => Errno::EINVAL,
        ErrorClass::NameTooLong => Errno::ENAMETOOLONG,
        ErrorClass::NoAttribute => Errno::ENODATA,
        ErrorClass::NoSuchRange => Errno::ENXIO,
        ErrorClass::ReadOnly => Errno::EROFS,
        ErrorClass::NotSupported => Errno::EOPNOTSUPP,
        ErrorClass::Busy => Errno::EBUSY,
        ErrorClass::NoSpace => Errno::ENOSPC,
        ErrorClass::WrongKey => Errno::EACCES,
        ErrorClass::Interrupted => Errno::EINTR,
        // Programs know EIO as "these bytes cannot be had"; the log tells the rest.
        ErrorClass::Unavailable
        | ErrorClass::Damaged
        | ErrorClass::Unrecoverable
        | ErrorClass::Latched
        | ErrorClass::Internal => Errno::EIO,
    }
}

/// Translates an error. Who made it has logged what an operator must know.
pub(crate) fn translate(operation: &'static str, node: u64, error: &VfsError) -> Errno {
    tracing::debug!(operation, node, "{error}");
    to_errno(error.class())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts and programs depend on these numbers: a change here is a change of the interface.
    #[test]
    fn every_class_has_its_errno() {
        let table = [
            (ErrorClass::NotFound, 2),
            (ErrorClass::Exists, 17),
            (ErrorClass::NotDirectory, 20),
            (ErrorClass::IsDirectory, 21),
            (ErrorClass::NotEmpty, 39),
            (ErrorClass::TooManyLinks, 31),
            (ErrorClass::TooLarge, 27),
            (ErrorClass::Denied, 13),
            (ErrorClass::Invalid, 22),
            (ErrorClass::NameTooLong, 36),
            (ErrorClass::NoAttribute, 61),
            (ErrorClass::NoSuchRange, 6),
            (ErrorClass::ReadOnly, 30),
            (ErrorClass::NotSupported, 95),
            (ErrorClass::Busy, 16),
            (ErrorClass::NoSpace, 28),
            (ErrorClass::Unavailable, 5),
            (ErrorClass::Damaged, 5),
            (ErrorClass::Unrecoverable, 5),
            (ErrorClass::Latched, 5),
            (ErrorClass::WrongKey, 13),
            (ErrorClass::Interrupted, 4),
            (ErrorClass::Internal, 5),
        ];
        for (class, errno) in table {
            assert_eq!(errno_of(class), errno, "{class:?}");
        }
    }
}
