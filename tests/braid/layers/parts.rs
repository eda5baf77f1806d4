//! Who may see whom inside `reactor`: its parts own their fields and speak by mail, nobody but the router is handed
//! the whole, and what all go by is changed by the router and the epoch alone.

use super::lexer::{Token, program_tokens};
use super::paths::{Path, paths};
use super::{module_of, sources};

/// What all parts stand on.
const GROUND: &[&str] =
    &["turn", "book", "epoch_state", "gate", "pace", "requests", "sizes", "settings", "waiters"];
/// The parts, and what of another one each may name: a borrow that its signatures show, or a view of its own.
const PARTS: &[(&str, &[&str])] = &[
    ("calls", &["shards::Shards"]),
    ("shards", &["storage::Source", "storage::HeldState", "storage::FollowerFigures", "epoch::Driving"]),
    ("storage", &[]),
    ("leader", &[]),
    ("epoch", &["shards::Shards", "shards::LocalShard"]),
    ("peers", &[]),
    ("rounds", &[]),
];
/// The files of the router, which alone has the whole.
const ROUTER: &[&str] =
    &["", "cluster", "control_effects", "effects", "leaving", "members", "picture", "rest", "settings"];
/// Who may change what is read-only for the others, beside the router.
const CHANGES: &[&str] = &["turn", "epoch"];

/// Everything wrong with one file of `reactor`, `path` being relative to `src/`.
fn check(path: &str, source: &str) -> Vec<String> {
    let module = module_of(path);
    let name = module.get(1).map_or("", String::as_str);
    if module.first().is_none_or(|first| first != "reactor")
        || module.iter().any(|name| name == "tests")
        || ROUTER.contains(&name)
    {
        return vec![];
    }
    let tokens = program_tokens(source);
    let may = PARTS.iter().find(|(part, _)| *part == name).map_or(&[][..], |(_, may)| may);
    let strange = |path: &&Path| {
        let [root, reactor, other, rest @ ..] = &path.segments[..] else { return false };
        let inside = root == "crate" && reactor == "reactor" && other != name;
        let part = PARTS.iter().any(|(part, _)| part == other);
        let named = format!("{other}::{}", rest.first().map_or("", String::as_str));
        inside && part && !may.contains(&&named[..])
    };
    let changes = |path: &&Path| {
        let of_turn = path.starts_with(&["crate", "reactor", "turn"]) && !CHANGES.contains(&name);
        of_turn && path.segments.get(3).is_some_and(|name| ["ReadOnly", "*"].contains(&&name[..]))
    };
    let paths = paths(&tokens, &module);
    let faults = paths.iter().filter(|path| strange(path) || changes(path));
    let faults = faults
        .map(|path| format!("line {}: {name} may not see {}", path.line, path.segments[2..].join("::")));
    faults.chain(check_whole(name, &tokens)).collect()
}

/// What is settled has names in `turn`: what the member shows, what the reactor goes by, and the truth. Nobody else
/// asks the sequencer.
fn check_settled(path: &str, source: &str) -> Option<String> {
    let module = module_of(path);
    let outside = module.first().is_none_or(|first| first != "reactor")
        || module.iter().any(|name| name == "tests")
        || module.get(1).is_some_and(|name| name == "turn");
    let tokens = program_tokens(source);
    let asks = tokens.windows(3).find(|tokens| {
        let [of, by, what] = [0, 1, 2].map(|place| &tokens[place].text[..]);
        what == "settled" && matches!((of, by), ("sequencer", ".") | ("Sequencer", "::"))
    });
    let fault = |tokens: &[Token]| format!("line {}: asks the sequencer for what is settled", tokens[2].line);
    asks.filter(|_| !outside).map(fault)
}

fn check_whole(name: &str, tokens: &[Token]) -> Option<String> {
    let whole = tokens.iter().find(|token| token.text == "Reactor")?;
    Some(format!("line {}: {name} is handed the whole reactor", whole.line))
}

#[test]
fn every_part_of_a_reactor_keeps_to_itself() {
    let sources = sources("src");
    let names: Vec<String> = sources.iter().filter_map(|(path, _)| module_of(path).get(1).cloned()).collect();
    for known in GROUND.iter().chain(PARTS.iter().map(|(part, _)| part)) {
        assert!(names.iter().any(|name| name == known), "{known} is in the table, and not in the sources");
    }
    let faults = sources.iter().flat_map(|(path, source)| {
        let faults = check(path, source).into_iter().chain(check_settled(path, source));
        faults.map(move |fault| format!("src/{path}: {fault}"))
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_part_that_sees_another_is_found() {
    let found = |path: &str, source: &str| check(path, source).len();
    assert_eq!(found("reactor/calls/reads.rs", "use super::super::shards::Shards; use super::Turn;"), 0);
    assert_eq!(found("reactor/calls/reads.rs", "use super::super::shards::LocalShard;"), 1);
    assert_eq!(found("reactor/shards/mod.rs", "use super::calls::Calls;"), 1);
    assert_eq!(found("reactor/shards/source.rs", "use super::super::storage::Source;"), 0);
    assert_eq!(found("reactor/storage/mod.rs", "fn f() { crate::reactor::shards::g() }"), 1);
    assert_eq!(found("reactor/leader/mod.rs", "use super::epoch::Epochs;"), 1);
    assert_eq!(found("reactor/leader/mod.rs", "use super::Reactor;"), 1);
    assert_eq!(found("reactor/effects.rs", "use super::Reactor; use super::epoch::Epochs;"), 0);
    assert_eq!(found("reactor/calls/mod.rs", "use super::turn::{ReadOnly, Turn};"), 1);
    assert_eq!(found("reactor/shards/mod.rs", "use super::turn::*;"), 1);
    assert_eq!(found("reactor/epoch/mod.rs", "use super::turn::{ReadOnly, Turn};"), 0);
    assert_eq!(found("reactor/epoch/following.rs", "use super::super::turn::ReadOnly;"), 0);
    assert_eq!(found("reactor/calls/forward.rs", "use crate::reactor::turn::ReadOnly;"), 1);
    assert_eq!(found("reactor/rounds.rs", "use super::shards::Shards;"), 1);
    assert_eq!(found("reactor/peers.rs", "use super::calls::Calls; use super::turn::Turn;"), 1);
    assert_eq!(found("reactor/shards/local.rs", "use super::super::epoch::Epochs;"), 1);
    assert_eq!(found("reactor/cluster.rs", "use super::Reactor; use super::peers::PeerEvent;"), 0);
    assert_eq!(found("reactor/tests.rs", "use super::Reactor;"), 0);
    assert_eq!(found("shell/driver.rs", "use crate::reactor::Reactor;"), 0);
}

#[test]
fn a_part_that_asks_the_sequencer_for_what_is_settled_is_found() {
    let found = |path: &str, source: &str| check_settled(path, source).is_some();
    assert!(found("reactor/calls/reads.rs", "fn f(turn: &Turn) { turn.sequencer.settled() }"));
    assert!(found("reactor/effects.rs", "fn f(of: &Sequencer) { Sequencer::settled(of) }"));
    assert!(!found("reactor/calls/reads.rs", "fn f(turn: &Turn) { turn.shown(); store.settled() }"));
    assert!(!found("reactor/turn.rs", "fn shown(&self) { self.sequencer.settled() }"));
    assert!(!found("shell/driver.rs", "fn f(&self) { self.sequencer.settled() }"));
}
