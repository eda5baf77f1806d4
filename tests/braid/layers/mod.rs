//! Who may use whom, and where effects may be named: the layer table, held against the sources.

mod asserted;
mod lexer;
mod names;
mod pages;
mod parts;
mod paths;
mod unused;

use lexer::{Token, closing, program_tokens};
use paths::{Path, paths, sign, word};
use std::fs;

/// From below to above. A module may use the lines before its own and, on its line, what stands to its left.
const LAYERS: &[&[&str]] = &[
    &["stdx", "limits", "types"],
    &["config", "api", "record"],
    &["mvcc", "lease", "auth", "txn", "watch"],
    &["raft", "log", "checkpoint", "sequencer"],
    &["takeover", "router", "control", "shard", "peer"],
    &["http2", "wire", "io", "front"],
    &["recover", "reactor"],
    &["shell", "sim"],
    &["main"],
];
/// Modules that the table would let see each other, and that must not: (who, whom).
const STRANGERS: &[(&str, &str)] = &[("lease", "mvcc"), ("sim", "shell"), ("main", "sim")];

/// Packages that only some modules name, and these modules.
const PACKAGES: &[(&str, &[&str])] = &[
    ("rkyv", &["record", "log", "checkpoint", "raft", "peer"]),
    ("raft", &["raft"]),
    ("prost", &["wire"]),
    ("glommio", &["shell"]),
    ("io_uring", &["shell"]),
    ("libc", &["shell"]),
    ("libmimalloc_sys", &["shell"]),
];
/// What performs an effect, and where it may be named.
const EFFECTS: &[&[&str]] = &[
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "env"],
];
const EFFECT_MODULES: &[&str] = &["shell", "main"];
const UNSAFE_MODULES: &[&str] = &["shell", "log", "raft", "record"];
const CFG_WORDS: &[&str] = &["test", "loom", "not", "all", "any"];
const EMPTY_WORDS: &[&str] = &["manager", "handler", "helper", "util", "common", "core"];
const FILE_LINES_MAX: usize = 1_000;
/// The package's top level; hidden entries and what `.gitignore` names may stand beside it.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "bench",
    "findings",
    "src",
    "tests",
    "tools",
    "tuning.md",
];

/// Everything wrong with one source file, `path` being relative to `src/`.
fn check(path: &str, source: &str) -> Vec<String> {
    let module = module_of(path);
    let top = module.first().map_or("lib", String::as_str);
    let mut faults = Vec::new();
    if source.lines().count() > FILE_LINES_MAX {
        faults.push(format!("more than {FILE_LINES_MAX} lines"));
    }
    if top != "lib" && place(top).is_none() {
        faults.push(format!("{top} is not in the layer table"));
    }
    for name in module.iter().filter(|name| is_empty_word(name)) {
        faults.push(format!("{name} says nothing as a name"));
    }
    // A file of tests may name whatever it needs.
    if module.iter().any(|name| name == "tests") {
        return faults;
    }
    let tokens = program_tokens(source);
    let paths = paths(&tokens, &module[..]);
    faults.extend(check_layers(top, &paths));
    faults.extend(check_packages(top, &paths));
    faults.extend(check_effects(top, &paths));
    faults.extend(check_words(top, &tokens));
    faults
}

/// `mvcc/tree.rs` is `[mvcc, tree]`; `mvcc/mod.rs` is `[mvcc]`; `lib.rs` is the root.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").expect("only Rust files are checked");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_string).collect() }
}

fn place(top: &str) -> Option<(usize, usize)> {
    LAYERS
        .iter()
        .enumerate()
        .find_map(|(line, modules)| Some((line, modules.iter().position(|r| *r == top)?)))
}

fn may_use(top: &str, other: &str) -> bool {
    let (Some(own), Some(others)) = (place(top), place(other)) else { return top == "lib" };
    top == other || (others < own && !STRANGERS.contains(&(top, other)))
}

fn check_layers(top: &str, paths: &[Path]) -> Vec<String> {
    let mut faults = Vec::new();
    for path in paths {
        let ours = ["crate", "braid"].contains(&path.segments[0].as_str());
        let Some(other) = path.segments.get(1).filter(|_| ours) else { continue };
        // Names that lib.rs itself defines or re-exports would hide where they come from.
        if top != "lib" && !may_use(top, other) {
            faults.push(format!("line {}: {top} may not use {other}", path.line));
        }
    }
    faults
}

fn check_packages(top: &str, paths: &[Path]) -> Vec<String> {
    let mut faults = Vec::new();
    for (package, modules) in PACKAGES.iter().filter(|(_, modules)| !modules.contains(&top)) {
        // `use crate::raft;` makes a bare `raft::` our own module.
        let own_module = paths.iter().any(|path| path.segments == ["crate", package]);
        for path in paths.iter().filter(|path| path.segments[0] == *package && !own_module) {
            faults.push(format!("line {}: {package} is named only in {}", path.line, modules.join(", ")));
        }
    }
    faults
}

