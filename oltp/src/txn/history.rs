//! `History`: which commit was the newest at which time, as far back as retention goes.
//!
//! SeqNos are the only order; times only name them. A [`TimeMark`] says that every commit up to a SeqNo was sequenced before a
//! time and every later one at or after it. One is made by the first commit of each *granule* of time, so the state at the
//! beginning of any granule is known exactly, and a time asked for is taken down to there.
//!
//! Always true:
//! * the times of marks rise strictly, and so do their SeqNos or they stay; a clock that goes back makes no mark until it
//!   has caught up;
//! * a commit whose time is not known, because a crash took the marks after it, never appears under a wrong time: the mark made
//!   at the next open says so, and times up to it are refused.
//!
//! Marks are saved in the manifest: with the log synced, about once a minute and at close.

use std::collections::VecDeque;

use crate::seqno::SeqNo;

/// Marks kept at most: granules are as long as retention needs for that, but at least a second.
const MARKS_MAX: u64 = 10_000;
const GRANULE_MS_MIN: u64 = 1_000;

/// The newest commit before a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeMark {
    /// The moment, in milliseconds since the Unix epoch: the beginning of a granule.
    pub at_ms: u64,
    /// Every commit at or below this was sequenced before it, every later one was not.
    pub seqno: SeqNo,
    /// Whether times of commits between the mark before and this one are unknown.
    pub is_gap: bool,
}

/// Times of recent commits. Guarded by the commit mutex.
#[derive(Debug)]
pub(crate) struct History {
    retention_ms: u64,
    granule_ms: u64,
    marks: VecDeque<TimeMark>,
    /// Marks at the end that the manifest does not have.
    unsaved_count: usize,
}

impl History {
    /// From the marks that the manifest had, when `last` is the newest commit there is. What is [`History::unsaved`] then
    /// must be saved at once: it voids marks that are wrong by now.
    pub(crate) fn restore(retention_ms: u64, saved: &[TimeMark], now_ms: u64, last: SeqNo) -> History {
        let granule_ms = (retention_ms / MARKS_MAX).max(GRANULE_MS_MIN);
        let mut history =
            History { retention_ms, granule_ms, marks: saved.iter().copied().collect(), unsaved_count: 0 };
        let at_ms = history.granule(now_ms);
        // Of a close a moment ago, or of a clock that was ahead.
        while history.marks.back().is_some_and(|mark| mark.at_ms > at_ms) {
            history.marks.pop_back();
            history.unsaved_count = 1.min(history.marks.len());
        }
        if history.marks.back().is_none_or(|mark| mark.seqno != last) {
            // At the same moment as the mark before only if that one is of this granule: then its commits are the unknown.
            let at_ms = history.marks.back().map_or(at_ms, |mark| at_ms.max(mark.at_ms + 1));
            history.push(TimeMark { at_ms, seqno: last, is_gap: true });
        }
        history
    }

    fn granule(&self, ms: u64) -> u64 {
        ms - ms % self.granule_ms
    }

    fn push(&mut self, mark: TimeMark) {
        self.marks.push_back(mark);
        self.unsaved_count += 1;
    }

    /// Before the commit after `last` is sequenced, or when nothing happens.
    pub(crate) fn note(&mut self, now_ms: u64, last: SeqNo) {
        let at_ms = self.granule(now_ms);
        if self.marks.back().is_none_or(|mark| mark.at_ms < at_ms) {
            self.push(TimeMark { at_ms, seqno: last, is_gap: false });
        }
    }

    /// When nothing is committed any more: the end of this granule is known now.
    pub(crate) fn close(&mut self, now_ms: u64, last: SeqNo) {
        // Who opens the database within this granule cannot use the other mark.
        self.note(now_ms, last);
        let at_ms = self.granule(now_ms) + self.granule_ms;
        if self.marks.back().is_none_or(|mark| mark.at_ms < at_ms) {
            self.push(TimeMark { at_ms, seqno: last, is_gap: false });
        }
    }

    /// The newest commit before the granule of `at_ms`, when `last` is the newest there is; `None` if it is not known, or
    /// not any more.
    pub(crate) fn seqno_at(&self, at_ms: u64, last: SeqNo) -> Option<SeqNo> {
        let at_ms = self.granule(at_ms);
        if self.marks.front().is_none_or(|first| at_ms < first.at_ms) {
            return None;
        }
        match self.marks.get(self.marks.partition_point(|mark| mark.at_ms < at_ms)) {
            Some(mark) => (!mark.is_gap).then_some(mark.seqno),
            // Later commits were all made in the granule of the last mark, which is before this one.
            None => Some(last),
        }
    }

    /// The oldest commit whose state must stay readable at `now_ms`. Marks that are only about older ones are dropped.
    pub(crate) fn kept_from(&mut self, now_ms: u64, last: SeqNo) -> SeqNo {
        let at_ms = self.granule(now_ms.saturating_sub(self.retention_ms));
        // Saved ones only: the manifest must not end up with older marks and a hole behind them.
        while self.marks.len() > self.unsaved_count + 1 && self.marks[1].at_ms <= at_ms {
            self.marks.pop_front();
        }
        let at = self.marks.partition_point(|mark| mark.at_ms < at_ms);
        match self.marks.get(at) {
            // Somewhere in the gap: what was before it is certainly old enough.
            Some(mark) if mark.is_gap => at.checked_sub(1).map_or(mark.seqno, |before| self.marks[before].seqno),
            Some(mark) => mark.seqno,
            None => last,
        }
    }

