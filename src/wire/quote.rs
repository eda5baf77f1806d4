//! Go's `%q`, in which grpc-go shows a client its own bytes.

use std::fmt::Write;

/// The bytes in double quotes, with Go's escapes for what cannot be printed.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\u{7}' => text.push_str("\\a"),
                '\u{8}' => text.push_str("\\b"),
                '\u{B}' => text.push_str("\\v"),
                '\u{C}' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c < ' ' || c == '\u{7F}' => hex(&mut text, c as u8),
                c if c.is_control() => write!(text, "\\u{:04x}", c as u32).expect("a string takes all"),
                c => text.push(c),
            }
        }
        for &byte in chunk.invalid() {
            hex(&mut text, byte);
        }
    }
    text.push('"');
    text
}

fn hex(text: &mut String, byte: u8) {
    write!(text, "\\x{byte:02x}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_show_as_go_shows_them() {
        assert_eq!(quoted(b"plain"), r#""plain""#);
        assert_eq!(quoted("ü\u{85}".as_bytes()), "\"ü\\u0085\"");
        assert_eq!(quoted(b"a\"\\\x00\x7f\xff\n"), r#""a\"\\\x00\x7f\xff\n""#);
    }
}
