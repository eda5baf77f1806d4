//! The list of steps that are meant to answer differently than recorded.
//!
//! ```text
//! # A comment.
//! compact.txt: KV.Compact revision:0 (2)
//!   Why this server answers otherwise.
//! not yet gateway.txt: *
//!   What is not built.
//! ```
//!
//! An entry names a file and a request as one line; `(2)` is its second occurrence in the file, without a
//! number it is the first. A step that is only `not yet` may end with `*`: every request that begins so. The
//! list is exact: a step that differs and is not listed is an error, and so is an entry that no step needs.

use std::collections::BTreeMap;

pub struct Listed {
    entries: Vec<Entry>,
}

struct Entry {
    /// As written, for whoever has to mend the list.
    written: String,
    file: String,
    request: String,
    /// None: all that begin with `request`.
    occurrence: Option<usize>,
}

impl Entry {
    fn names(&self, step: &Differing) -> bool {
        match self.occurrence {
            None => step.request.starts_with(&self.request),
            Some(occurrence) => step.request == self.request && step.occurrence == occurrence,
        }
    }
}

/// A step that answered differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Differing {
    pub request: String,
    /// How many steps of the file had the same request up to here.
    pub occurrence: usize,
}

impl Listed {
    pub fn parse(text: &str) -> Result<Listed, String> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines =
            text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).peekable();
        while let Some(line) = lines.next() {
            let mut has_reason = false;
            while lines.next_if(|next| next.starts_with(' ')).is_some() {
                has_reason = true;
            }
            if !has_reason {
                return Err(format!("without a reason: {line}"));
            }
            entries.push(entry(line).ok_or_else(|| format!("not an entry: {line}"))?);
        }
        Ok(Listed { entries })
    }

    /// What of a file is not as listed: steps that are missing here, entries that no step needs.
    pub fn faults(&self, file: &str, differing: &[Differing]) -> Vec<String> {
        let entries: Vec<&Entry> = self.entries.iter().filter(|entry| entry.file == file).collect();
        let unlisted = differing.iter().filter(|step| !entries.iter().any(|entry| entry.names(step)));
        let unneeded = entries.iter().filter(|entry| !differing.iter().any(|step| entry.names(step)));
        let unlisted = unlisted.map(|step| format!("not listed: {} ({})", step.request, step.occurrence));
        unlisted
            .chain(unneeded.map(|entry| format!("listed, and does not differ: {}", entry.written)))
            .collect()
    }
}

fn entry(line: &str) -> Option<Entry> {
    let (is_open, named) = match line.strip_prefix("not yet ") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (file, step) = named.split_once(": ")?;
    let (request, occurrence) = match step.strip_suffix('*') {
        Some(start) if is_open => (start, None),
        _ => match step.rsplit_once(" (").and_then(|(request, n)| Some((request, n.strip_suffix(')')?))) {
            Some((request, n)) if n.bytes().all(|byte| byte.is_ascii_digit()) => {
                (request, Some(n.parse().ok()?))
            }
            _ => (step, Some(1)),
        },
    };
    Some(Entry {
        written: line.to_string(),
        file: file.to_string(),
        request: request.to_string(),
        occurrence,
    })
}

/// Counts the steps of a file by their requests.
#[derive(Default)]
pub struct Occurrences(BTreeMap<String, usize>);

impl Occurrences {
    /// The next step has this request.
    pub fn step(&mut self, request: &str) -> Differing {
        let occurrence = self.0.entry(request.to_string()).or_default();
        *occurrence += 1;
        Differing { request: request.to_string(), occurrence: *occurrence }
    }
}
