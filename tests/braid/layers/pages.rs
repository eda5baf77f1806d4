//! A clone explains itself: what its pages name is in it, and nothing points to a page that is not.

use super::{LAYERS, lexer::program_tokens, module_of, place, root, sources};
use std::fs;
use std::path::PathBuf;

/// Pages that explain the source, each below `src/`.
const PAGES: &[&str] = &["lib.rs", "protocol.md", "howto.md"];
/// Words that a module's program does not name, as the architecture page says of it.
const ABSENT: &[(&str, &[&str])] = &[
    ("raft", &["Revision", "KeyRange", "ShardId", "Epoch"]),
    ("mvcc", &["Term", "Epoch", "LogId", "ConnId"]),
    ("log", &["KeyRange", "Blob", "Epoch"]),
    ("takeover", &["KeyRange", "Blob"]),
    ("sequencer", &["Epoch"]),
    ("wire", &["ConnId"]),
    ("front", &["ShardId"]),
];
/// Names of pages and places outside the tree, in halves, as this file is looked at too.
const OUTSIDE: &[&str] = &[
    concat!("DES", "IGN"),
    concat!("hard", "-spots"),
    concat!("etcd", "-surface"),
    concat!("etcd", "-seen"),
    concat!("cluster", "-seen"),
    concat!("/wo", "rk/"),
    concat!("../sha", "red"),
];
/// What defines a name in Rust.
const KINDS: &[&str] = &["fn", "struct", "enum", "const", "static", "trait", "type", "mod", "macro_rules!"];

/// What a text points to that is not in the tree.
fn check_pointers(text: &str) -> Vec<String> {
    let fault = |(at, line)| strange(line).map(|name| format!("line {}: {name} is not in the tree", at + 1));
    text.lines().enumerate().filter_map(fault).collect()
}

fn strange(line: &str) -> Option<String> {
    let of_name = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    let words: Vec<&str> = line.split(|c| !of_name(c)).filter(|word| !word.is_empty()).collect();
    let outside = OUTSIDE.iter().find(|name| line.contains(*name)).copied();
    let page = || words.iter().copied().find(|word| is_missing_page(word));
    let pairs = || words.windows(2).map(|pair| (pair[0], pair[1]));
    // The sections of a standard, and the numbers of etcd's own issues, are anybody's to look up.
    let named = line.contains("RFC") || line.contains("github.com");
    let title = || pairs().find(|pair| is_title(pair.0) && is_section(pair.1) && !named);
    let number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let numbered = |pair: &(&str, &str)| ["section", "sections", "issue"].contains(&pair.0) && number(pair.1);
    let section = || pairs().find(|pair| numbered(pair) && !named);
    let found = outside.or_else(page).or_else(|| title().or_else(section).map(|pair| pair.0));
    let in_brackets = || bracketed_rule(line).filter(|_| !named);
    found.map(str::to_string).or_else(in_brackets)
}

fn is_missing_page(word: &str) -> bool {
    word.len() > 3
        && word.ends_with(".md")
        && !root().join(word).exists()
        && !root().join("src").join(word.trim_start_matches("../")).exists()
}

fn is_title(word: &str) -> bool {
    word.len() >= 4 && word.chars().all(|c| c.is_ascii_uppercase())
}

/// Numbers with points between them.
fn is_section(word: &str) -> bool {
    let mut parts = word.trim_end_matches('.').split('.');
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    parts.next().is_some_and(digits) && parts.clone().next().is_some() && parts.all(digits)
}

/// The number of a rule that stands in brackets in a comment, alone or behind "see".
fn bracketed_rule(line: &str) -> Option<String> {
    let comment = &line[line.find("//")?..];
    let inside = comment.split('(').skip(1).filter_map(|rest| rest.split_once(')')).map(|(inside, _)| inside);
    let is_rule = |inside: &&str| is_section(inside.strip_prefix("see ").unwrap_or(inside));
    inside.filter(is_rule).map(str::to_string).next()
}

/// Every text file of the tree, with its path in it.
fn texts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = super::TOP_LEVEL.iter().map(|entry| root().join(entry)).collect();
    open.extend([".ci", ".cargo"].map(|entry| root().join(entry)));
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.strip_prefix(root()).unwrap().display().to_string(), text));
        }
    }
    found
}

/// The text of a page without its program and without what is drawn.
fn prose(page: &str) -> String {
    let text = fs::read_to_string(root().join("src").join(page)).unwrap();
    let line = |line: &str| match page.ends_with(".rs") {
        true => line.strip_prefix("//!").map(|rest| rest.strip_prefix(' ').unwrap_or(rest).to_string()),
        false => Some(line.to_string()),
    };
    let mut drawn = false;
    let mut is_prose = |line: &String| {
        let fence = line.starts_with("```");
        drawn ^= fence;
        !drawn && !fence
    };
    text.lines().filter_map(line).filter(|line| is_prose(line)).collect::<Vec<_>>().join("\n")
}

