//! The messages, and how they cross the socket.

use super::{ControlError, ControlResult};
use crate::base::{ErrorClass, Timestamp, class_name, class_named};
use crate::catalog::{CommitSummary, NewMember, NewObject, ObjectRecord, SourceSignature};
use crate::format::EntryPath;
use crate::format::journal::Record;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io::{self, Read, Write};

/// Version of the protocol.
pub(super) const VERSION: u32 = 1;
/// Longest message, bytes: a bundle's object with as many members as the largest bundle holds is a third of it.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

/// What the daemon is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonStatus {
    /// Its process.
    pub pid: u32,
    /// Where the archive is mounted.
    pub mountpoint: String,
    /// Files whose content is staged.
    pub staged_files: u64,
    /// Bytes that staged contents take.
    pub staged_bytes: u64,
    /// Most bytes that they may take.
    pub quota_bytes: u64,
    /// Whether staged contents are being committed now.
    pub draining: bool,
    /// When the oldest of them was written last, seconds since 1970-01-01 UTC.
    pub oldest_staged: Option<i64>,
    /// Files committed since the mount.
    pub committed_files: u64,
    /// Bytes of those.
    pub committed_bytes: u64,
}

/// How far a `sync` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncProgress {
    /// Files that are still to be committed.
    pub files_left: u64,
    /// Bytes of those.
    pub bytes_left: u64,
}

/// For what another process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It adds objects and names.
    Commit,
    /// It removes objects that nothing needs.
    Collect,
}

/// What is asked of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    Status {},
    Sync {
        path: Option<Bytes>,
    },
    Flush {},
    Begin {
        purpose: Purpose,
    },
    End {},
    Sequence {},
    /// An object and its members, as the journal's records.
    AddObject {
        records: Vec<Bytes>,
    },
    /// Entries in a file below the directory of temporary files, as the ingest spools them.
    CommitEntries {
        spool: String,
    },
    RemoveObject {
        record: Bytes,
    },
    RemoveHistory {
        seconds: i64,
        nanoseconds: u32,
    },
    RemovePath {
        path: Bytes,
        recursive: bool,
    },
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Reply {
    Done {},
    Status {
        status: DaemonStatus,
    },
    /// More replies follow.
    Progress {
        progress: SyncProgress,
    },
    Number {
        number: u64,
    },
    Committed {
        created: u64,
        changed: u64,
        unchanged: u64,
    },
    Failed {
        class: String,
        message: String,
    },
}

/// Bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        STANDARD.decode(text).map(Bytes).map_err(serde::de::Error::custom)
    }
}

impl Bytes {
    pub(super) fn of_path(path: &EntryPath) -> Self {
        Self(path.as_bytes().to_vec())
    }

    pub(super) fn path(self) -> ControlResult<EntryPath> {
        Ok(EntryPath::new(self.0)?)
    }

    pub(super) fn of_record(record: &Record) -> Self {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        Self(bytes)
    }

    fn record(&self) -> ControlResult<Record> {
        Ok(Record::from_bytes(&self.0)?)
    }

    /// The object that a record tells of.
    pub(super) fn object(&self) -> ControlResult<ObjectRecord> {
        match self.record()? {
            Record::Object(facts) => Ok(facts.into()),
            other => Err(wrong_record(&other)),
        }
    }
}

fn wrong_record(record: &Record) -> ControlError {
    let kind = format!("{record:?}");
    let kind = kind.split([' ', '(', '{']).next().unwrap_or_default();
    ControlError::Protocol { why: format!("a record of kind {kind} stands where it has no meaning") }
}

/// An object with its members as the journal's records.
pub(super) fn records_of(object: &NewObject) -> Vec<Bytes> {
    let members = object.members.iter().map(|member| Record::Member {
        hash: member.hash,
        offset: member.offset,
        size: member.size,
        source: member.source.map(SourceSignature::get),
    });
    let first = Record::Object((&object.record).into());
    std::iter::once(first).chain(members).map(|record| Bytes::of_record(&record)).collect()
}

/// What [`records_of`] made.
pub(super) fn object_of(records: &[Bytes]) -> ControlResult<NewObject> {
    let Some((first, rest)) = records.split_first() else {
        return Err(ControlError::Protocol { why: "an object without a record".into() });
    };
    let member = |bytes: &Bytes| match bytes.record()? {
        Record::Member { hash, offset, size, source } => {
            Ok(NewMember { hash, offset, size, source: source.map(SourceSignature::from_number) })
        }
        other => Err(wrong_record(&other)),
    };
    Ok(NewObject { record: first.object()?, members: rest.iter().map(member).collect::<ControlResult<_>>()? })
}

impl Request {
    pub(super) fn remove_history(before: Timestamp) -> Self {
        Self::RemoveHistory { seconds: before.seconds, nanoseconds: before.nanoseconds }
    }
}

