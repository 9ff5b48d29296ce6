//! `versions` and `restore`: what was, and how it comes back.

use crate::base::{ErrorClass, Timestamp};
use crate::catalog::{Catalog, CommitSummary, Inode};
use crate::cli::args::{PathArg, RestoreArgs};
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::history::{Version, choose, remembered, versions};
use crate::cli::namespace::{kind_word, parse_path, walk_at};
use crate::cli::output::{JsonPath, Table};
use crate::cli::units;
use crate::cli::writes::{Newest, settle, writes};
use crate::control::Purpose;
use crate::format::{Entry, EntryPath, NodeBody};
use blockframe_api::Node;
use std::collections::HashMap;

/// Lists the versions of a path, oldest first.
pub(super) fn list(context: &Context, args: &PathArg) -> CliResult<ExitStatus> {
    let path = parse_path(&args.path)?;
    let open = context.open()?;
    settle(context, &open, Newest::Names)?;
    let out = context.out();
    let all = versions(&open.catalog, &path)?;
    let mut table = Table::new(&[">no", "version", ">size", "content", "until", "state"]);
    for (index, version) in all.iter().enumerate() {
        let (number, until) = (index + 1, version.until.map(units::rfc3339));
        let state = match (&until, version.removed) {
            (None, _) => "current",
            (Some(_), true) => "removed",
            (Some(_), false) => "replaced",
        };
        let kind = kind_word(version.body.kind());
        let content = version.hash().map_or(kind.to_string(), |hash| hash.to_hex()[..16].to_string());
        table.row([
            number.to_string(),
            units::rfc3339(version.since),
            units::size(version.size()),
            content,
            until.clone().unwrap_or_else(|| "now".into()),
            state.into(),
        ]);
        out.json(&serde_json::json!({
            "number": number,
            "version": units::rfc3339(version.since),
            "until": until,
            "kind": kind,
            "size": version.size(),
            "hash": version.hash(),
            "current": version.until.is_none(),
            "removed": version.removed,
        }))?;
    }
    if !out.is_json() {
        table.print(out)?;
    }
    Ok(ExitStatus::Done)
}

/// Makes an old version the current one, or another name of its own.
pub(super) fn restore(context: &Context, args: &RestoreArgs) -> CliResult<ExitStatus> {
    let path = parse_path(&args.path)?;
    let to = args.to.as_deref().map(parse_path).transpose()?.unwrap_or_else(|| path.clone());
    let open = context.open()?;
    settle(context, &open, Newest::Names)?;
    let out = context.out();
    let writer = writes(&open, Purpose::Commit)?;
    let now = open.archive.clock().now();
    let (entries, what) = match remembered(&open, args.at)? {
        Some(at) => {
            let Some(inode) = open.catalog.resolve_at(&path, at)? else {
                let hint =
                    format!("{path} was not there at {}; `blockframe versions` shows when it was", units::rfc3339(at));
                return Err(CliError::new(ErrorClass::NotFound, hint));
            };
            (tree(&open.catalog, &inode, &to, at)?, units::rfc3339(at))
        }
        None => {
            let all = versions(&open.catalog, &path)?;
            let Version { since, node, meta, body, .. } = choose(&all, args.version.as_deref(), &path)?.clone();
            let at = choose(&all, args.version.as_deref(), &path)?.last_moment(now);
            let inode = Inode { node, links: 1, meta, body };
            (tree(&open.catalog, &inode, &to, at)?, units::rfc3339(since))
        }
    };
    let count = entries.len() as u64;
    let result = writer.commit_entries(&mut entries.into_iter().map(Ok));
    let finished = writer.finish();
    let CommitSummary { created, changed, unchanged } = result?;
    finished?;
    out.line(format_args!("Restored {} to {to} from version {what}.", units::plural(count, "name")))?;
    out.json(&serde_json::json!({
        "restored": JsonPath::new(path.as_bytes()),
        "to": JsonPath::new(to.as_bytes()),
        "version": what,
        "names_created": created,
        "names_changed": changed,
        "names_unchanged": unchanged,
    }))?;
    Ok(ExitStatus::Done)
}

/// A node with all that lay below it at a time, as entries at and below `to`.
fn tree(catalog: &Catalog, inode: &Inode, to: &EntryPath, at: Timestamp) -> CliResult<Vec<Entry>> {
    let mut entries = vec![Entry::Node { path: to.clone(), meta: inode.meta.clone(), body: inode.body.clone() }];
    if inode.body != NodeBody::Directory {
        return Ok(entries);
    }
    let mut first_names: HashMap<Node, EntryPath> = HashMap::new();
    walk_at(catalog, inode.node, to, Some(at), &mut |path, found| {
        let path = path.clone();
        match first_names.get(&found.node) {
            Some(target) if !found.is_directory() => entries.push(Entry::HardLink { path, target: target.clone() }),
            _ => {
                first_names.insert(found.node, path.clone());
                entries.push(Entry::Node { path, meta: found.meta.clone(), body: found.body.clone() });
            }
        }
        Ok(())
    })?;
    Ok(entries)
}
