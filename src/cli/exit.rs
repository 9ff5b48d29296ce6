//! The one table from an error's class to an exit status, and the statuses of
//! what went well.

use crate::archive::Verdict;
use crate::base::ErrorClass;

pub use crate::base::class_name;

/// What the process ends with. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// Done, and healthy.
    Done,
    /// Failed, wholly or in part.
    Failed,
    /// Wrong usage.
    Usage,
    /// Damage was found, all of it healed or healable.
    DamageFound,
    /// Data is lost, and was listed.
    DataLost,
    /// The archive or a store is unavailable.
    Unavailable,
    /// The wrong key, or none.
    WrongKey,
    /// Interrupted; it can be resumed.
    Interrupted,
}

impl ExitStatus {
    /// All of them.
    pub const ALL: [ExitStatus; 8] = [
        ExitStatus::Done,
        ExitStatus::Failed,
        ExitStatus::Usage,
        ExitStatus::DamageFound,
        ExitStatus::DataLost,
        ExitStatus::Unavailable,
        ExitStatus::WrongKey,
        ExitStatus::Interrupted,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Done => 0,
            ExitStatus::Failed => 1,
            ExitStatus::Usage => 2,
            ExitStatus::DamageFound => 3,
            ExitStatus::DataLost => 4,
            ExitStatus::Unavailable => 5,
            ExitStatus::WrongKey => 6,
            ExitStatus::Interrupted => 130,
        }
    }

    /// The status of an error.
    pub fn of_error(class: ErrorClass) -> Self {
        match class {
            ErrorClass::NotFound
            | ErrorClass::Exists
            | ErrorClass::NotDirectory
            | ErrorClass::IsDirectory
            | ErrorClass::NotEmpty
            | ErrorClass::TooManyLinks
            | ErrorClass::TooLarge
            | ErrorClass::Denied
            | ErrorClass::NameTooLong
            | ErrorClass::NoAttribute
            | ErrorClass::NoSuchRange
            | ErrorClass::ReadOnly
            | ErrorClass::NotSupported
            | ErrorClass::Busy
            | ErrorClass::NoSpace
            | ErrorClass::Internal => ExitStatus::Failed,
            ErrorClass::Invalid => ExitStatus::Usage,
            ErrorClass::Damaged => ExitStatus::DamageFound,
            ErrorClass::Unrecoverable => ExitStatus::DataLost,
            ErrorClass::Unavailable | ErrorClass::Latched => ExitStatus::Unavailable,
            ErrorClass::WrongKey => ExitStatus::WrongKey,
            ErrorClass::Interrupted => ExitStatus::Interrupted,
        }
    }

    /// The status of a finished verification.
    pub fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy => ExitStatus::Done,
            Verdict::Degraded | Verdict::Recoverable => ExitStatus::DamageFound,
            Verdict::Unrecoverable => ExitStatus::DataLost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorClass::*;

    /// Scripts branch on these: a change here is a breaking change.
    #[test]
    fn the_exit_table_stays_as_it_is() {
        let classes = [
            NotFound,
            Exists,
            NotDirectory,
            IsDirectory,
            NotEmpty,
            TooManyLinks,
            TooLarge,
            Denied,
            Invalid,
            NameTooLong,
            NoAttribute,
            NoSuchRange,
            ReadOnly,
            NotSupported,
            Busy,
            NoSpace,
            Unavailable,
            Damaged,
            Unrecoverable,
            Latched,
            WrongKey,
            Interrupted,
            Internal,
        ];
        let table: Vec<String> =
            classes.map(|class| format!("{} {}", class_name(class), ExitStatus::of_error(class).code())).to_vec();
        let snapshot = "\
not_found 1
exists 1
not_directory 1
is_directory 1
not_empty 1
too_many_links 1
too_large 1
denied 1
invalid 2
name_too_long 1
no_attribute 1
no_such_range 1
read_only 1
not_supported 1
busy 1
no_space 1
unavailable 5
damaged 3
unrecoverable 4
latched 5
wrong_key 6
interrupted 130
internal 1";
        assert_eq!(table.join("\n"), snapshot);
    }

    #[test]
    fn verdicts_have_their_statuses() {
        let codes = [Verdict::Healthy, Verdict::Degraded, Verdict::Recoverable, Verdict::Unrecoverable]
            .map(|verdict| ExitStatus::of_verdict(verdict).code());
        assert_eq!(codes, [0, 3, 3, 4]);
    }
}
