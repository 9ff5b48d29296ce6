//! `ls`, `find` and `stat`: the namespace.

use crate::archive::Verdict;
use crate::base::{ErrorClass, Timestamp};
use crate::catalog::Inode;
use crate::cli::args::{FindArgs, LsArgs, StatArgs};
use crate::cli::context::{Context, OpenArchive};
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::history;
use crate::cli::namespace::{NodeJson, kind_word, mode_text, parse_path, resolve_at, walk_at};
use crate::cli::output::{JsonPath, Output, printable};
use crate::cli::units;
use crate::cli::writes::{Newest, settle};
use crate::format::{EntryPath, NodeBody};
use blockframe_api::Node;
use globset::{GlobBuilder, GlobMatcher};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// What is known of the shards that hold a file.
#[derive(Debug, Serialize)]
struct Holding {
    object: String,
    tier: u8,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_at: Option<String>,
}

impl Holding {
    fn of(open: &OpenArchive, inode: &Inode) -> CliResult<Option<Self>> {
        let NodeBody::File(content) = &inode.body else { return Ok(None) };
        let Some(place) = open.catalog.place(&content.hash, content.size)? else { return Ok(None) };
        let verified = open.health.verified(&place.object.name)?;
        Ok(Some(Self {
            object: place.object.name.to_string(),
            tier: place.tier,
            offset: place.offset,
            state: verified.map(|(_, verdict)| verdict),
            verified_at: verified.map(|(at, _)| units::rfc3339(at)),
        }))
    }

    fn word(&self) -> &'static str {
        self.state.map_or("unverified", Verdict::word)
    }
}

#[derive(Serialize)]
struct LongEntry {
    #[serde(flatten)]
    node: NodeJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(flatten)]
    holding: Option<Holding>,
}

/// Lists a directory, or shows one file.
pub(super) fn ls(context: &Context, args: &LsArgs) -> CliResult<ExitStatus> {
    let open = context.open()?;
    settle(context, &open, Newest::Names)?;
    let out = context.out();
    if args.deleted {
        return deleted(&open, out, args);
    }
    let at = history::remembered(&open, args.at)?;
    let (path, inode) = resolve_at(&open.catalog, args.path.as_deref(), at)?;
    let mut show = |entry: &EntryPath, inode: &Inode| {
        // With -R names would be ambiguous, so whole paths are shown.
        let shown = if args.recursive { entry.as_bytes() } else { entry.name() };
        show(out, &open, args.long, entry, shown, inode)
    };
    if !inode.is_directory() {
        show(&path, &inode)?;
    } else if args.recursive {
        walk_at(&open.catalog, inode.node, &path, at, &mut show)?;
    } else {
        list(&open, inode.node, &path, at, &mut show)?;
    }
    Ok(ExitStatus::Done)
}

fn list(
    open: &OpenArchive,
    directory: Node,
    path: &EntryPath,
    at: Option<Timestamp>,
    show: &mut dyn FnMut(&EntryPath, &Inode) -> CliResult<()>,
) -> CliResult<()> {
    let mut result = Ok(());
    let mut visit = |name: &[u8], inode: Inode| {
        result = path.join(name).map_err(CliError::from).and_then(|entry| show(&entry, &inode));
        result.is_ok()
    };
    match at {
        Some(at) => open.catalog.list_at(directory, None, at, &mut visit)?,
        None => open.catalog.list(directory, None, &mut visit)?,
    }
    result
}

/// Lists the names of a directory that were removed and can be restored.
fn deleted(open: &OpenArchive, out: &Output, args: &LsArgs) -> CliResult<ExitStatus> {
    let directory = args.path.as_deref().map_or(Ok(EntryPath::root()), parse_path)?;
    let Some(node) = history::directory(&open.catalog, &directory)? else {
        let hint = format!("nothing is known to have stood at {directory}");
        return Err(CliError::new(ErrorClass::NotFound, hint));
    };
    for name in open.catalog.past_names(node)? {
        let path = directory.join(&name)?;
        // A state that was forgotten leaves a name that cannot be restored.
        let Ok(versions) = history::versions(&open.catalog, &path) else { continue };
        let Some(version) = versions.last() else { continue };
        let removed = version.until.map(units::rfc3339);
        out.json(&serde_json::json!({
            "path": JsonPath::new(path.as_bytes()),
            "kind": kind_word(version.body.kind()),
            "size": version.size(),
            "hash": version.hash(),
            "version": units::rfc3339(version.since),
            "removed": removed,
        }))?;
        let mut line = Vec::new();
        if args.long {
            let (kind, size) = (kind_word(version.body.kind()), version.size());
            line.extend_from_slice(format!("{kind:<9} {size:>13} {} ", removed.unwrap_or_default()).as_bytes());
        }
        line.extend(out.name(&name));
        out.raw_line(&line)?;
    }
    Ok(ExitStatus::Done)
}

