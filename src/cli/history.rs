//! What stood at a path over time, as far as history is kept.

use super::context::OpenArchive;
use super::error::{CliError, CliResult};
use super::units::{self, Moment};
use crate::base::{ContentHash, ErrorClass, Timestamp};
use crate::catalog::{Catalog, NodeState, PlaceState};
use crate::format::{EntryPath, NodeBody, NodeMeta};
use blockframe_api::Node;

/// What stood at a path for a while. Changes of attributes alone make no version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// From when: its id.
    pub since: Timestamp,
    /// Until when, not including it; `None`: it stands there now.
    pub until: Option<Timestamp>,
    /// Whether nothing stood at the path after it.
    pub removed: bool,
    /// The node.
    pub node: Node,
    /// The attributes that it had last.
    pub meta: NodeMeta,
    /// What it was.
    pub body: NodeBody,
}

impl Version {
    /// Bytes of a file's content.
    pub fn size(&self) -> u64 {
        match &self.body {
            NodeBody::File(content) => content.size,
            _ => 0,
        }
    }

    /// BLAKE3 of a file's content.
    pub fn hash(&self) -> Option<ContentHash> {
        match &self.body {
            NodeBody::File(content) => Some(content.hash),
            _ => None,
        }
    }

    /// The last moment at which it stood there; `now` if it does still.
    pub fn last_moment(&self, now: Timestamp) -> Timestamp {
        match self.until {
            None => now,
            Some(Timestamp { seconds, nanoseconds: 0 }) => {
                Timestamp { seconds: seconds.saturating_sub(1), nanoseconds: 999_999_999 }
            }
            Some(Timestamp { seconds, nanoseconds }) => Timestamp { seconds, nanoseconds: nanoseconds - 1 },
        }
    }

    fn is_same_content(&self, other: &Self) -> bool {
        self.node == other.node && self.body == other.body && self.until == Some(other.since)
    }
}

/// Which moment the user means, where all is known of it.
///
/// Error: `NotFound` when some of what was then is forgotten.
pub fn remembered(open: &OpenArchive, moment: Option<Moment>) -> CliResult<Option<Timestamp>> {
    let Some(moment) = moment else { return Ok(None) };
    let at = moment.when(open.archive.clock().now());
    open.catalog.check_remembered(at)?;
    Ok(Some(at))
}

/// The versions at a path, oldest first.
///
/// Error: `NotFound` when nothing that is known of stood there.
pub fn versions(catalog: &Catalog, path: &EntryPath) -> CliResult<Vec<Version>> {
    let mut all = Vec::new();
    if path.is_root() {
        pieces(&PlaceState { node: Node::ROOT, since: FIRST, until: None }, &catalog.states_of(Node::ROOT)?, &mut all);
    } else {
        for place in places(catalog, path)? {
            pieces(&place, &catalog.states_of(place.node)?, &mut all);
        }
    }
    if all.is_empty() {
        let hint =
            format!("nothing is known to have stood at {path}; `blockframe ls --deleted` shows what was removed");
        return Err(CliError::new(ErrorClass::NotFound, hint));
    }
    Ok(merged(all))
}

/// Before all that is told of.
const FIRST: Timestamp = Timestamp { seconds: i64::MIN, nanoseconds: 0 };

/// What the path's last name led to, in the directory that stands above it or stood there last.
fn places(catalog: &Catalog, path: &EntryPath) -> CliResult<Vec<PlaceState>> {
    let Some(above) = path.parent() else { return Ok(Vec::new()) };
    match directory(catalog, &above)? {
        Some(directory) => Ok(catalog.names_at_place(directory, path.name())?),
        None => Ok(Vec::new()),
    }
}

