//! Offsets as runs: records lie close together, so a million of them are usually one run.

/// A set of offsets: inclusive runs in order that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(Vec<(i64, i64)>);

impl Runs {
    /// The set of these offsets, and how many of them were repeats.
    pub fn of(mut offsets: Vec<i64>) -> (Runs, u64) {
        offsets.sort_unstable();
        let all = offsets.len();
        offsets.dedup();
        let repeated = (all - offsets.len()) as u64;
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for offset in offsets {
            match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(offset) => *last = offset,
                _ => runs.push((offset, offset)),
            }
        }
        (Runs(runs), repeated)
    }

    /// The closed range; empty where it ends before it starts.
    pub fn span(start: i64, end: i64) -> Runs {
        Runs(if start <= end { vec![(start, end)] } else { Vec::new() })
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }

    pub fn len(&self) -> u64 {
        self.iter().map(|(first, last)| last.abs_diff(first) + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What both sets hold.
    pub fn common(&self, other: &Runs) -> Runs {
        let (mut i, mut j, mut common) = (0, 0, Vec::new());
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let run = (a.0.max(b.0), a.1.min(b.1));
            if run.0 <= run.1 {
                common.push(run);
            }
            if a.1 < b.1 { i += 1 } else { j += 1 }
        }
        Runs(common)
    }

    /// What lies in the closed range.
    pub fn within(&self, start: i64, end: i64) -> Runs {
        self.common(&Runs::span(start, end))
    }

    /// What either set holds.
    pub fn union(&self, other: &Runs) -> Runs {
        let mut all: Vec<(i64, i64)> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for (first, last) in all {
            match runs.last_mut() {
                Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
                _ => runs.push((first, last)),
            }
        }
        Runs(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_runs_and_repeats_are_counted() {
        let (runs, repeated) = Runs::of(vec![5, 1, 2, 3, 3, i64::MAX]);
        assert_eq!(runs, Runs(vec![(1, 3), (5, 5), (i64::MAX, i64::MAX)]));
        assert_eq!((runs.len(), repeated), (5, 1));
        assert!(Runs::of(Vec::new()).0.is_empty());
    }

    #[test]
    fn sets_are_cut_and_joined() {
        let (a, _) = Runs::of(vec![1, 2, 3, 7, 8]);
        let (b, _) = Runs::of(vec![3, 4, 8]);
        assert_eq!(a.common(&b), Runs(vec![(3, 3), (8, 8)]));
        assert_eq!(a.union(&b), Runs(vec![(1, 4), (7, 8)]));
        assert_eq!(a.within(2, 7), Runs(vec![(2, 3), (7, 7)]));
        assert!(a.within(7, 2).is_empty());
    }
}
