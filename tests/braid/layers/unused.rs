//! What nobody names. The compiler tells of it only where it is not `pub`: what can be reached from the crate's
//! root might be used by another crate, and there is none beside our own tools.

use super::lexer::{Token, program_tokens};
use super::{module_of, sources};
use std::collections::BTreeMap;

const KINDS: &[&str] = &["fn", "const", "static", "type", "struct", "enum", "trait"];
const MODIFIERS: &[&str] = &["const", "unsafe", "async"];
/// All of etcd's messages as its clients have them, with which tests compare both ways of the wire.
const MESSAGES: &str = "wire/proto.rs";

/// The name that an item has which others may use, where one begins at a token.
fn defined(tokens: &[Token], at: usize) -> Option<&Token> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    if text(at) != "pub" {
        return None;
    }
    let mut at = if text(at + 1) == "(" { super::closing(tokens, at + 1) } else { at + 1 };
    while MODIFIERS.contains(&text(at))
        && (MODIFIERS.contains(&text(at + 1)) || KINDS.contains(&text(at + 1)))
    {
        at += 1;
    }
    KINDS.contains(&text(at)).then(|| tokens.get(at + 1)).flatten()
}

/// Items of the sources that are named where they are defined and nowhere else.
fn unused(sources: &[(String, Vec<Token>)], others: &[Vec<Token>]) -> Vec<String> {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for token in sources.iter().map(|(_, tokens)| tokens).chain(others).flatten() {
        *named.entry(&token.text).or_default() += 1;
    }
    let items = sources.iter().filter(|(path, _)| path != MESSAGES).flat_map(|(path, tokens)| {
        (0..tokens.len()).filter_map(move |at| defined(tokens, at).map(|name| (path, name)))
    });
    let alone = items.filter(|(_, name)| named[&name.text[..]] == 1);
    alone.map(|(path, name)| format!("{path}:{}: nothing uses {}", name.line, name.text)).collect()
}

#[test]
fn nothing_is_public_that_nobody_names() {
    let program = |path: &str| {
        module_of(path)
            .iter()
            .all(|name| !["tests", "loom_tests", "transcripts", "differential"].contains(&&name[..]))
    };
    let ours: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, _)| program(path))
        .map(|(path, source)| (path, program_tokens(&source)))
        .collect();
    let others = ["tests", "tools", "bench"].into_iter().flat_map(sources);
    let others: Vec<_> = others.map(|(_, source)| program_tokens(&source)).collect();
    let faults = unused(&ours, &others);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn an_item_that_only_its_test_names_is_found() {
    let source = "pub const fn a() {}\npub(super) const B: u8 = 0;\npub struct C;\nfn d() { a(); }\n\
                  #[cfg(test)]\nmod tests {\n    fn f() { B; C }\n}\n";
    let ours = [("x.rs".to_owned(), program_tokens(source))];
    assert_eq!(unused(&ours, &[]), ["x.rs:2: nothing uses B", "x.rs:3: nothing uses C"]);
    assert_eq!(unused(&ours, &[program_tokens("fn f() { B; C }")]), [""; 0]);
}
