//! What the command lines of the programs have in common. Errors are sentences for the user.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The arguments without the `--` that the cargo alias ends with already: given once more it comes here.
pub fn behind_alias(args: &[String]) -> &[String] {
    args.strip_prefix(&["--".to_owned()]).unwrap_or(args)
}

pub fn number<T: FromStr + PartialOrd + Display>(name: &str, text: &str, least: T) -> Result<T, String> {
    match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("{name} takes a number from {least} on, not {text:?}")),
    }
}

pub fn seconds(name: &str, text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("{name} takes seconds, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alias_is_taken_off_once() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
        assert_eq!(behind_alias(&words("-- put --")), words("put --"));
        assert_eq!(behind_alias(&words("put -- x")), words("put -- x"));
        assert_eq!(behind_alias(&[]), words(""));
    }

    #[test]
    fn values_are_read_or_refused_by_name() {
        assert_eq!(number("--rate", "7", 1), Ok(7));
        assert_eq!(number("--scale", "0.5", 0.001), Ok(0.5));
        assert_eq!(seconds("--window", "1.5"), Ok(Duration::from_millis(1500)));
        let refused = Err("--rate takes a number from 1 on, not \"0\"".to_owned());
        assert_eq!(number("--rate", "0", 1), refused);
        for text in ["", "x", "-1", "1e30"] {
            assert!(number("--rate", text, 1).is_err(), "{text:?}");
            assert_eq!(seconds("--window", text), Err(format!("--window takes seconds, not {text:?}")));
        }
        assert!(number("--scale", "NaN", 0.001).is_err());
    }
}
