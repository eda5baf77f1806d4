//! How densely a module asserts its invariants in release.
//!
//! One assertion in ten lines is the aim where the protocol runs. No module is quite there: what comes from clients,
//! disks, peers or time is answered by an error and never asserted (recovery and formats in `log`, readers in
//! `checkpoint`, checks in `raft` and `txn`), and pages, figures, words of the operator's log and tables of types, a
//! sixth of `reactor`, hold nothing that could be wrong there. What is asserted costs no more than a comparison of
//! what is at hand where requests run, and loops only where something loops anyway or seldom.

use super::lexer::{Token, program_tokens};
use super::paths::sign;
use super::{module_of, sources};
use std::collections::BTreeSet;

/// Lines of program for each assertion, at most. Who asserts more lowers the number: what was reached stays.
const LINES_PER_ASSERTION: &[(&str, usize)] = &[
    ("raft", 16),
    ("log", 23),
    ("takeover", 20),
    ("sequencer", 17),
    ("shard", 17),
    ("checkpoint", 26),
    ("mvcc", 26),
    // What a state must be is a list (`Control::misfit`, `Members::fault`), which is asserted as one: another member
    // may have given it.
    ("control", 41),
    ("lease", 22),
    ("txn", 31),
    ("reactor", 40),
];
const ASSERTIONS: &[&str] = &["assert", "assert_eq", "assert_ne", "panic", "unreachable"];

/// Lines that hold something of the program, and assertions in them. What only tests compile does not count,
/// nor what is checked in debug builds alone.
fn count(tokens: &[Token]) -> (usize, usize) {
    let lines: BTreeSet<usize> = tokens.iter().map(|token| token.line).collect();
    let asserts = (0..tokens.len())
        .filter(|at| ASSERTIONS.contains(&tokens[*at].text.as_str()) && sign(tokens, at + 1, "!"));
    (lines.len(), asserts.count())
}

fn check(module: &str, most: usize, (lines, assertions): (usize, usize)) -> Option<String> {
    let now = lines.div_ceil(assertions.max(1));
    let said = format!("{module} has {lines} lines and {assertions} assertions, one for each {now} lines");
    match () {
        () if now > most => Some(format!("{said}: {most} are the most")),
        () if now * 5 < most * 4 => Some(format!("{said}: write this number instead of {most}")),
        () => None,
    }
}

#[test]
fn invariants_are_asserted_as_densely_as_before() {
    let sources: Vec<_> = sources("src")
        .into_iter()
        .map(|(path, source)| (module_of(&path), source))
        .filter(|(module, _)| {
            module.iter().all(|name| !["tests", "loom_tests", "transcripts"].contains(&&name[..]))
        })
        .collect();
    let faults = LINES_PER_ASSERTION.iter().filter_map(|(module, most)| {
        let of_module = sources.iter().filter(|(path, _)| path.first().is_some_and(|name| name == module));
        let counted = of_module.map(|(_, source)| count(&program_tokens(source)));
        check(module, *most, counted.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)))
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_module_that_asserts_less_than_it_did_is_found() {
    let source = "fn f() {\n    // assert!(no);\n    assert!(a); debug_assert!(b);\n\n    panic!(\"c\");\n}\n\
                  #[cfg(test)]\nmod tests {\n    fn f() { assert!(d) }\n}\n";
    assert_eq!(count(&program_tokens(source)), (4, 2));
    assert_eq!(check("raft", 20, (200, 10)), None);
    assert!(check("raft", 20, (201, 10)).is_some_and(|fault| fault.contains("20 are the most")));
    assert!(check("raft", 20, (200, 13)).is_none());
    assert!(check("raft", 20, (200, 14)).is_some_and(|fault| fault.contains("instead of 20")));
}