impl Reply {
    pub(super) fn committed(summary: CommitSummary) -> Self {
        Self::Committed { created: summary.created, changed: summary.changed, unchanged: summary.unchanged }
    }

    pub(super) fn failed(error: &ControlError) -> Self {
        Self::Failed { class: class_name(error.class()).into(), message: error.text() }
    }

    /// A failure as the error it was.
    pub(super) fn checked(self) -> ControlResult<Self> {
        match self {
            Self::Failed { class, message } => Err(ControlError::Refused { class: class_named(&class), message }),
            other => Ok(other),
        }
    }
}

#[derive(Serialize)]
struct OutgoingMessage<'a, T> {
    version: u32,
    body: &'a T,
}

#[derive(Deserialize)]
struct Message<T> {
    body: T,
}

#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// Sends a message.
pub(super) fn send<T: Serialize>(stream: &mut impl Write, body: &T) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, &OutgoingMessage { version: VERSION, body })?;
    let len = bytes.len() - 4;
    if len > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a message of {len} bytes is too long")));
    }
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    stream.write_all(&bytes)
}

/// Receives the rest of a message whose first byte is `first`.
///
/// Error `InvalidData` for a length that no message has.
pub(super) fn receive_rest(stream: &mut impl Read, first: u8) -> io::Result<Vec<u8>> {
    let mut len = [first, 0, 0, 0];
    stream.read_exact(&mut len[1..])?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_MESSAGE {
        let what = format!("a message of {len} bytes is longer than the longest one");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    // Memory grows with what arrives, not with what was announced.
    let mut bytes = Vec::new();
    if stream.take(len as u64).read_to_end(&mut bytes)? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Reads a message's body. Error: `NotSupported` for another version, `Protocol` for what is none.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ControlResult<T> {
    let broken =
        |error: serde_json::Error| ControlError::Protocol { why: format!("a message is not understood ({error})") };
    let AnyVersion { version } = serde_json::from_slice(bytes).map_err(broken)?;
    if version != VERSION {
        let what = format!("the other side speaks version {version} of the protocol, this one version {VERSION}");
        return Err(ControlError::refused(
            ErrorClass::NotSupported,
            format!("{what}; use the same version of blockframe for the mount and the command"),
        ));
    }
    let Message { body } = serde_json::from_slice(bytes).map_err(broken)?;
    Ok(body)
}

/// Whether bytes are a message that a daemon or one of its clients understands, what it carries included.
pub fn understands(bytes: &[u8]) -> bool {
    let request = |request: Request| match request {
        Request::AddObject { records } => object_of(&records).is_ok(),
        Request::RemoveObject { record } => record.object().is_ok(),
        Request::Sync { path: Some(path) } | Request::RemovePath { path, .. } => path.path().is_ok(),
        _ => true,
    };
    parse(bytes).is_ok_and(request) || parse::<Reply>(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through<T: Serialize + DeserializeOwned>(body: &T) -> T {
        let mut bytes = Vec::new();
        send(&mut bytes, body).unwrap();
        let received = receive_rest(&mut &bytes[1..], bytes[0]).unwrap();
        assert_eq!(received.len() + 4, bytes.len());
        parse(&received).unwrap()
    }

    #[test]
    fn messages_come_back() {
        for request in [
            Request::Status {},
            Request::Sync { path: Some(Bytes(b"a/\xff".to_vec())) },
            Request::Sync { path: None },
            Request::Begin { purpose: Purpose::Collect },
            Request::CommitEntries { spool: ".blockframe/tmp/spool-x".into() },
            Request::remove_history(Timestamp { seconds: -5, nanoseconds: 7 }),
            Request::RemovePath { path: Bytes(b"x".to_vec()), recursive: true },
        ] {
            assert_eq!(through(&request), request);
        }
        let failed = Reply::failed(&ControlError::refused(ErrorClass::Busy, "no"));
        let error = through(&failed).checked().unwrap_err();
        assert_eq!((error.class(), error.to_string()), (ErrorClass::Busy, "no".into()));
    }

    #[test]
    fn another_version_and_a_monstrous_length_are_refused() {
        let error = parse::<Request>(br#"{"version":2,"body":{"request":"fly"}}"#).unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotSupported);
        assert!(error.to_string().contains("version 2"), "{error}");
        let error = parse::<Request>(br#"{"version":1,"body":{"request":"status","more":1}}"#).unwrap_err();
        assert!(matches!(error, ControlError::Protocol { .. }), "{error}");
        let error = receive_rest(&mut &[0xff, 0xff, 0xff][..], 0xff).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse::<Request>(&bytes);
            let _ = parse::<Reply>(&bytes);
            let _ = object_of(&[Bytes(bytes)]);
        }
    }
}
