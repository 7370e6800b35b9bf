//! Spans of time in which something holds (black, frozen, silent), and the arithmetic between lists of them.

use serde::Serialize;

/// From start to end, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Span {
    pub start: f64,
    pub end: f64,
}

impl Span {
    pub fn seconds(&self) -> f64 {
        self.end - self.start
    }
}

/// Collects the spans in which a condition held for at least a while.
#[derive(Debug)]
pub struct SpanFinder {
    seconds_min: f64,
    open: Option<Span>,
    found: Vec<Span>,
}

impl SpanFinder {
    pub fn new(seconds_min: f64) -> SpanFinder {
        SpanFinder { seconds_min, open: None, found: Vec::new() }
    }

    /// Between `start` and `end` the condition held or not.
    pub fn feed(&mut self, start: f64, end: f64, holds: bool) {
        match (&mut self.open, holds) {
            (Some(open), true) => open.end = end.max(open.end),
            (None, true) => self.open = Some(Span { start, end }),
            (Some(_), false) => self.close(),
            (None, false) => {}
        }
    }

    pub fn finish(mut self) -> Vec<Span> {
        self.close();
        self.found
    }

    fn close(&mut self) {
        // A hundredth of a second forgives the rounding of timestamps.
        if let Some(span) = self.open.take().filter(|s| s.seconds() >= self.seconds_min - 0.01) {
            self.found.push(Span { start: round(span.start), end: round(span.end) });
        }
    }
}

/// What of `spans` lies outside all of `others` widened by `slack`, in pieces of at least `seconds_min`.
pub fn outside(spans: &[Span], others: &[Span], slack: f64, seconds_min: f64) -> Vec<Span> {
    let mut rest = spans.to_vec();
    for other in others {
        let (from, to) = (other.start - slack, other.end + slack);
        rest = rest
            .iter()
            .flat_map(|s| [Span { start: s.start, end: s.end.min(from) }, Span { start: s.start.max(to), end: s.end }])
            .filter(|s| s.seconds() > 0.0)
            .collect();
    }
    rest.retain(|s| s.seconds() >= seconds_min);
    rest
}

/// To the millisecond.
pub fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_found_and_the_sources_own_are_taken_away() {
        let mut finder = SpanFinder::new(1.0);
        for i in 0..100 {
            let t = f64::from(i) * 0.1;
            finder.feed(t, t + 0.1, (20..50).contains(&i) || i == 70);
        }
        let found = finder.finish();
        assert_eq!(found, [Span { start: 2.0, end: 5.0 }]);
        assert!(outside(&found, &[Span { start: 2.2, end: 4.9 }], 0.5, 0.5).is_empty());
        assert_eq!(outside(&found, &[Span { start: 0.0, end: 3.0 }], 0.5, 0.5), [Span { start: 3.5, end: 5.0 }]);
    }
}