fn check_effects(top: &str, paths: &[Path]) -> Vec<String> {
    if EFFECT_MODULES.contains(&top) {
        return Vec::new();
    }
    let effect = |path: &&Path| {
        // What the compiler knows of the target is no look at the environment.
        let constant = path.starts_with(&["std", "env", "consts"]);
        let glob = path.starts_with(&["std", "time", "*"]) || path.starts_with(&["std", "*"]);
        !constant && (glob || EFFECTS.iter().any(|effect| path.starts_with(effect)))
    };
    let fault =
        |path: &Path| format!("line {}: {} belongs to the shell", path.line, path.segments.join("::"));
    paths.iter().filter(effect).map(fault).collect()
}

fn check_words(top: &str, tokens: &[Token]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let line = token.line;
        match token.text.as_str() {
            "unsafe" if !UNSAFE_MODULES.contains(&top) => {
                faults.push(format!("line {line}: unsafe code belongs to {}", UNSAFE_MODULES.join(", ")));
            }
            "mod" | "struct" | "enum" | "trait" | "type" | "union" if word(tokens, at + 1) => {
                let name = &tokens[at + 1].text;
                if is_empty_word(name) {
                    faults.push(format!("line {line}: {name} says nothing as a name"));
                }
            }
            "cfg" => {
                let open = if sign(tokens, at + 1, "!") { at + 2 } else { at + 1 };
                if sign(tokens, open, "(") {
                    let inside = open + 1..closing(tokens, open) - 1;
                    let other = inside.filter(|at| word(tokens, *at)).map(|at| tokens[at].text.as_str());
                    if let Some(other) = { other }.find(|name| !CFG_WORDS.contains(name)) {
                        faults.push(format!("line {line}: cfg({other}) makes a second program"));
                    }
                }
            }
            // What follows the condition of `cfg_attr` is an attribute, not a condition.
            "cfg_attr" if sign(tokens, at + 1, "(") && word(tokens, at + 2) => {
                let name = &tokens[at + 2].text;
                if !CFG_WORDS.contains(&name.as_str()) {
                    faults.push(format!("line {line}: cfg_attr({name}) makes a second program"));
                }
            }
            _ => {}
        }
    }
    faults
}

/// Whether a word of the name, in either case and number, is one that says nothing.
fn is_empty_word(name: &str) -> bool {
    let mut spaced = String::new();
    for c in name.chars() {
        if c.is_uppercase() || c == '_' {
            spaced.push(' ');
        }
        spaced.extend(c.to_lowercase().filter(|c| *c != '_'));
    }
    spaced.split(' ').any(|word| EMPTY_WORDS.contains(&word.strip_suffix('s').unwrap_or(word)))
}

fn check_top_level(entries: &[String], ignored: &[String]) -> Vec<String> {
    let stray = |entry: &&String| {
        let by_pattern = |pattern: &String| match pattern.strip_prefix('*') {
            Some(suffix) => entry.ends_with(suffix),
            None => *entry == pattern,
        };
        !entry.starts_with('.') && !TOP_LEVEL.contains(&entry.as_str()) && !ignored.iter().any(by_pattern)
    };
    let fault = |entry: &String| format!("{entry} has no place at the top level");
    entries.iter().filter(stray).map(fault).collect()
}

fn root() -> std::path::PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// All Rust files below a directory of the package, with their paths relative to it.
fn sources(below: &str) -> Vec<(String, String)> {
    let (base, mut found) = (root().join(below), Vec::new());
    let mut open = vec![base.clone()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.expect("the directory can be listed").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&base).expect("it was found below").to_str().expect("UTF-8");
                found.push((name.to_string(), fs::read_to_string(&path).expect("it can be read")));
            }
        }
    }
    found
}

