//! Messages as text and as protobuf.
//!
//! ```text
//! key:"a" limit:2 sort_order:DESCEND               fields, by their proto names
//! success:{request_put:{key:"k" value:"v"}}         a message inside
//! value:"x"*1000000                                 a string repeated
//! success*129:{request_range:{key:"k{i}"}}          a field repeated; {i} counts from 1, {i:3} is 001
//! lease:$lease1                                     a value an earlier answer named
//! ```
//!
//! Every field that is written is encoded, zero or not, so a script can set a member of a oneof to its zero.
//! An answer is shown in the order of the field numbers, zeros left out as proto3 leaves them out.

use crate::names::Names;
use crate::schema::{Field, Kind, Schema};

/// A string longer than this, and of one byte repeated, is shown as `"x"*count`.
const RUN_SHOWN_MAX: usize = 64;
/// A longer string of other kinds is cut, with its length and checksum.
const TEXT_SHOWN_MAX: usize = 512;

const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_LENGTH: u64 = 2;
const WIRE_FIXED32: u64 = 5;

/// Encodes `text` as the fields of `message`; `index` is what `{i}` stands for.
pub fn encode(
    schema: &Schema,
    names: &mut Names,
    message: &str,
    text: &str,
    index: usize,
) -> Result<Vec<u8>, String> {
    let mut reader = Reader { schema, names, text: text.as_bytes(), at: 0, index };
    let bytes = reader.fields(message)?;
    reader.skip_space();
    if reader.at < reader.text.len() {
        return Err(format!("stray text: {}", &text[reader.at..]));
    }
    Ok(bytes)
}

struct Reader<'a> {
    schema: &'a Schema,
    names: &'a mut Names,
    text: &'a [u8],
    at: usize,
    index: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            let rest = String::from_utf8_lossy(&self.text[self.at..]).into_owned();
            return Err(format!("expected {:?} before: {rest}", byte as char));
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_-$".contains(&byte)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }

    fn fields(&mut self, message: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.peek(), None | Some(b'}')) {
                return Ok(bytes);
            }
            let name = self.word();
            let field = self.schema.fields(message).iter().find(|field| field.name == name);
            let field = field.ok_or_else(|| format!("{message} has no field {name:?}"))?.clone();
            let mut times = 1;
            let repeated = self.peek() == Some(b'*');
            if repeated {
                self.at += 1;
                times = self.word().parse().map_err(|_| format!("{name}* wants a count"))?;
            }
            self.expect(b':')?;
            let (value_at, outer) = (self.at, self.index);
            for turn in 1..=times {
                self.at = value_at;
                self.index = if repeated { turn } else { outer };
                self.value(&field, &mut bytes)?;
            }
            self.index = outer;
        }
    }

    fn value(&mut self, field: &Field, bytes: &mut Vec<u8>) -> Result<(), String> {
        let content = match &field.kind {
            Kind::Message(inner) => {
                self.expect(b'{')?;
                let content = self.fields(inner)?;
                self.expect(b'}')?;
                content
            }
            Kind::Bytes | Kind::Text => self.string()?,
            _ => {
                let word = self.word();
                let number = self.number(field, &word)?;
                put_varint(bytes, field.number << 3 | WIRE_VARINT);
                put_varint(bytes, number);
                return Ok(());
            }
        };
        put_varint(bytes, field.number << 3 | WIRE_LENGTH);
        put_varint(bytes, content.len() as u64);
        bytes.extend_from_slice(&content);
        Ok(())
    }

    fn number(&mut self, field: &Field, word: &str) -> Result<u64, String> {
        if word == "$i" {
            return Ok(self.index as u64);
        }
        if word.starts_with('$') {
            let value = self.names.value(word).ok_or_else(|| format!("nothing is named {word} yet"))?;
            return number_of(value).ok_or_else(|| format!("{word} is not a number"));
        }
        self.names.written(field.mask.as_deref(), word);
        let number = match &field.kind {
            Kind::Bool => match word {
                "true" => Some(1),
                "false" => Some(0),
                _ => None,
            },
            Kind::Enum(name) => {
                self.schema.enum_number(name, word).map(|number| number as u64).or_else(|| number_of(word))
            }
            _ => number_of(word),
        };
        number.ok_or_else(|| format!("{}: {word:?} is not a value of it", field.name))
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        if self.peek() == Some(b'$') {
            let name = self.word();
            let value = self.names.value(&name).ok_or_else(|| format!("nothing is named {name} yet"))?;
            return Ok(value.as_bytes().to_vec());
        }
        self.expect(b'"')?;
        let start = self.at;
        while self.peek().is_some_and(|byte| byte != b'"') {
            self.at += if self.peek() == Some(b'\\') { 2 } else { 1 };
        }
        let quoted = self.text.get(start..self.at).ok_or("a string without its end")?;
        let mut content = unescape(&numbered(&String::from_utf8_lossy(quoted), self.index))?;
        self.expect(b'"')?;
        if self.peek() == Some(b'*') {
            self.at += 1;
            let times = self.word().parse().map_err(|_| "a string's * wants a count".to_string())?;
            content = content.repeat(times);
        }
        Ok(content)
    }
}

