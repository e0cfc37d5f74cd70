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
    /// The longest bar's number.
    most: u64,
    /// The heading of the numbers in the table.
    what: String,
    span: Span,
    pub(super) total: u64,
}

/// A chart with axes, whose bars say their values under the pointer and the keyboard's focus, and
/// with a table of the same numbers.
#[derive(Template)]
#[template(path = "plot.html")]
pub(super) struct Plot<'a> {
    chart: &'a Chart,
}

struct Bar {
    x: usize,
    height: u64,
    /// The bar's begin, in words.
    since: String,
    number: u64,
}

impl Chart {
    pub(super) fn plot(&self) -> Plot<'_> {
        Plot { chart: self }
    }
}

impl Plot<'_> {
    /// The labels of the axis of time: its begin, middle and end.
    fn times(&self) -> [&str; 3] {
        let bars = &self.chart.bars;
        let since = |place: usize| bars.get(place).map_or("", |bar| bar.since.as_str());
        [0, bars.len() / 2, bars.len().saturating_sub(1)].map(since)
    }

    /// A part of the bars, in percent of the width.
    fn percent(&self, bars: f64) -> String {
        format!("{:.3}", bars * 100.0 / self.chart.bars.len().max(1) as f64)
    }

    /// Where a bar begins and how wide the bar is, in percent.
    fn place(&self, bar: &Bar) -> (String, String) {
        let place = (bar.x / STEP) as f64;
        (self.percent(place + 0.1), self.percent(0.8))
    }

    /// Where a bar's background begins and how wide that is, in percent.
    fn column(&self, bar: &Bar) -> (String, String) {
        let place = (bar.x / STEP) as f64;
        (self.percent(place), self.percent(1.0))
    }

    /// The top and the height of a bar, in percent.
    fn heights(&self, bar: &Bar) -> (u64, u64) {
        let height = bar.height.saturating_mul(100).div_ceil(HEIGHT).min(100);
        (100 - height, height)
    }

    fn heading(&self) -> &'static str {
        match self.chart.span {
            Span::Day => "Day (UTC)",
            Span::Hour => "Hour (UTC)",
        }
    }
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
            since: self.name_of(place as i64),
            number: *number,
        };
        Chart {
            label: format!("{total} {what} in {whole}, at most {most} {each}"),
            bars: numbers.iter().enumerate().map(bar).collect(),
            most,
            what: what.to_owned(),
            span: self.span,
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
        assert_eq!((&*chart.bars[0].since, chart.bars[0].number), ("13 Mar", 1));
        let plot = chart.plot().to_string();
        for text in [
            "<title>13 Mar: 1</title>",
            "tabindex=\"0\"",
            "<th scope=\"row\">11 Apr</th><td class=\"number\">80</td>",
            ">80</text>",
        ] {
            assert!(plot.contains(text), "no {text} in {plot}");
        }
        assert_eq!(
            plot.matches("tabindex").count(),
            2,
            "empty bars take no focus"
        );
        assert_eq!(plot.matches("<tr>").count(), 31);
    }

    #[test]
    fn where_nothing_was_there_are_no_bars() {
        let chart = Stretch::hours().chart(&[], "messages", |usage| usage.messages);
        assert_eq!((chart.total, chart.bars.len()), (0, 24));
        assert!(chart.bars.iter().all(|bar| bar.height == 0));
    }
}