#[test]
fn every_source_keeps_to_its_layer() {
    let sources = sources("src");
    assert!(sources.len() > 5, "the sources were not found");
    let faults: Vec<String> = sources
        .iter()
        .flat_map(|(path, source)| {
            check(path, source).into_iter().map(move |fault| format!("src/{path}: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_file_beside_the_sources_is_too_long() {
    for below in ["tests", "bench", "tools"] {
        for (path, source) in sources(below) {
            assert!(source.lines().count() <= FILE_LINES_MAX, "{below}/{path} is too long");
        }
    }
}

#[test]
fn the_top_level_is_the_owners() {
    let entries: Vec<String> = fs::read_dir(root())
        .expect("the package can be listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert!(entries.iter().any(|entry| entry == "Cargo.toml"));
    let ignored = fs::read_to_string(root().join(".gitignore")).expect("it can be read");
    let ignored: Vec<String> = ignored.lines().map(str::to_string).collect();
    assert_eq!(check_top_level(&entries, &ignored), Vec::<String>::new());
    let stray = ["src", "findings", ".ci", "target", "a.etcd", "notes.txt"].map(str::to_string);
    assert_eq!(check_top_level(&stray, &ignored), ["notes.txt has no place at the top level"]);
}

/// Feeds the checker a source; `words` is part of the one fault expected, or empty for none.
fn expect(path: &str, source: &str, words: &str) {
    let faults = check(path, source);
    let right =
        if words.is_empty() { faults.is_empty() } else { faults.len() == 1 && faults[0].contains(words) };
    assert!(right, "{path}: {source}\nexpected {words:?}, found {faults:?}");
}

#[test]
fn a_use_against_the_layers_is_found() {
    expect("mvcc/tree.rs", "use crate::types::Revision; use crate::api::Error;", "");
    expect("mvcc/tree.rs", "use crate::{types::Revision, raft::Group};", "mvcc may not use raft");
    expect("types.rs", "fn f() { crate::types::a(); crate::limits::b(); }", "");
    expect("limits.rs", "fn f() -> crate::types::Time { x }", "limits may not use types");
    expect("txn.rs", "use super::mvcc::Store;", "");
    expect("mvcc.rs", "use super::txn::Apply;", "mvcc may not use txn");
    expect("lease/mod.rs", "use crate::mvcc::Store;", "lease may not use mvcc");
    expect("mvcc/tree.rs", "use super::super::lease::Lease;", "mvcc may not use lease");
    expect("mvcc/tree.rs", "use super::lease::Lease;", "");
    expect("shell/ring.rs", "use crate::sim::Net;", "shell may not use sim");
    expect("sim/net.rs", "use crate::shell::Ring;", "sim may not use shell");
    expect("main.rs", "use braid::shell; use braid::config;", "");
    expect("main.rs", "use braid::sim::Net;", "main may not use sim");
    expect("mvcc.rs", "use crate::Stray;", "mvcc may not use Stray");
    expect("drawer.rs", "", "drawer is not in the layer table");
    expect("mvcc.rs", "// use crate::raft;\n#[cfg(test)] mod tests { use crate::raft::X; }", "");
    expect("mvcc/tests.rs", "use crate::raft::X; use std::fs;", "");
}

#[test]
fn a_package_outside_its_modules_is_found() {
    for (package, top) in
        [("rkyv", "log"), ("raft", "raft"), ("prost", "wire"), ("glommio", "shell"), ("io_uring", "shell")]
            .into_iter()
            .chain([("libc", "shell")])
    {
        let source = format!("use {package}::Thing;");
        expect(&format!("{top}/a.rs"), &source, "");
        expect("router.rs", &source, &format!("{package} is named only in"));
        expect(
            "router.rs",
            &format!("fn f() {{ ::{package}::g() }}"),
            &format!("{package} is named only in"),
        );
        expect(
            "router.rs",
            &format!("#[derive({package}::Thing)] struct S;"),
            &format!("{package} is named"),
        );
    }
    expect("shard.rs", "use crate::raft; fn f() { raft::Group::new() }", "");
    expect(
        "shard.rs",
        "use crate::raft::Group; fn f() { raft::RawNode::new() }",
        "raft is named only in raft",
    );
}

#[test]
fn an_effect_outside_the_shell_is_found() {
    for effect in
        ["time::Instant", "time::SystemTime", "time::*", "fs", "fs::File", "net::TcpStream", "thread"]
    {
        let source = format!("use std::{effect};");
        expect("shell/a.rs", &source, "");
        expect("main.rs", &source, "");
        expect("watch.rs", &source, "belongs to the shell");
    }
    expect("watch.rs", "use std::{env, time::Duration};", "std::env belongs to the shell");
    expect("watch.rs", "use std::time::Duration; const A: &str = std::env::consts::OS;", "");
    expect("watch.rs", "fn f() { std::thread::yield_now() }", "belongs to the shell");
}

#[test]
fn unsafe_code_a_second_program_and_empty_names_are_found() {
    expect("log/ring.rs", "fn f() { unsafe { g() } }", "");
    expect("watch.rs", "fn f() { unsafe { g() } }", "unsafe code belongs to");
    expect("watch.rs", "#![allow(unsafe_code)]", "");
    expect("sequencer.rs", "#[cfg(loom)] use loom::A; #[cfg(not(loom))] use std::sync::atomic::B;", "");
    expect("watch.rs", "#[cfg(feature = \"sim\")] fn f() {}", "cfg(feature)");
    expect("watch.rs", "fn f() -> bool { cfg!(debug_assertions) }", "cfg(debug_assertions)");
    expect("watch.rs", "#[cfg_attr(test, derive(Debug))] struct S;", "");
    expect("watch.rs", "#[cfg_attr(feature = \"sim\", inline)] fn f() {}", "cfg_attr(feature)");
    for name in
        ["struct LeaseManager;", "enum HandlerKind {}", "mod utils;", "trait Common {}", "type Core = u8;"]
    {
        expect("watch.rs", name, "says nothing as a name");
    }
    expect("watch/helpers.rs", "", "helpers says nothing as a name");
    expect("watch.rs", "struct Score; struct Commonwealth; fn handler() {}", "");
}

#[test]
fn a_long_file_is_found() {
    expect("watch.rs", &"\n".repeat(FILE_LINES_MAX), "");
    expect("watch.rs", &"\n".repeat(FILE_LINES_MAX + 1), "more than 1000 lines");
}