/// `text` with `{i}` and `{i:width}` replaced by `index`.
pub fn numbered(text: &str, index: usize) -> String {
    let mut shown = text.replace("{i}", &index.to_string());
    for width in 1..=6 {
        shown = shown.replace(&format!("{{i:{width}}}"), &format!("{index:0width$}"));
    }
    shown
}

fn number_of(word: &str) -> Option<u64> {
    word.parse::<u64>().ok().or_else(|| word.parse::<i64>().ok().map(|number| number as u64))
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'0') => bytes.push(0),
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).map_err(|_| format!("bad escape \\x{digits}"))?);
            }
            Some(other) => bytes.push(other),
            None => return Err("a string ends in a backslash".to_string()),
        }
    }
    Ok(bytes)
}

pub fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// One field as it stood on the wire.
enum Raw<'a> {
    Number(u64),
    Content(&'a [u8]),
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(content)
}

/// The fields of a message in the order of their numbers, or nothing when the bytes are no message.
fn take_fields(mut bytes: &[u8]) -> Option<Vec<(u64, Raw<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let raw = match tag & 7 {
            WIRE_VARINT => Raw::Number(take_varint(&mut bytes)?),
            WIRE_FIXED64 => Raw::Content(take(&mut bytes, 8)?),
            WIRE_FIXED32 => Raw::Content(take(&mut bytes, 4)?),
            WIRE_LENGTH => {
                let length = take_varint(&mut bytes)?;
                Raw::Content(take(&mut bytes, usize::try_from(length).ok()?)?)
            }
            _ => return None,
        };
        fields.push((tag >> 3, raw));
    }
    fields.sort_by_key(|(number, _)| *number);
    Some(fields)
}

/// The contents of every field `number` of a message.
pub fn contents(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    let fields = take_fields(bytes).unwrap_or_default();
    let wanted = fields.into_iter().filter(|(known, _)| *known == number);
    wanted.filter_map(|(_, raw)| if let Raw::Content(content) = raw { Some(content) } else { None }).collect()
}

/// The last number in field `number` of a message; 0 when it is absent.
pub fn number(bytes: &[u8], number: u64) -> u64 {
    let fields = take_fields(bytes).unwrap_or_default();
    let numbers = fields.into_iter().filter(|(known, _)| *known == number).filter_map(|(_, raw)| match raw {
        Raw::Number(value) => Some(value),
        Raw::Content(_) => None,
    });
    numbers.fold(0, |_, value| value)
}

