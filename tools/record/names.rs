//! Names for what differs from run to run.
//!
//! A value under a mask is written as a name, so that two runs can be compared and equality within a run
//! still shows: the first cluster id seen is `$cluster`, a different one would be `$cluster2`. Sizes, terms
//! and indices are only known to be there. The id of a lease is a name only when the server chose it; one
//! that a request wrote out is left as it is. The time a lease has left is `$ttl` when it is positive.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Names {
    /// Value by name, in both directions.
    values: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    /// How many names each mask has given.
    given: BTreeMap<String, usize>,
    /// Lease ids that requests wrote out.
    written: BTreeSet<String>,
}

impl Names {
    /// The value a `$name` in a request stands for.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A request wrote `value` in a field under `mask`.
    pub fn written(&mut self, mask: Option<&str>, value: &str) {
        if mask == Some("lease") && !self.names.contains_key(value) {
            self.written.insert(value.to_string());
        }
    }

    /// What to show for a non-zero `value` under `mask`.
    pub fn show(&mut self, mask: &str, value: &str) -> String {
        match mask {
            "term" | "index" | "size" | "hash" => format!("${mask}"),
            "ttl" if value.starts_with('-') => value.to_string(),
            "ttl" => "$ttl".to_string(),
            "url" => "$url".to_string(),
            "lease" if self.written.contains(value) => value.to_string(),
            _ => self.name(mask, value),
        }
    }

    fn name(&mut self, mask: &str, value: &str) -> String {
        if let Some(name) = self.names.get(value) {
            return name.clone();
        }
        let given = self.given.entry(mask.to_string()).or_default();
        *given += 1;
        let name = match (mask, *given) {
            ("lease", nth) => format!("$lease{nth}"),
            (_, 1) => format!("${mask}"),
            (_, nth) => format!("${mask}{nth}"),
        };
        self.names.insert(value.to_string(), name.clone());
        self.values.insert(name.clone(), value.to_string());
        name
    }

    /// `text` with every long number that has a name replaced by it, in decimal and in hexadecimal.
    pub fn replace_in(&self, text: &str) -> String {
        let mut shown = text.to_string();
        for (value, name) in self.names.iter().filter(|(value, _)| value.len() > 9) {
            shown = shown.replace(value.as_str(), name);
            if let Ok(number) = value.parse::<u64>() {
                shown = shown.replace(&format!("{number:x}"), &format!("{name}.hex"));
            }
        }
        match shown.split_once("\"raft_term\":\"") {
            Some((before, after)) => {
                let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
                format!("{before}\"raft_term\":\"$term{after}")
            }
            None => shown,
        }
    }

    /// A key that ends in the id of a lease, as those of locks and elections do, may be the first to tell it.
    pub fn learn_lease(&mut self, key: &[u8]) {
        let last = key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let text = std::str::from_utf8(last).unwrap_or_default();
        if let (12..=16, Ok(id)) = (text.len(), i64::from_str_radix(text, 16)) {
            self.show("lease", &id.to_string());
        }
    }
}
