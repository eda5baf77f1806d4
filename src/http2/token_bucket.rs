//! How often a client may do what costs it nothing: a bucket of tokens.

use crate::types::Time;

/// A token bucket: `burst` tokens at first, refilled at `per_sec`.
pub struct TokenBucket {
    burst: u32,
    per_sec: u32,
    tokens: u32,
    since: Time,
}

impl TokenBucket {
    pub fn new(burst: u32, per_sec: u32, now: Time) -> TokenBucket {
        assert!(per_sec > 0, "tokens that never return are a count");
        TokenBucket { burst, per_sec, tokens: burst, since: now }
    }

    /// Takes one token; `false` where none is left.
    pub fn take(&mut self, now: Time) -> bool {
        let token_ns = 1_000_000_000 / u64::from(self.per_sec);
        let earned = now.since(self.since).0 / token_ns;
        if earned > 0 {
            self.since.0 += earned * token_ns;
            self.tokens = u64::from(self.burst).min(u64::from(self.tokens) + earned) as u32;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }
}
