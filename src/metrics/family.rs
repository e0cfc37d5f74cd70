//! Registration of metrics, and counters indexed by label without a lookup by name.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::labels::Label;

/// From a tenth of a millisecond (a cached login) to ten seconds.
const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// A metric for each value of a label, all registered at the start. Access is an index, not a
/// search.
pub struct ByLabel<L, M> {
    metrics: Vec<M>,
    label: PhantomData<L>,
}

impl<L: Label, M> ByLabel<L, M> {
    /// Creates the metric of each value.
    pub(super) fn new(made: impl Fn(&'static str) -> M) -> Self {
        Self {
            metrics: L::ALL.iter().map(|value| made(value.as_str())).collect(),
            label: PhantomData,
        }
    }

    /// Returns the metric of `value`.
    pub fn of(&self, value: L) -> &M {
        let at = L::ALL.iter().position(|candidate| *candidate == value);
        &self.metrics[at.unwrap_or_default()]
    }
}

/// Creates and registers metrics.
pub(super) struct Registrar<'a>(pub &'a Registry);

type Made<T> = Result<T, prometheus::Error>;

impl Registrar<'_> {
    pub fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.registered(IntCounter::new(name, help)?)
    }

    /// Registers a counter whose value `count` returns at each scrape.
    pub fn counter_of(&self, name: &str, help: &str, count: fn() -> u64) -> Made<()> {
        self.0.register(Box::new(Counted {
            counter: IntCounter::new(name, help)?,
            count,
            following: Mutex::new(()),
        }))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub fn counter_by<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Made<ByLabel<L, IntCounter>> {
        let family = self.counters(name, help, &[label])?;
        Ok(ByLabel::new(|value| family.with_label_values(&[value])))
    }

    pub fn gauge_by<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Made<ByLabel<L, IntGauge>> {
        let family = self.gauges(name, help, &[label])?;
        Ok(ByLabel::new(|value| family.with_label_values(&[value])))
    }

    pub fn gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.registered(IntGauge::new(name, help)?)
    }

    /// Registers a gauge that is always 1 and carries information in a label.
    pub fn info(&self, name: &str, help: &str, label: (&str, &str)) -> Made<()> {
        let gauge = IntGauge::with_opts(Opts::new(name, help).const_label(label.0, label.1))?;
        gauge.set(1);
        self.registered(gauge).map(drop)
    }

    pub fn histogram(&self, name: &str, help: &str) -> Made<Histogram> {
        self.registered(Histogram::with_opts(timed(name, help))?)
    }

    pub fn histogram_by<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Made<ByLabel<L, Histogram>> {
        let family = self.registered(HistogramVec::new(timed(name, help), &[label])?)?;
        Ok(ByLabel::new(|value| family.with_label_values(&[value])))
    }

    fn registered<C: Collector + Clone + 'static>(&self, collector: C) -> Made<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

/// A counter that follows a count kept elsewhere.
struct Counted {
    counter: IntCounter,
    count: fn() -> u64,
    /// Serializes scrapes, which would otherwise add the same difference twice.
    following: Mutex<()>,
}

impl Collector for Counted {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _held = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let more = (self.count)().saturating_sub(self.counter.get());
        self.counter.inc_by(more);
        self.counter.collect()
    }
}

fn timed(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(BUCKETS.to_vec())
}
