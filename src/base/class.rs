//! The names of the error classes, in JSON and between processes.

use super::ErrorClass;

/// The class as JSON output, and other processes, name it.
pub fn class_name(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::NotFound => "not_found",
        ErrorClass::Exists => "exists",
        ErrorClass::NotDirectory => "not_directory",
        ErrorClass::IsDirectory => "is_directory",
        ErrorClass::NotEmpty => "not_empty",
        ErrorClass::TooManyLinks => "too_many_links",
        ErrorClass::TooLarge => "too_large",
        ErrorClass::Denied => "denied",
        ErrorClass::Invalid => "invalid",
        ErrorClass::NameTooLong => "name_too_long",
        ErrorClass::NoAttribute => "no_attribute",
        ErrorClass::NoSuchRange => "no_such_range",
        ErrorClass::ReadOnly => "read_only",
        ErrorClass::NotSupported => "not_supported",
        ErrorClass::Busy => "busy",
        ErrorClass::NoSpace => "no_space",
        ErrorClass::Unavailable => "unavailable",
        ErrorClass::Damaged => "damaged",
        ErrorClass::Unrecoverable => "unrecoverable",
        ErrorClass::Latched => "latched",
        ErrorClass::WrongKey => "wrong_key",
        ErrorClass::Interrupted => "interrupted",
        ErrorClass::Internal => "internal",
    }
}

/// All classes.
const CLASSES: [ErrorClass; 23] = [
    ErrorClass::NotFound,
    ErrorClass::Exists,
    ErrorClass::NotDirectory,
    ErrorClass::IsDirectory,
    ErrorClass::NotEmpty,
    ErrorClass::TooManyLinks,
    ErrorClass::TooLarge,
    ErrorClass::Denied,
    ErrorClass::Invalid,
    ErrorClass::NameTooLong,
    ErrorClass::NoAttribute,
    ErrorClass::NoSuchRange,
    ErrorClass::ReadOnly,
    ErrorClass::NotSupported,
    ErrorClass::Busy,
    ErrorClass::NoSpace,
    ErrorClass::Unavailable,
    ErrorClass::Damaged,
    ErrorClass::Unrecoverable,
    ErrorClass::Latched,
    ErrorClass::WrongKey,
    ErrorClass::Interrupted,
    ErrorClass::Internal,
];

/// The class that [`class_name`] names so; `Internal` for a name that this version does not know.
pub fn class_named(name: &str) -> ErrorClass {
    CLASSES.into_iter().find(|class| class_name(*class) == name).unwrap_or(ErrorClass::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_classes() {
        for class in CLASSES {
            assert_eq!(class_named(class_name(class)), class);
        }
        assert_eq!(class_named("unheard_of"), ErrorClass::Internal);
    }
}
