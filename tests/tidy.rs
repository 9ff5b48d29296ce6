//! The project's rules about its own source, as tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the library from the lowest layer to the highest. A module may
/// use what stands on a lower line, and its own line where the flag says so.
const LAYERS: [&[&str]; 11] = [
    &["base"],
    &["codec", "merkle", "store"],
    &["format"],
    &["keys"],
    &["archive"],
    &["catalog"],
    &["staging"],
    &["namespace"],
    &["ingest", "vfs"],
    &["scrub"],
    &["control"],
];
/// Above all layers.
const TOP: &str = "cli";
/// Longest production file, lines.
const MAX_FILE: usize = 800;
/// Functions of more than this many lines are counted.
const LONG_FUNCTION: usize = 70;
/// Most of them that there may be. Lower it when you split one; never raise it without need.
const MAX_LONG_FUNCTIONS: usize = 3;

struct Source {
    path: PathBuf,
    /// Without the test module at its end.
    production: String,
    all: String,
}

fn sources(roots: &[&str]) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending: Vec<PathBuf> = roots.iter().map(|root| top.join(root)).collect();
    let mut sources = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let all = fs::read_to_string(&path).unwrap();
            let production = all.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().to_string();
            sources.push(Source { path: path.strip_prefix(top).unwrap().to_path_buf(), production, all });
        }
    }
    assert!(!sources.is_empty());
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn layer(module: &str) -> Option<usize> {
    if module == TOP { Some(LAYERS.len()) } else { LAYERS.iter().position(|layer| layer.contains(&module)) }
}

/// Names of the modules that a line of source reaches through `crate::`.
fn used_modules(text: &str) -> Vec<&str> {
    text.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .filter(|module| layer(module).is_some())
        .collect()
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for source in sources(&["src"]) {
        let module = source.path.components().nth(1).unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = layer(module) else { continue };
        for (number, line) in source.production.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for used in used_modules(code) {
                if used != module && layer(used).unwrap() >= own {
                    wrong.push(format!("{}:{}: {module} uses {used}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = line.trim_end_matches(';');
        assert!(layer(module).is_some(), "module {module} stands in no layer of tests/tidy.rs");
    }
}

#[test]
fn the_api_crate_is_a_leaf_and_adapters_know_only_it() {
    for source in sources(&["platform"]) {
        let outside = source.production.lines().find(|line| line.contains("blockframe::"));
        assert!(outside.is_none(), "{}: {outside:?}", source.path.display());
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("platform/api/Cargo.toml")).unwrap();
    assert!(!manifest.contains("dependencies"), "platform/api has a dependency");
}

#[test]
fn production_files_hold_one_subject() {
    let long: Vec<String> = sources(&["src", "platform"])
        .iter()
        .map(|source| (source.production.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > MAX_FILE)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "files over {MAX_FILE} lines:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_to_be_done() {
    let marks =
        [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("not built", " yet")];
    let mut found = Vec::new();
    for source in sources(&["src", "platform", "tests"]) {
        for (number, line) in source.all.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{}:{}: {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "left in the code:\n{}", found.join("\n"));
}

/// Name and length of the functions of a rustfmt-formatted file: a function
/// ends with the first closing brace that is indented like its first line.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let bare = code.trim_start_matches("pub ").trim_start_matches("const ");
        let bare = if bare.starts_with("pub(") { bare.split_once(") ").map_or(bare, |(_, rest)| rest) } else { bare };
        let Some(rest) = bare.strip_prefix("fn ") else { continue };
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        let closing = format!("{indent}}}");
        let body = lines[start..].iter().position(|line| line.ends_with('{') || line.ends_with([';', '}']));
        let has_body = body.is_some_and(|at| lines[start + at].ends_with('{'));
        if let (true, Some(end)) = (has_body, lines[start..].iter().position(|line| **line == closing)) {
            found.push((name.to_string(), end + 1));
        }
    }
    found
}

#[test]
fn long_functions_do_not_become_more() {
    let long: Vec<String> = sources(&["src", "platform"])
        .iter()
        .flat_map(|source| functions(&source.production).into_iter().map(|function| (&source.path, function)))
        .filter(|(_, (_, lines))| *lines > LONG_FUNCTION)
        .map(|(path, (name, lines))| format!("{}: {name} has {lines} lines", path.display()))
        .collect();
    assert!(long.len() <= MAX_LONG_FUNCTIONS, "functions over {LONG_FUNCTION} lines:\n{}", long.join("\n"));
}

#[test]
fn the_function_counter_counts() {
    let text = "impl X {\n    pub(super) fn a<T>(\n        b: T,\n    ) -> T {\n        b\n    }\n\n    fn none(&self);\n}\n\nfn c() {\n}\n";
    assert_eq!(functions(text), [("a".to_string(), 5), ("c".to_string(), 2)]);
}