fn show(out: &Output, open: &OpenArchive, long: bool, path: &EntryPath, shown: &[u8], inode: &Inode) -> CliResult<()> {
    let holding = if long { Holding::of(open, inode)? } else { None };
    if out.is_json() {
        return out.json(&LongEntry { node: NodeJson::new(path, inode), holding });
    }
    let mut line = Vec::new();
    if long {
        let attributes = inode.attributes();
        let health = holding.as_ref().map_or("-", Holding::word);
        let columns = format!(
            "{} {:>3} {:>5} {:>5} {:>13} {} {:<13} ",
            mode_text(attributes.kind, attributes.permissions),
            attributes.links,
            attributes.user,
            attributes.group,
            attributes.size,
            units::time(attributes.modified.seconds),
            health,
        );
        line.extend_from_slice(columns.as_bytes());
    }
    line.extend(out.name(shown));
    if let (true, NodeBody::Symlink(target)) = (long, &inode.body) {
        line.extend_from_slice(b" -> ");
        line.extend(out.name(target));
    }
    out.raw_line(&line)
}

/// Prints the paths whose name (or, for a pattern with a slash, path) matches.
pub(super) fn find(context: &Context, args: &FindArgs) -> CliResult<ExitStatus> {
    let matcher = glob(&args.pattern)?;
    let by_path = args.pattern.as_bytes().contains(&b'/');
    let open = context.open()?;
    settle(context, &open, Newest::Names)?;
    let out = context.out();
    let at = history::remembered(&open, args.at)?;
    walk_at(&open.catalog, Node::ROOT, &EntryPath::root(), at, &mut |path, inode| {
        let subject = if by_path { path.as_bytes() } else { path.name() };
        if !matcher.is_match(OsStr::from_bytes(subject)) {
            return Ok(());
        }
        out.json(&NodeJson::new(path, inode))?;
        out.raw_line(&out.name(path.as_bytes()))
    })?;
    Ok(ExitStatus::Done)
}

fn glob(pattern: &OsStr) -> CliResult<GlobMatcher> {
    let bad = |why: String| {
        let hint = "`*` and `?` match within a name, `**` any number of directories; quote it for the shell";
        CliError::new(ErrorClass::Invalid, format!("\"{}\" is no pattern ({why}); {hint}", pattern.display()))
    };
    let text = pattern.to_str().ok_or_else(|| bad("it is not UTF-8".into()))?;
    let glob = GlobBuilder::new(text.trim_start_matches('/')).literal_separator(true).build();
    Ok(glob.map_err(|error| bad(error.to_string()))?.compile_matcher())
}

/// Shows all that is known of a name.
pub(super) fn stat(context: &Context, args: &StatArgs) -> CliResult<ExitStatus> {
    let open = context.open()?;
    settle(context, &open, Newest::Names)?;
    let out = context.out();
    let path = parse_path(&args.path)?;
    let at = history::remembered(&open, args.at)?;
    let (_, inode) = resolve_at(&open.catalog, Some(&args.path), at)?;
    let holding = Holding::of(&open, &inode)?;
    let attributes = inode.attributes();
    let mut rows = vec![
        ("path", path.to_string()),
        ("mode", format!("{} ({:04o})", mode_text(attributes.kind, attributes.permissions), attributes.permissions)),
        ("size", format!("{} bytes ({} hold data)", attributes.size, attributes.allocated)),
        ("owner", format!("{}:{}", attributes.user, attributes.group)),
        ("inode", format!("{}, {}", attributes.node.number(), units::plural(attributes.links.into(), "link"))),
        ("modified", units::rfc3339(attributes.modified)),
        ("changed", units::rfc3339(attributes.changed)),
    ];
    rows.extend(inode.meta.born.map(|born| ("born", units::rfc3339(born))));
    match &inode.body {
        NodeBody::File(content) => rows.push(("blake3", content.hash.to_hex())),
        NodeBody::Symlink(target) => rows.push(("target", printable(target))),
        _ => {}
    }
    for (name, value) in &inode.meta.xattrs {
        rows.push(("xattr", format!("{} ({})", printable(name), units::plural(value.len() as u64, "byte"))));
    }
    if let Some(holding) = &holding {
        rows.push(("object", format!("{} (tier {}, from byte {})", holding.object, holding.tier, holding.offset)));
        let when = holding.verified_at.as_ref().map_or(String::new(), |at| format!(", verified {at}"));
        rows.push(("health", format!("{}{when}", holding.word())));
    }
    // The other names are known as they are now.
    if attributes.links > 1 && !inode.is_directory() && at.is_none() {
        for other in open.catalog.paths_of(inode.node)?.iter().filter(|other| **other != path) {
            rows.push(("also", printable(other.as_bytes())));
        }
    }
    for (title, value) in rows {
        out.line(format_args!("{title:<9} {value}"))?;
    }
    out.json(&LongEntry { node: NodeJson::new(&path, &inode), holding })?;
    Ok(ExitStatus::Done)
}