/// The node at a path, or the last one that stood there.
pub fn directory(catalog: &Catalog, path: &EntryPath) -> CliResult<Option<Node>> {
    let mut at = Node::ROOT;
    for name in path.names() {
        match catalog.names_at_place(at, name)?.last() {
            Some(place) => at = place.node,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// The states that a node had while a name led to it.
fn pieces(place: &PlaceState, states: &[NodeState], out: &mut Vec<Version>) {
    for state in states {
        let since = place.since.max(state.since);
        let until = match (place.until, state.until) {
            (Some(place), Some(state)) => Some(place.min(state)),
            (place, state) => place.or(state),
        };
        if until.is_none_or(|until| since < until) {
            let NodeState { meta, body, .. } = state.clone();
            out.push(Version { since, until, removed: false, node: place.node, meta, body });
        }
    }
}

/// In order, with neighbours of the same content as one.
fn merged(mut pieces: Vec<Version>) -> Vec<Version> {
    pieces.sort_by_key(|version| (version.since, version.until.is_none(), version.until));
    let mut versions: Vec<Version> = Vec::new();
    for piece in pieces {
        match versions.last_mut() {
            Some(last) if last.is_same_content(&piece) => {
                *last = Version { since: last.since, ..piece };
            }
            _ => versions.push(piece),
        }
    }
    let next: Vec<Option<Timestamp>> =
        versions.iter().skip(1).map(|version| Some(version.since)).chain([None]).collect();
    for (version, next) in versions.iter_mut().zip(next) {
        version.removed = version.until.is_some_and(|until| next.is_none_or(|next| until < next));
    }
    versions
}

/// The version that the user means: an id as `versions` shows it, a number of
/// its list, the beginning of a hash; without one, the newest that is not current.
///
/// Errors: `NotFound`; `Invalid` when several contents begin so.
pub fn choose<'v>(versions: &'v [Version], wanted: Option<&str>, path: &EntryPath) -> CliResult<&'v Version> {
    let not_found = |what: String| {
        CliError::new(ErrorClass::NotFound, format!("{path} {what}; `blockframe versions` shows what there is"))
    };
    let Some(wanted) = wanted else {
        let old = versions.iter().rev().find(|version| version.until.is_some());
        return old.ok_or_else(|| not_found("has no old version".into()));
    };
    if let Ok(number) = wanted.parse::<usize>()
        && let Some(version) = number.checked_sub(1).and_then(|index| versions.get(index))
    {
        return Ok(version);
    }
    if let Some(id) = units::parse_time(wanted) {
        let found = versions.iter().find(|version| version.since == id);
        return found.ok_or_else(|| not_found(format!("has no version {wanted}")));
    }
    let begins = |version: &&Version| version.hash().is_some_and(|hash| hash.to_hex().starts_with(wanted));
    let matching: Vec<&Version> = versions.iter().filter(begins).collect();
    match matching.split_last() {
        Some((newest, others)) if others.iter().all(|other| other.hash() == newest.hash()) => Ok(newest),
        Some(_) => {
            let what = format!("several versions of {path} have a hash that begins with {wanted}; write more of it");
            Err(CliError::new(ErrorClass::Invalid, what))
        }
        None => Err(not_found(format!("has no version {wanted}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FileContent;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanoseconds: 5 }
    }

    fn body(content: &[u8]) -> NodeBody {
        NodeBody::File(FileContent { size: content.len() as u64, hash: ContentHash::of(content), extents: None })
    }

    fn state(since: i64, until: Option<i64>, permissions: u16, content: &[u8]) -> NodeState {
        let meta = NodeMeta { permissions, ..NodeMeta::default() };
        NodeState { since: at(since), until: until.map(at), meta, body: body(content) }
    }

    /// A file that was written, changed its mode, was written again, removed, made again and replaced by renaming.
    fn story() -> Vec<Version> {
        let place = |node, since, until: Option<i64>| PlaceState {
            node: Node::new(node),
            since: at(since),
            until: until.map(at),
        };
        let mut all = Vec::new();
        let first = [state(1, Some(3), 1, b"one"), state(3, Some(5), 2, b"one"), state(5, Some(9), 2, b"two")];
        pieces(&place(10, 1, Some(9)), &first, &mut all);
        // It was another name's before.
        let second = [state(2, Some(20), 1, b"three"), state(20, None, 1, b"four")];
        pieces(&place(11, 12, None), &second, &mut all);
        merged(all)
    }

    #[test]
    fn versions_are_contents_over_time_and_say_what_was_removed() {
        let shown: Vec<_> = story()
            .iter()
            .map(|v| (v.since.seconds, v.until.map(|until| until.seconds), v.removed, v.meta.permissions, v.size()))
            .collect();
        assert_eq!(
            shown,
            [(1, Some(5), false, 2, 3), (5, Some(9), true, 2, 3), (12, Some(20), false, 1, 5), (20, None, false, 1, 4)]
        );
        assert_eq!(story()[0].last_moment(at(0)), Timestamp { seconds: 5, nanoseconds: 4 });
        assert_eq!(story()[3].last_moment(at(99)), at(99));
    }

    #[test]
    fn a_version_is_chosen_by_id_number_or_hash() {
        let (story, path) = (story(), EntryPath::new("f").unwrap());
        let chosen = |wanted: Option<&str>| choose(&story, wanted, &path).map(|version| version.since.seconds);
        assert_eq!(chosen(None).unwrap(), 12);
        assert_eq!(chosen(Some("1")).unwrap(), 1);
        assert_eq!(chosen(Some("1970-01-01T00:00:05.000000005Z")).unwrap(), 5);
        assert_eq!(chosen(Some(&ContentHash::of(b"two").to_hex()[..12])).unwrap(), 5);
        for (wanted, class) in [
            ("5", ErrorClass::NotFound),
            ("1970-01-01T00:00:05Z", ErrorClass::NotFound),
            ("xyz", ErrorClass::NotFound),
            ("", ErrorClass::Invalid),
        ] {
            assert_eq!(chosen(Some(wanted)).unwrap_err().class(), class, "{wanted}");
        }
        assert_eq!(choose(&story[3..], None, &path).unwrap_err().class(), ErrorClass::NotFound);
    }
}
