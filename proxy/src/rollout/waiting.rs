//! Windows that wait to be told, the oldest first, each until it was answered.
//!
//! A bounded number of them: where there is no room for one more it is joined with the one before, as long as both were
//! counted under one share of the canary, since versions are compared within a window. Only where the share has changed
//! as well does the oldest give way. Pure.

use std::collections::VecDeque;

use tollgate_rollout::{Share, Window};

/// A minute at the usual interval.
const MOST: usize = 30;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    windows: VecDeque<Numbered>,
    /// The number of the last one.
    sequence: u64,
}

#[derive(Debug)]
struct Numbered {
    sequence: u64,
    share: Share,
    window: Window,
}

impl Waiting {
    /// One more waits, which was counted under this share. Answers what had to give way for it.
    pub(super) fn push(&mut self, share: Share, window: Window) -> Option<Window> {
        let is_full = self.windows.len() == MOST;
        // The last of so many is not the first, which may be known already where it is told to.
        if let Some(last) = self.windows.back_mut().filter(|last| is_full && last.share == share) {
            last.window.add(&window);
            return None;
        }
        let lost = is_full.then(|| self.windows.pop_front()).flatten();
        self.sequence += 1;
        self.windows.push_back(Numbered { sequence: self.sequence, share, window });
        lost.map(|lost| lost.window)
    }

    /// The next one to tell, with its number.
    pub(super) fn first(&self) -> Option<(u64, Window)> {
        self.windows.front().map(|first| (first.sequence, first.window.clone()))
    }

    /// The one of this number was told. It may have given way meanwhile.
    pub(super) fn was_told(&mut self, sequence: u64) {
        if self.windows.front().is_some_and(|first| first.sequence == sequence) {
            self.windows.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tollgate_rollout::ArmCounts;

    use super::*;

    fn window(requests: u64) -> Window {
        let baseline = ArmCounts { ok: requests, failed: 0, latency: vec![requests] };
        Window { baseline, canary: ArmCounts::default() }
    }

    fn share(percent: u32) -> Share {
        Share::millionths(percent * 10_000)
    }

    /// Tells all of them: their numbers, and the requests in them.
    fn told(waiting: &mut Waiting) -> (Vec<u64>, u64) {
        let (mut numbers, mut requests) = (Vec::new(), 0);
        while let Some((sequence, window)) = waiting.first() {
            waiting.was_told(sequence);
            numbers.push(sequence);
            requests += window.baseline.all();
        }
        (numbers, requests)
    }

    #[test]
    fn however_long_nobody_answers_no_request_is_lost_under_one_share() {
        let mut waiting = Waiting::default();
        for n in 1..=1000 {
            assert_eq!(waiting.push(share(10), window(n)), None);
        }
        // It may have been told before, and is told again as it was.
        assert_eq!(waiting.first(), Some((1, window(1))));
        assert_eq!(told(&mut waiting), ((1..=30).collect(), (1..=1000).sum()));
        assert_eq!(waiting.push(share(10), window(1)), None);
        assert_eq!(told(&mut waiting), (vec![31], 1));
    }

    #[test]
    fn windows_of_different_shares_are_not_joined_and_the_oldest_gives_way() {
        let mut waiting = Waiting::default();
        for n in 1..=30 {
            assert_eq!(waiting.push(share(10), window(n)), None);
        }
        assert_eq!(waiting.push(share(0), window(31)), Some(window(1)));
        assert_eq!(waiting.push(share(0), window(32)), None);
        // Its answer comes when it has given way.
        waiting.was_told(1);
        assert_eq!(told(&mut waiting), ((2..=31).collect(), (2..=32).sum()));
    }
}
