//! Bar charts, drawn as SVG.

use askama::Template;
use jiff::Timestamp;

use crate::store::{Span, Usage};

/// The height that the longest bar has.
const HEIGHT: u64 = 40;

/// From one bar to the next.
const STEP: usize = 4;

/// A row of bars, one for each span of time, also for those in which there was nothing.
#[derive(Template)]
#[template(path = "chart.html")]
pub(super) struct Chart {
    /// For whoever cannot see it.
    label: String,
    bars: Vec<Bar>,
    pub(super) total: u64,
}

struct Bar {
    x: usize,
    height: u64,
    label: String,
}

/// A stretch of time up to now, in spans of one length.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub(super) span: Span,
    spans: i64,
    /// Where the first span begins, in Unix milliseconds.
    pub(super) since: i64,
}

impl Stretch {
    /// Thirty days, today among them.
    pub(super) fn days() -> Stretch {
        Stretch::up_to(Span::Day, 30, crate::clock::now_ms())
    }

    /// Twenty-four hours, this one among them.
    pub(super) fn hours() -> Stretch {
        Stretch::up_to(Span::Hour, 24, crate::clock::now_ms())
    }

    fn up_to(span: Span, spans: i64, now: i64) -> Stretch {
        let current = now.div_euclid(span.length());
        Stretch {
            span,
            spans,
            since: (current + 1 - spans) * span.length(),
        }
    }

    /// Behind the last span.
    pub(super) fn until(self) -> i64 {
        self.since + self.spans * self.span.length()
    }

    /// Draws one of the numbers of this stretch. `what` is counted, such as "messages".
    pub(super) fn chart(
        self,
        usage: &[(i64, Usage)],
        what: &str,
        number: impl Fn(&Usage) -> u64,
    ) -> Chart {
        let length = self.span.length();
        let mut numbers = vec![0; self.spans as usize];
        for (since, usage) in usage {
            let place = usize::try_from((since - self.since).div_euclid(length));
            if let Some(own) = place.ok().and_then(|place| numbers.get_mut(place)) {
                *own += number(usage);
            }
        }
        let (total, most) = (numbers.iter().sum(), numbers.iter().max().copied());
        let most = most.unwrap_or_default();
        let (whole, each) = match self.span {
            Span::Day => ("30 days", "a day"),
            Span::Hour => ("24 hours", "an hour"),
        };
        let bar = |(place, number): (usize, &u64)| Bar {
            x: place * STEP,
            // Whatever happened shows.
            height: number.saturating_mul(HEIGHT).div_ceil(most.max(1)),
            label: format!("{}: {number}", self.name_of(place as i64)),
        };
        Chart {
            label: format!("{total} {what} in {whole}, at most {most} {each}"),
            bars: numbers.iter().enumerate().map(bar).collect(),
            total,
        }
    }

    fn name_of(self, place: i64) -> String {
        let begin = self.since + place * self.span.length();
        let begin = Timestamp::from_millisecond(begin).unwrap_or_default();
        let form = match self.span {
            Span::Day => "%-d %b",
            Span::Hour => "%H:00 UTC",
        };
        begin.strftime(form).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::HOUR;

    const DAY: i64 = 24 * HOUR;

    fn messages(messages: u64) -> Usage {
        Usage {
            messages,
            ..Usage::default()
        }
    }

    #[test]
    fn every_span_has_a_bar_and_the_longest_is_as_high_as_the_chart() {
        let stretch = Stretch::up_to(Span::Day, 30, 100 * DAY + 5);
        assert_eq!((stretch.since, stretch.until()), (71 * DAY, 101 * DAY));
        let usage = [
            (70 * DAY, messages(1_000)),
            (71 * DAY, messages(1)),
            (100 * DAY, messages(80)),
        ];
        let chart = stretch.chart(&usage, "messages", |usage| usage.messages);
        assert_eq!(chart.label, "81 messages in 30 days, at most 80 a day");
        let heights: Vec<_> = chart.bars.iter().map(|bar| bar.height).collect();
        assert_eq!((heights.len(), heights[0], heights[29]), (30, 1, HEIGHT));
        assert!(heights[1..29].iter().all(|height| *height == 0));
        assert_eq!(chart.bars[0].label, "13 Mar: 1");
    }

    #[test]
    fn where_nothing_was_there_are_no_bars() {
        let chart = Stretch::hours().chart(&[], "messages", |usage| usage.messages);
        assert_eq!((chart.total, chart.bars.len()), (0, 24));
        assert!(chart.bars.iter().all(|bar| bar.height == 0));
    }
}
