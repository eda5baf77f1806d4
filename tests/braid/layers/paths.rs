//! Which paths a file names, in `use` trees and in code, resolved to the crate where they are relative.

use super::lexer::Token;

/// A path as its segments. One of this crate begins with `crate`; `*` ends a glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    pub line: usize,
}

impl Path {
    pub fn starts_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len() && self.segments.iter().zip(segments).all(|(a, b)| a == b)
    }
}

/// All paths of a file that is the module `module` of the crate.
pub fn paths(tokens: &[Token], module: &[String]) -> Vec<Path> {
    let mut found = Vec::new();
    let mut inline: Vec<(usize, String)> = Vec::new(); // modules opened in the file, with their depth
    let (mut depth, mut at) = (0, 0);
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        match text {
            "mod" if word(tokens, at + 1) && sign(tokens, at + 2, "{") => {
                depth += 1;
                inline.push((depth, tokens[at + 1].text.clone()));
                at += 3;
                continue;
            }
            "{" => depth += 1,
            "}" => {
                inline.retain(|(opened, _)| *opened < depth);
                depth = usize::saturating_sub(depth, 1);
            }
            _ => {}
        }
        let begins = word(tokens, at) && !follows_path(tokens, at);
        let in_use = text == "use" && begins;
        if in_use || (begins && sign(tokens, at + 1, "::")) || (text == "::" && !follows_word(tokens, at)) {
            let here: Vec<String> =
                module.iter().cloned().chain(inline.iter().map(|(_, name)| name.clone())).collect();
            let start = if in_use { at + 1 } else { at };
            let mut trees = Vec::new();
            let end = tree(tokens, start, Vec::new(), in_use, &mut trees);
            found.extend(trees.into_iter().map(|path| absolute(path, &here)));
            at = end.max(at + 1);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one tree from `at`, adds its leaves, answers the place behind it.
fn tree(tokens: &[Token], at: usize, prefix: Vec<String>, in_use: bool, found: &mut Vec<Path>) -> usize {
    let (mut at, mut segments) = (at, prefix);
    let line = tokens.get(at).map_or(0, |token| token.line);
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        if text == "::" {
            at += 1;
        } else if text == "{" && in_use {
            at += 1;
            while at < tokens.len() && !sign(tokens, at, "}") {
                at = tree(tokens, at, segments.clone(), in_use, found);
                at += usize::from(sign(tokens, at, ","));
            }
            return at + 1;
        } else if word(tokens, at) || (text == "*" && in_use) {
            segments.push(text.to_string());
            at += 1;
            if sign(tokens, at, "as") {
                at += 2;
            }
            if !sign(tokens, at, "::") {
                break;
            }
        } else {
            break;
        }
    }
    if !segments.is_empty() {
        found.push(Path { segments, line });
    }
    at
}

/// Turns `self` and `super` into a path from `crate`.
fn absolute(path: Path, module: &[String]) -> Path {
    let first = path.segments[0].as_str();
    if first != "self" && first != "super" {
        return path;
    }
    let ups = path.segments.iter().take_while(|segment| *segment == "super").count();
    let skip = if first == "self" { 1 } else { ups };
    let base = &module[..module.len().saturating_sub(ups)];
    let crate_root = std::iter::once("crate".to_string());
    let segments =
        crate_root.chain(base.iter().cloned()).chain(path.segments[skip..].iter().cloned()).collect();
    Path { segments, line: path.line }
}

pub fn word(tokens: &[Token], at: usize) -> bool {
    tokens.get(at).is_some_and(|t| t.text.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

pub fn sign(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn follows_path(tokens: &[Token], at: usize) -> bool {
    at > 0 && sign(tokens, at - 1, "::")
}

fn follows_word(tokens: &[Token], at: usize) -> bool {
    at > 0 && (word(tokens, at - 1) || sign(tokens, at - 1, ">"))
}

#[test]
fn paths_are_found_in_trees_and_in_code() {
    let source = "
        use crate::{a, b::{c as d, e::*}};
        use super::f; pub(crate) use super::super::g;
        fn h() { let x = crate::i::j::<u8>(1); ::k::l(); std::fs::read(m); Vec::new(); }
        mod inner { use super::n; }
        use super::o;
    ";
    let module = ["x".to_string(), "y".to_string()];
    let found = paths(&super::lexer::program_tokens(source), &module);
    let texts: Vec<String> = found.iter().map(|path| path.segments.join("::")).collect();
    let expected = [
        "crate::a",
        "crate::b::c",
        "crate::b::e::*",
        "crate::x::f",
        "crate::g",
        "crate::i::j",
        "k::l",
        "std::fs::read",
        "Vec::new",
        "crate::x::y::n",
        "crate::x::o",
    ];
    assert_eq!(texts, expected);
    assert_eq!(found[3].line, 3);
}
