//! The peer URLs that a client gives a member.

use super::Error;
use crate::config::{Url, UrlFault};

/// The URLs in the form and order in which a member has them. Refused are those that etcd refuses, and the ones
/// that Braid cannot serve yet, whose error says so. (Of an update etcd does not look at them.)
pub fn peer_urls(given: &[String]) -> Result<Vec<Url>, Error> {
    Url::of_member(given).map_err(|fault| match fault {
        UrlFault::Wrong(_) => Error::BadMemberUrls,
        UrlFault::NotBuilt(why) => Error::Other {
            code: Error::BadMemberUrls.code(),
            text: format!("{}: {why}", Error::BadMemberUrls),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn what_is_refused_for_a_reason_of_braids_says_so() {
        let refused = |url: &str| peer_urls(&[url.to_owned()]).expect_err(url);
        for bad in ["foo", "http://a", "ftp://a:1", "http://a:1/"] {
            assert_eq!(refused(bad), Error::BadMemberUrls);
        }
        assert_eq!(peer_urls(&[]), Err(Error::BadMemberUrls));
        for (unserved, what) in [("https://a:1", "TLS is"), ("unix:///x", "unix sockets are")] {
            let error = refused(unserved);
            let text = format!("etcdserver: given member URLs are invalid: {what} not built yet");
            assert!(error.code() == Code::InvalidArgument && error.to_string().starts_with(&text), "{error}");
        }
    }
}
