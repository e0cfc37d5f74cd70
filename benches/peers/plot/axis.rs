//! From values to places.

/// What is measured along one direction.
pub struct Axis {
    pub title: &'static str,
    pub scale: Scale,
}

/// How values become distances.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From zero on.
    Linear,
    /// By powers of ten.
    Logarithmic,
}

/// An axis with the values it has room for.
pub struct Ruler {
    scale: Scale,
    /// The least and the greatest value, as their logarithms where the scale is one.
    ends: [f64; 2],
    step: f64,
    /// Where these are.
    places: [f64; 2],
}

/// About how many ticks there are on a linear scale.
const TICKS: f64 = 5.0;

impl Ruler {
    /// Takes all `values` between two places.
    pub fn new(axis: &Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Ruler {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (least, most) = (least.min(value), most.max(value));
        }
        let (ends, step) = match axis.scale {
            Scale::Linear => {
                let most = if most > 0.0 { most } else { 1.0 };
                let step = step(most / TICKS);
                ([0.0, (most / step - 1e-9).ceil() * step], step)
            }
            Scale::Logarithmic => {
                let least = if least > 0.0 && least.is_finite() {
                    least
                } else {
                    1.0
                };
                let low = (least.log10() + 1e-9).floor();
                let high = (most.max(least).log10() - 1e-9).ceil().max(low + 1.0);
                ([low, high], 1.0)
            }
        };
        Ruler {
            scale: axis.scale,
            ends,
            step,
            places: [from, to],
        }
    }

    /// Where a value is. Not a number where it has no place.
    pub fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
        };
        let [low, high] = self.ends;
        let [from, to] = self.places;
        from + (value - low) / (high - low) * (to - from)
    }

    /// The values that are worth a line, with how they are written.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let [low, high] = self.ends;
        let count = ((high - low) / self.step).round() as usize;
        let values = (0..=count).map(|tick| low + tick as f64 * self.step);
        let values = values.map(|value| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => 10_f64.powf(value),
        });
        values.map(|value| (value, self.label(value))).collect()
    }

    fn label(&self, value: f64) -> String {
        let step = match self.scale {
            Scale::Linear => self.step,
            Scale::Logarithmic => value,
        };
        let decimals = (-step.log10()).ceil().max(0.0) as usize;
        grouped(&format!("{value:.decimals$}"))
    }
}

/// The next of 1, 2, 5, 10, 20 and so on.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let fits = steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9));
    fits.unwrap_or(10.0 * power)
}

/// With commas between thousands.
pub fn grouped(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}