/// What stands between backticks.
fn spans(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// What is wrong with a pointer such as `log/writer.rs: written`; other spans are none.
fn check_span(span: &str) -> Vec<String> {
    let (path, names) = span.split_once(':').unwrap_or((span, ""));
    let is_path = path.contains('/') && !path.contains(char::is_whitespace);
    let of_tree =
        is_path && ["tests/", "tools/", "bench/", "src/", ".ci/"].iter().any(|top| path.starts_with(top));
    if !path.ends_with(".rs") && !of_tree || path == "file.rs" {
        return vec![];
    }
    let places = [root().join("src").join(path), root().join(path)];
    let Some(file) = places.iter().find(|place| place.exists()) else {
        return vec![format!("{path} is not in the tree")];
    };
    let source = fs::read_to_string(file).unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.filter(|name| !defines(&source, name)).map(|name| format!("{path} has no {name}")).collect()
}

fn defines(source: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    KINDS.iter().any(|kind| {
        let definition = format!("{kind} {name}");
        source.match_indices(&definition).any(|(at, found)| ends(&source[at + found.len()..]))
    })
}

/// The first drawing behind a heading, line by line: what stands before two spaces, as words.
fn drawn_behind(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("src").join(page)).unwrap();
    let lines = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let drawing =
        lines.skip_while(|line| *line != heading).skip_while(|line| !line.starts_with("```")).skip(1);
    let words = |line: &str| line.split("  ").next().unwrap_or("").split(' ').map(str::to_string).collect();
    drawing.take_while(|line| !line.starts_with("```")).map(words).collect()
}

#[test]
fn pages_that_are_not_in_the_tree_are_not_pointed_to() {
    let hidden = concat!("DES", "IGN");
    let words = |parts: &[&str]| parts.join(" ");
    for (line, name) in [
        (words(&["PLAN", concat!("2", ".4")]), "PLAN"),
        (words(&["PLAN", concat!("2", ".1.7")]), "PLAN"),
        (format!("{hidden} 2"), hidden),
        (["see `other", "md` there"].join("."), &["other", "md"].join(".")),
        (words(&["section", concat!("3", " says")]), "section"),
        (words(&["as issue", concat!("8", " asks")]), "issue"),
        (["// one queue (2", "1.7)"].join("."), &["2", "1.7"].join(".")),
        (["// one queue (see 2", "4)"].join("."), &["see 2", "4"].join(".")),
        (["the page of hard", "spots"].join("-"), OUTSIDE[1]),
    ] {
        assert_eq!(check_pointers(&line), [format!("line 1: {name} is not in the tree")]);
    }
    for line in [
        "`tuning.md` says",
        "`protocol.md` beside it",
        "HTTP/1.1 and RFC 9113, section 5.4",
        "version 3.7",
        "NOSPACE at 2.",
        "call(2.5)",
    ] {
        assert_eq!(check_pointers(line), Vec::<String>::new());
    }
    let texts = texts();
    assert!(
        ["src/lib.rs", "tools/mutants", "tests/mutants/torn-tail.patch", "README.md", ".ci/run"]
            .iter()
            .all(|path| texts.iter().any(|(found, _)| found == path))
    );
    let faults = texts.iter().flat_map(|(path, text)| {
        check_pointers(text).into_iter().map(move |fault| format!("{path}: {fault}"))
    });
    assert_eq!(faults.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn what_the_pages_name_is_in_the_tree() {
    for (span, fault) in [
        ("log/writer.rs: written", None),
        ("tools/mutants", None),
        ("tests/braid/layers/pages.rs", None),
        ("settled", None),
        ("log/writer.rs: writ", Some("log/writer.rs has no writ")),
        ("log/wrote.rs: written", Some("log/wrote.rs is not in the tree")),
        ("tools/mutant", Some("tools/mutant is not in the tree")),
    ] {
        assert_eq!(check_span(span), fault.into_iter().map(str::to_string).collect::<Vec<_>>());
    }
    for page in PAGES {
        let prose = prose(page);
        let pointers = spans(&prose).filter(|span| span.contains(".rs: ")).count();
        assert!(pointers > 10, "{page} points to {pointers} places");
        let faults: Vec<String> = spans(&prose).flat_map(check_span).collect();
        assert_eq!(faults, Vec::<String>::new(), "src/{page}");
    }
}

#[test]
fn the_architecture_page_shows_the_layers_as_they_are() {
    let is_there =
        |top: &&&str| ["", "/mod"].iter().any(|end| root().join(format!("src/{top}{end}.rs")).exists());
    let there = |modules: &&[&str]| modules.iter().filter(is_there).map(|top| top.to_string()).collect();
    let layers: Vec<Vec<String>> = LAYERS.iter().map(there).collect();
    assert_eq!(drawn_behind("lib.rs", "# Layers"), layers);
}

/// What a module must not know, by the names that its program uses.
fn check_absent(path: &str, source: &str) -> Vec<String> {
    let module = module_of(path);
    let top = module.first().map_or("lib", String::as_str);
    let is_test = module.iter().any(|name| name == "tests");
    let Some((_, absent)) = ABSENT.iter().find(|(of, _)| *of == top && !is_test) else { return vec![] };
    let tokens = program_tokens(source);
    let known = tokens.iter().filter(|token| absent.contains(&token.text.as_str()));
    known.map(|token| format!("line {}: {top} knows no {}", token.line, token.text)).collect()
}

#[test]
fn a_module_knows_nothing_of_what_is_said_to_be_absent() {
    let seen = check_absent("mvcc/store.rs", "use crate::types::{Revision,\nTerm};");
    assert_eq!(seen, ["line 2: mvcc knows no Term"]);
    assert_eq!(check_absent("mvcc/tests.rs", "use crate::types::Term;"), Vec::<String>::new());
    assert!(ABSENT.iter().all(|(top, _)| place(top).is_some()));
    for (path, source) in sources("src") {
        assert_eq!(check_absent(&path, &source), Vec::<String>::new(), "src/{path}");
    }
}
