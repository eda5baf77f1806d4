//! Counts by size, in buckets that double: the histograms of Prometheus with `ExponentialBuckets(start, 2, n)`.

/// How often values of each size were seen. Bucket i holds those up to `first` · 2^i, the last all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    first: u64,
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// `len` bounded buckets, the first up to `first`, which is in the unit of the values and not 0.
    pub fn new(first: u64, len: usize) -> Histogram {
        assert!(first > 0 && len < 64 && first.leading_zeros() as usize > len, "bounds are numbers");
        Histogram { first, counts: vec![0; len + 1], sum: 0 }
    }

    pub fn observe(&mut self, value: u64) {
        let times = value.div_ceil(self.first).max(1);
        let bucket = (u64::BITS - (times - 1).leading_zeros()) as usize;
        let last = self.counts.len() - 1;
        self.counts[bucket.min(last)] += 1;
        self.sum += value;
    }

    /// Adds what another histogram of the same bounds has seen.
    pub fn add(&mut self, more: &Histogram) {
        assert!((self.first, self.counts.len()) == (more.first, more.counts.len()), "bounds are equal");
        self.sum += more.sum;
        for (sum, more) in self.counts.iter_mut().zip(&more.counts) {
            *sum += more;
        }
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound and count of each bucket; the last has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let last = self.counts.len() - 1;
        let bound = move |place| (place < last).then(|| self.first << place);
        self.counts.iter().enumerate().map(move |(place, count)| (bound(place), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_the_first_bucket_that_holds_it() {
        for value in [0, 1, 9, 10, 11, 20, 21, 39, 40, 41, 80, 81, 1000, u64::MAX / 2] {
            let mut histogram = Histogram::new(10, 4);
            histogram.observe(value);
            let expected =
                histogram.buckets().position(|(bound, _)| bound.is_none_or(|bound| value <= bound));
            let found = histogram.buckets().position(|(_, count)| count == 1);
            assert_eq!(found, expected, "{value}");
            assert_eq!((histogram.sum(), histogram.count()), (value, 1));
        }
    }
}