/// One line for each field of `message`.
pub fn show(schema: &Schema, names: &mut Names, message: &str, bytes: &[u8]) -> Vec<String> {
    let Some(fields) = take_fields(bytes) else {
        return vec![format!("not a {message}: {}", quoted(bytes))];
    };
    let mut lines = Vec::new();
    for (number, raw) in fields {
        let field = schema.fields(message).iter().find(|field| field.number == number);
        match (field, raw) {
            (None, Raw::Number(value)) => lines.push(format!("?{number}:{value}")),
            (None, Raw::Content(content)) => lines.push(format!("?{number}:{}", quoted(content))),
            (Some(_), Raw::Number(0)) => {}
            (Some(field), Raw::Number(value)) => lines.push(show_number(schema, names, field, value)),
            (Some(field), Raw::Content(content)) => lines.push(show_content(schema, names, field, content)),
        }
    }
    if message == "ResponseHeader" {
        lines = usual_header(lines);
    }
    for run in lines.chunk_by_mut(|one, next| unordered(one) && unordered(next)) {
        if unordered(&run[0]) {
            run.sort();
        }
    }
    counted(&lines)
}

/// etcd gives these in the order of random ids, or of none.
fn unordered(line: &str) -> bool {
    ["keys:", "members:", "alarms:"].iter().any(|field| line.starts_with(field))
}

/// Most answers carry the same three ids; in full they would bury the revision.
fn usual_header(lines: Vec<String>) -> Vec<String> {
    match lines.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cluster_id:$cluster", "member_id:$member", ref revision @ .., "raft_term:$term"] => {
            std::iter::once("$server").chain(revision.iter().copied()).map(str::to_string).collect()
        }
        _ => lines,
    }
}

/// Equal lines in a row as one, with their number before it.
fn counted(lines: &[String]) -> Vec<String> {
    let runs = lines.chunk_by(|one, next| one == next);
    runs.map(|run| if run.len() == 1 { run[0].clone() } else { format!("{} x {}", run.len(), run[0]) })
        .collect()
}

fn show_number(schema: &Schema, names: &mut Names, field: &Field, value: u64) -> String {
    let signed = value as i64;
    let plain = match &field.kind {
        Kind::Signed => signed.to_string(),
        Kind::Bool => {
            if value == 1 {
                "true".to_string()
            } else {
                value.to_string()
            }
        }
        Kind::Enum(name) => schema.enum_name(name, signed).map_or(signed.to_string(), str::to_string),
        _ => value.to_string(),
    };
    let shown = match &field.mask {
        Some(mask) => names.show(mask, &plain),
        None => plain,
    };
    format!("{}:{shown}", field.name)
}

fn show_content(schema: &Schema, names: &mut Names, field: &Field, content: &[u8]) -> String {
    let shown = match (&field.kind, &field.mask) {
        (Kind::Message(inner), _) => format!("{{{}}}", show(schema, names, inner, content).join(" ")),
        (_, Some(mask)) => names.show(mask, &String::from_utf8_lossy(content)),
        (_, None) => {
            names.learn_lease(content);
            names.replace_in(&quoted(content))
        }
    };
    format!("{}:{shown}", field.name)
}

/// `content` between quotes, with escapes for what is not printable ASCII.
pub fn quoted(content: &[u8]) -> String {
    if content.len() > RUN_SHOWN_MAX && content.iter().all(|byte| *byte == content[0]) {
        return format!("{}*{}", quoted(&content[..1]), content.len());
    }
    let mut shown = String::from("\"");
    for &byte in content.iter().take(TEXT_SHOWN_MAX) {
        match byte {
            b'"' | b'\\' => shown.extend(['\\', byte as char]),
            b'\n' => shown.push_str("\\n"),
            0x20..=0x7e => shown.push(byte as char),
            _ => shown.push_str(&format!("\\x{byte:02x}")),
        }
    }
    shown.push('"');
    if content.len() > TEXT_SHOWN_MAX {
        shown.push_str(&format!("... {} bytes, crc32c {:08x}", content.len(), crc32c::crc32c(content)));
    }
    shown
}
