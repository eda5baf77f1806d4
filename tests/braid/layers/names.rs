//! A type's name means one thing: no two types of the program have the same.

use super::lexer::{Token, program_tokens};
use super::{module_of, sources};
use std::collections::BTreeMap;

/// Modules whose names are given from outside: etcd's messages, and the second world, whose types stand in for
/// those of the first.
const APART: &[&str] = &["wire/proto.rs", "sim/"];

fn type_names(tokens: &[Token]) -> impl Iterator<Item = &str> {
    let keyword = |token: &Token| ["struct", "enum", "trait", "union"].contains(&token.text.as_str());
    let names = tokens.windows(2).filter(move |pair| keyword(&pair[0])).map(|pair| pair[1].text.as_str());
    names.filter(|name| name.starts_with(char::is_uppercase))
}

/// The names that several types of the program have, ascending.
fn twice(sources: &[(String, String)]) -> Vec<String> {
    let mut types = BTreeMap::<String, usize>::new();
    for (path, source) in sources {
        let is_test = module_of(path).iter().any(|name| name == "tests");
        if !is_test && !APART.iter().any(|apart| path.starts_with(apart)) {
            for name in type_names(&program_tokens(source)) {
                *types.entry(name.to_string()).or_default() += 1;
            }
        }
    }
    types.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name).collect()
}

#[test]
fn no_second_type_gets_a_name_that_is_taken() {
    let found = twice(&sources("src"));
    assert!(found.is_empty(), "several types have these names: {found:?}");
}

#[test]
fn a_second_type_of_a_name_is_found() {
    let of = |path: &str, source: &str| (path.to_string(), source.to_string());
    let call = of("front/rpc.rs", "pub(super) struct Call { begun: Time }");
    for (path, source, expected) in [
        ("reactor/calls.rs", "enum Call {}", &["Call"][..]),
        ("reactor/calls.rs", "fn f(call: Call) -> Call { call }", &[]),
        ("reactor/calls.rs", "impl Call { fn f() {} } struct Calls;", &[]),
        ("reactor/calls.rs", "#[cfg(test)] mod tests { struct Call; }", &[]),
        ("reactor/tests/calls.rs", "struct Call;", &[]),
        ("sim/client.rs", "struct Call;", &[]),
    ] {
        assert_eq!(twice(&[call.clone(), of(path, source)]), expected, "{path}: {source}");
    }
}
