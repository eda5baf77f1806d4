//! A transcript: requests and the answers they had, in one file that a person can read.
//!
//! ```text
//! flags: --max-txn-ops=10                first line, if any: flags for the server of this transcript
//! members: 3                             next line, if any: it has so many members, and a follower is asked
//!
//! # A comment stays where it is.
//! KV.Put key:"a"
//!   value:"1"                            an indented line goes on with the request
//! ----
//! header:{$server revision:2}            the answer, up to an empty line
//! ```

pub enum Item {
    /// A comment or an empty line.
    Other(String),
    Step(Step),
}

pub struct Step {
    /// Number of its first line, from 1.
    pub line: usize,
    /// The request as written, one entry per line.
    pub written: Vec<String>,
    pub answer: Vec<String>,
}

impl Step {
    pub fn request(&self) -> String {
        let lines: Vec<&str> = self.written.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }
}

pub struct Transcript {
    pub flags: String,
    pub members: usize,
    pub items: Vec<Item>,
}

impl Transcript {
    pub fn parse(text: &str) -> Transcript {
        let mut items = Vec::new();
        let mut lines = text.lines().enumerate().peekable();
        let mut head = |name: &str| {
            let (_, line) = lines.next_if(|(_, line)| line.starts_with(name))?;
            Some(line[name.len()..].trim().to_string())
        };
        let flags = head("flags:").unwrap_or_default();
        let members = head("members:").and_then(|count| count.parse().ok()).unwrap_or(1);
        while let Some((number, line)) = lines.next() {
            if line.trim().is_empty() || line.starts_with('#') {
                items.push(Item::Other(line.to_string()));
                continue;
            }
            let mut step = Step { line: number + 1, written: vec![line.to_string()], answer: Vec::new() };
            while let Some((_, more)) = lines.next_if(|(_, next)| next.starts_with(' ')) {
                step.written.push(more.to_string());
            }
            if lines.next_if(|(_, next)| *next == "----").is_some() {
                while let Some((_, more)) = lines.next_if(|(_, next)| !next.is_empty()) {
                    step.answer.push(more.to_string());
                }
            }
            items.push(Item::Step(step));
        }
        Transcript { flags, members, items }
    }

    /// The file's text. An empty line follows every answer; a step without an answer has no rule either.
    pub fn print(&self) -> String {
        let mut lines = Vec::new();
        if !self.flags.is_empty() {
            lines.push(format!("flags: {}", self.flags));
        }
        if self.members > 1 {
            lines.push(format!("members: {}", self.members));
        }
        let mut answered = false;
        for item in &self.items {
            match item {
                Item::Other(line) => {
                    if answered && !line.is_empty() {
                        lines.push(String::new());
                    }
                    lines.push(line.clone());
                    answered = false;
                }
                Item::Step(step) => {
                    if answered {
                        lines.push(String::new());
                    }
                    lines.extend(step.written.iter().cloned());
                    answered = !step.answer.is_empty();
                    if answered {
                        lines.push("----".to_string());
                        lines.extend(step.answer.iter().cloned());
                    }
                }
            }
        }
        lines.join("\n") + "\n"
    }
}

/// The lines of two answers side by side: `-` recorded only, `+` had now, two spaces both.
pub fn differences(recorded: &[String], had: &[String]) -> Vec<String> {
    // Lengths of the longest common subsequence of every pair of tails.
    let mut common = vec![vec![0; had.len() + 1]; recorded.len() + 1];
    for old in (0..recorded.len()).rev() {
        for new in (0..had.len()).rev() {
            common[old][new] = if recorded[old] == had[new] {
                common[old + 1][new + 1] + 1
            } else {
                common[old + 1][new].max(common[old][new + 1])
            };
        }
    }
    let (mut old, mut new) = (0, 0);
    let mut lines = Vec::new();
    while old < recorded.len() || new < had.len() {
        if old < recorded.len() && new < had.len() && recorded[old] == had[new] {
            lines.push(format!("    {}", recorded[old]));
            (old, new) = (old + 1, new + 1);
        } else if new == had.len() || (old < recorded.len() && common[old + 1][new] >= common[old][new + 1]) {
            lines.push(format!("  - {}", recorded[old]));
            old += 1;
        } else {
            lines.push(format!("  + {}", had[new]));
            new += 1;
        }
    }
    lines
}
