//! The URLs of members and clients, read as strictly as etcd reads them.

use crate::limits::{MEMBER_URL_BYTES_MAX, MEMBER_URLS_MAX};
use core::net::IpAddr;
use std::fmt;

/// `http://host:port`, kept as it was written: member identities are hashes of the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    host: String,
    port: u16,
}

/// Why a URL is not taken, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlFault {
    /// etcd takes it neither.
    Wrong(String),
    /// Braid cannot serve it yet.
    NotBuilt(String),
}

impl UrlFault {
    fn into_text(self) -> String {
        match self {
            UrlFault::Wrong(text) | UrlFault::NotBuilt(text) => text,
        }
    }
}

impl Url {
    /// Reads one URL. The error is etcd's sentence, or says that TLS or unix sockets are not built yet.
    pub fn parse(text: &str) -> Result<Url, String> {
        Url::read(text).map_err(UrlFault::into_text)
    }

    fn read(text: &str) -> Result<Url, UrlFault> {
        let text = text.trim();
        let scheme_fault =
            || UrlFault::Wrong(format!("URL scheme must be http, https, unix, or unixs: {text}"));
        let not_built = |what: &str| {
            Err(UrlFault::NotBuilt(format!("{what} not built yet, only http can be served: {text}")))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(scheme_fault)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => Url::read_http(text, rest).map_err(UrlFault::Wrong),
            "https" => not_built("TLS is"),
            "unix" | "unixs" => not_built("unix sockets are"),
            _ => Err(scheme_fault()),
        }
    }

    /// Reads what stands behind the scheme of a whole text.
    fn read_http(text: &str, rest: &str) -> Result<Url, String> {
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let parts = host_and_port(authority);
        let (host, port) =
            parts.ok_or_else(|| format!(r#"URL address does not have the form "host:port": {text}"#))?;
        if !tail.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        Ok(Url { text: format!("http://{authority}"), host: host.to_string(), port })
    }

    /// The comma-separated list, sorted and without repetitions; an empty text is an empty list.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<Url>, String>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// The peer URLs of a member as a client gives them, sorted, and one that comes twice kept twice. The error says
    /// what is wrong with them.
    pub fn of_member(texts: &[String]) -> Result<Vec<Url>, UrlFault> {
        let count = texts.len();
        if !(1..=MEMBER_URLS_MAX).contains(&count) {
            let text = format!("a member has from 1 to {MEMBER_URLS_MAX} peer URLs, and these are {count}");
            return Err(UrlFault::Wrong(text));
        }
        if let Some(long) = texts.iter().map(String::len).find(|bytes| *bytes > MEMBER_URL_BYTES_MAX) {
            let text = format!("a peer URL has at most {MEMBER_URL_BYTES_MAX} bytes, and one has {long}");
            return Err(UrlFault::Wrong(text));
        }
        let mut urls = texts.iter().map(|text| Url::read(text)).collect::<Result<Vec<Url>, UrlFault>>()?;
        urls.sort();
        Ok(urls)
    }

    /// The host without the brackets of an IPv6 address; a name, an address, or empty.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// etcd's rule for URLs to listen on: an address or `localhost`, never another name.
    pub(super) fn check_bindable(&self) -> Result<(), String> {
        if self.host == "localhost" || self.host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        Err(format!("expected IP in URL for binding ({self})"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if host.contains([':', '[', ']', '@']) => return None,
        None => host,
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let well_formed = host.bytes().all(|b| b.is_ascii_graphic());
    if digits && well_formed { Some((host, port.parse().ok()?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_read_and_the_text_is_kept() {
        for (text, host, port) in [
            ("http://localhost:2379", "localhost", 2379),
            ("http://10.0.0.1:0", "10.0.0.1", 0),
            ("http://[::1]:65535", "::1", 65535),
            ("http://:80", "", 80),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host(), url.port(), url.as_str()), (host, port, text));
        }
        assert_eq!(Url::parse(" HTTP://a:1 ").unwrap().as_str(), "http://a:1");
    }

    #[test]
    fn what_etcd_refuses_is_refused_in_its_words() {
        for (text, words) in [
            ("localhost:2379", "URL scheme must be"),
            ("ftp://a:1", "URL scheme must be"),
            ("http://a", r#"does not have the form "host:port""#),
            ("http://a:65536", r#"does not have the form "host:port""#),
            ("http://a:x", r#"does not have the form "host:port""#),
            ("http://::1:80", r#"does not have the form "host:port""#),
            ("http://[::1:80", r#"does not have the form "host:port""#),
            ("http://a:1/", "must not contain a path"),
            ("https://a:1", "TLS is not built yet"),
            ("unix://a:1", "unix sockets are not built yet"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_is_sorted_and_unique() {
        let urls = Url::parse_list("http://b:1,http://a:1,http://b:1").unwrap();
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1", "http://b:1"]);
        assert!(Url::parse_list("http://a:1,").is_err());
    }

    #[test]
    fn a_member_has_the_urls_that_etcd_lets_it_have() {
        let of = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            let urls = Url::of_member(&texts).map_err(UrlFault::into_text)?;
            Ok::<_, String>(urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>())
        };
        for (given, kept) in [
            (&["http://:1"][..], &["http://:1"][..]),
            (&["http://a:1 "], &["http://a:1"]),
            (&["HTTP://a:1"], &["http://a:1"]),
            (&["http://b:1", "http://a:1", "http://b:1"], &["http://a:1", "http://b:1", "http://b:1"]),
        ] {
            assert_eq!(of(given).unwrap(), kept);
        }
        for bad in ["foo", "", "http://127.0.0.1", "http://a:1/x", "http://a:1/", "ftp://a:1", "http://a:x"] {
            assert!(of(&[bad]).is_err() && of(&["http://a:1", bad]).is_err(), "{bad}");
        }
        assert!(of(&[]).unwrap_err().contains("from 1 to 16"));
        assert!(of(&["http://a:1"; MEMBER_URLS_MAX]).is_ok());
        assert!(of(&["http://a:1"; MEMBER_URLS_MAX + 1]).unwrap_err().contains("these are 17"));
        let long = |bytes: usize| format!("http://{}:1", "a".repeat(bytes - "http://:1".len()));
        assert!(of(&[&long(MEMBER_URL_BYTES_MAX)]).is_ok());
        assert!(of(&[&long(MEMBER_URL_BYTES_MAX + 1)]).unwrap_err().contains("one has 401"));
    }

    #[test]
    fn only_addresses_and_localhost_can_be_bound() {
        for (text, fine) in
            [("http://localhost:1", true), ("http://0.0.0.0:1", true), ("http://[::]:1", true)]
                .into_iter()
                .chain([("http://example.com:1", false), ("http://:1", false)])
        {
            assert_eq!(Url::parse(text).unwrap().check_bindable().is_ok(), fine, "{text}");
        }
    }
}
