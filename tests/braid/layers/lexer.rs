//! Rust source as a flat list of words and signs: without comments, strings and what only tests compile.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// An identifier, `::`, or a single sign. A string or character literal is `"`.
    pub text: String,
    pub line: usize,
}

/// The tokens that the program itself is made of.
pub fn program_tokens(source: &str) -> Vec<Token> {
    without_tests(tokens(source))
}

fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let rest = &chars[at..];
        let (length, text) = match rest {
            ['/', '/', ..] => (rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()), None),
            ['/', '*', ..] => (block_comment(rest), None),
            ['r', '"', ..] | ['r', '#', '"' | '#', ..] => (raw_string(rest), Some("\"".to_string())),
            ['b', 'r', '"' | '#', ..] => (1 + raw_string(&rest[1..]), Some("\"".to_string())),
            ['"', ..] => (quoted(rest), Some("\"".to_string())),
            ['\'', '\\', ..] => (quoted(rest), Some("\"".to_string())),
            ['\'', _, '\'', ..] => (3, Some("\"".to_string())),
            [':', ':', ..] => (2, Some("::".to_string())),
            [c, ..] if c.is_whitespace() => (1, None),
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let end = rest.iter().position(|c| !c.is_alphanumeric() && *c != '_').unwrap_or(rest.len());
                (end, Some(rest[..end].iter().collect()))
            }
            [c, ..] => (1, Some(c.to_string())),
            [] => unreachable!("the loop ends at the last character"),
        };
        found.extend(text.map(|text| Token { text, line }));
        line += rest[..length].iter().filter(|c| **c == '\n').count();
        at += length;
    }
    found
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `r"…"` or `r#"…"#` from its `r`.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 1 + hashes; // a raw identifier
    }
    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = 2 + hashes;
    let found = rest[body..].windows(closing.len()).position(|window| window == closing);
    found.map_or(rest.len(), |at| body + at + closing.len())
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != rest[0] {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Drops every item behind an attribute `#[cfg(…test…)]` or `#[test]`, unless the test is negated.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !is(&tokens, at, "#") || !is(&tokens, at + 1, "[") {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = closing(&tokens, at + 1);
        let names = |name: &str| tokens[at..end].iter().any(|token| token.text == name);
        let cfg = is(&tokens, at + 2, "cfg") && names("test") && !names("not") && !names("any");
        if cfg || (is(&tokens, at + 2, "test") && is(&tokens, at + 3, "]")) {
            at = end_of_item(&tokens, end);
        } else {
            kept.extend_from_slice(&tokens[at..end]);
            at = end;
        }
    }
    kept
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

/// The place behind the bracket that closes the one at `open`.
pub fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn end_of_item(tokens: &[Token], from: usize) -> usize {
    let mut at = from;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "{" => {
                let behind = closing(tokens, at);
                // `use a::{b};` ends behind its semicolon, a body without one.
                return if is(tokens, behind, ";") { behind + 1 } else { behind };
            }
            "(" | "[" => at = closing(tokens, at),
            _ => at += 1,
        }
    }
    at
}

#[test]
fn comments_strings_and_tests_are_no_part_of_the_program() {
    let source = r##"
        // one
        /* two /* three */ four */
        const A: &str = "five \" six"; const B: &str = r#"seven " eight"#; const C: char = '"';
        const D: char = '\''; fn nine<'a>(x: &'a u8) {}
        #[cfg(test)] mod tests { fn ten() { eleven(); } }
        #[cfg(test)] mod twelve;
        #[cfg(all(test, loom))] use thirteen::{a, b};
        #[test] fn fourteen() { a[0]; }
        fn fifteen() {}
    "##;
    let words: Vec<String> = program_tokens(source).into_iter().map(|token| token.text).collect();
    for gone in ["one", "two", "three", "four", "five", "six", "seven", "eight", "ten", "eleven", "twelve"] {
        assert!(!words.contains(&gone.to_string()), "{gone}");
    }
    for gone in ["thirteen", "fourteen"] {
        assert!(!words.contains(&gone.to_string()), "{gone}");
    }
    assert!(words.contains(&"nine".to_string()) && words.contains(&"fifteen".to_string()), "{words:?}");
    let line = program_tokens(source).into_iter().find(|token| token.text == "fifteen").unwrap().line;
    assert_eq!(line, 10);
}