    /// Marks that the manifest does not have yet.
    pub(crate) fn unsaved(&self) -> Vec<TimeMark> {
        self.marks.range(self.marks.len() - self.unsaved_count..).copied().collect()
    }

    /// The manifest has all marks up to `last` now.
    pub(crate) fn set_saved(&mut self, last: &TimeMark) {
        self.unsaved_count = self.marks.iter().rev().take_while(|mark| mark.at_ms > last.at_ms).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(marks: &[(u64, u64)]) -> History {
        let saved: Vec<TimeMark> = marks
            .iter()
            .map(|(at_ms, seqno)| TimeMark { at_ms: *at_ms, seqno: SeqNo(*seqno), is_gap: false })
            .collect();
        History { retention_ms: 10_000, granule_ms: 1_000, marks: saved.into(), unsaved_count: 0 }
    }

    #[test]
    fn a_time_names_the_state_at_the_beginning_of_its_second() {
        let mut history = history(&[(1_000, 0)]);
        // Commits 1 and 2 within second 1, 3 in second 4, 4 and 5 in second 6.
        for (now_ms, last) in [(1_200, 0), (1_900, 1), (4_500, 2), (6_000, 3), (6_999, 4)] {
            history.note(now_ms, SeqNo(last));
        }
        let at = |at_ms| history.seqno_at(at_ms, SeqNo(5)).map(|seqno| seqno.0);
        assert_eq!([999, 1_000, 1_999, 2_000].map(at), [None, Some(0), Some(0), Some(2)]);
        assert_eq!([4_999, 5_000, 6_999, 7_000].map(at), [Some(2), Some(3), Some(3), Some(5)]);
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_mark() {
        let mut history = history(&[(5_000, 3)]);
        history.note(2_000, SeqNo(7));
        assert_eq!(history.marks.len(), 1);
        history.note(6_100, SeqNo(8));
        assert_eq!(history.seqno_at(6_000, SeqNo(9)), Some(SeqNo(8)));
    }

    #[test]
    fn times_that_a_crash_took_are_refused() {
        // The mark of second 3 was saved, then 12 was committed, nobody knows when.
        let saved = [TimeMark { at_ms: 3_000, seqno: SeqNo(10), is_gap: false }];
        let history = History::restore(10_000, &saved, 8_500, SeqNo(12));
        let at = |at_ms| history.seqno_at(at_ms, SeqNo(12)).map(|seqno| seqno.0);
        assert_eq!([3_999, 4_000, 8_999, 9_000].map(at), [Some(10), None, None, Some(12)]);
        // Within the same second: only that second's end is unknown.
        let history = History::restore(10_000, &saved, 3_700, SeqNo(12));
        let at = |at_ms| history.seqno_at(at_ms, SeqNo(12)).map(|seqno| seqno.0);
        assert_eq!([3_000, 3_999, 4_000].map(at), [Some(10), Some(10), Some(12)]);
    }

    #[test]
    fn a_clean_close_leaves_no_gap_unless_it_was_a_moment_ago() {
        let mut closed = history(&[(3_000, 10)]);
        closed.close(3_600, SeqNo(12));
        let saved: Vec<TimeMark> = closed.marks.iter().copied().collect();
        let later = History::restore(10_000, &saved, 8_500, SeqNo(12));
        assert_eq!(later.seqno_at(4_000, SeqNo(12)), Some(SeqNo(12)));
        assert_eq!(later.seqno_at(8_000, SeqNo(12)), Some(SeqNo(12)));
        let at_once = History::restore(10_000, &saved, 3_900, SeqNo(12));
        assert_eq!(
            at_once.unsaved().first().map(|mark| mark.at_ms),
            Some(3_000),
            "or the mark of the close would come back"
        );
        assert_eq!(at_once.seqno_at(3_000, SeqNo(13)), Some(SeqNo(10)));
        assert_eq!(at_once.seqno_at(4_000, SeqNo(13)), Some(SeqNo(13)));
    }

    #[test]
    fn what_is_kept_follows_the_clock() {
        let mut history = history(&[(1_000, 1), (2_000, 5), (5_000, 9)]);
        assert_eq!(history.kept_from(11_500, SeqNo(20)), SeqNo(1), "second 1 is ten seconds ago");
        assert_eq!(history.kept_from(13_000, SeqNo(20)), SeqNo(9), "of second 3, which commits up to 9 were before");
        assert_eq!(
            history.seqno_at(2_500, SeqNo(20)),
            Some(SeqNo(5)),
            "the mark before stays, to tell old from unknown"
        );
        assert_eq!(history.seqno_at(1_500, SeqNo(20)), None);
        assert_eq!(history.kept_from(16_000, SeqNo(20)), SeqNo(20));
    }

    #[test]
    fn marks_go_only_once_they_were_saved() {
        let mut history = History::restore(10_000, &[], 0, SeqNo::ZERO);
        history.note(2_500, SeqNo::ZERO);
        history.note(4_000, SeqNo(2));
        assert_eq!(history.kept_from(20_000, SeqNo(3)), SeqNo(3));
        assert_eq!(
            history.unsaved().len(),
            3,
            "the mark at the beginning may be in the manifest, and needs the others"
        );
        let newest = history.unsaved()[2];
        history.set_saved(&newest);
        history.kept_from(20_000, SeqNo(3));
        assert_eq!(history.marks.len(), 1);
    }

    #[test]
    fn marks_are_bounded_by_longer_granules() {
        let week_ms = 7 * 24 * 3_600_000;
        assert_eq!(History::restore(week_ms, &[], 0, SeqNo::ZERO).granule_ms, week_ms / MARKS_MAX);
    }
}
