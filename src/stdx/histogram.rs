//! Counts by size, in buckets that double, as the histograms of Prometheus with `ExponentialBuckets(start, 2,
//! n)`, or in buckets of a list.

/// How often values of each size were seen: in buckets with an upper bound each, the last without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: BucketBounds,
    counts: Vec<u64>,
    sum: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BucketBounds {
    /// The bound of bucket i is this · 2^i.
    Doubling(u64),
    Listed(&'static [u64]),
}

impl Histogram {
    /// `len` bounded buckets, the first up to `first`, which is in the unit of the values and not 0.
    pub fn new(first: u64, len: usize) -> Histogram {
        assert!(first > 0 && len < 64 && first.leading_zeros() as usize > len, "bounds are numbers");
        Histogram { bounds: BucketBounds::Doubling(first), counts: vec![0; len + 1], sum: 0 }
    }

    /// Bounded buckets up to each of `bounds`, which ascend.
    pub fn listed(bounds: &'static [u64]) -> Histogram {
        assert!(bounds.is_sorted(), "bounds ascend");
        Histogram { bounds: BucketBounds::Listed(bounds), counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    pub fn observe(&mut self, value: u64) {
        self.observe_times(value, 1);
    }

    /// Counts a value that was seen `times` times.
    pub fn observe_times(&mut self, value: u64, times: u64) {
        let bucket = match self.bounds {
            // Most are: the division is spared them.
            BucketBounds::Doubling(first) if value <= first => 0,
            BucketBounds::Doubling(first) => {
                let times = value.div_ceil(first);
                (u64::BITS - (times - 1).leading_zeros()) as usize
            }
            BucketBounds::Listed(bounds) => bounds.partition_point(|bound| *bound < value),
        };
        let last = self.counts.len() - 1;
        self.counts[bucket.min(last)] += times;
        self.sum += value * times;
    }

    /// Adds what another histogram of the same bounds has seen.
    pub fn add(&mut self, more: &Histogram) {
        let alike = (self.bounds, self.counts.len()) == (more.bounds, more.counts.len());
        assert!(alike, "bounds are equal");
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
        let bound = move |place| {
            (place < last).then(|| match self.bounds {
                BucketBounds::Doubling(first) => first << place,
                BucketBounds::Listed(bounds) => bounds[place],
            })
        };
        self.counts.iter().enumerate().map(move |(place, count)| (bound(place), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_the_first_bucket_that_holds_it() {
        for value in [0, 1, 9, 10, 11, 20, 21, 39, 40, 41, 80, 81, 1000, u64::MAX / 2] {
            for mut histogram in [Histogram::new(10, 4), Histogram::listed(&[1, 10, 39, 40])] {
                histogram.observe(value);
                let expected =
                    histogram.buckets().position(|(bound, _)| bound.is_none_or(|bound| value <= bound));
                let found = histogram.buckets().position(|(_, count)| count == 1);
                assert_eq!(found, expected, "{value}");
                assert_eq!((histogram.sum(), histogram.count()), (value, 1));
            }
        }
    }
}
