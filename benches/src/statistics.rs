//! Medians and how far figures lie apart.

use serde::Serialize;
use std::time::Duration;

/// The middle of several figures, and the smallest and largest of them. All are zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the figures are smaller, half are larger.
    pub median: f64,
    /// The smallest figure.
    pub min: f64,
    /// The largest figure.
    pub max: f64,
}

impl Spread {
    /// The spread of some figures.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Self::default();
        };
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self {
            median: f64::midpoint(low, high),
            min: *min,
            max: *max,
        }
    }

    /// The spread of some durations, in milliseconds.
    pub fn of_ms(durations: &[Duration]) -> Self {
        Self::of(durations.iter().map(|duration| ms(*duration)))
    }
}

/// The middle of many figures, and what one in a hundred exceeds. Both are zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the figures are smaller, half are larger.
    pub median: f64,
    /// One in a hundred is larger.
    pub p99: f64,
}

impl Percentiles {
    /// The percentiles of some figures.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let figure = sorted.get(sorted.len() * hundredths / 100);
            figure.copied().unwrap_or_default()
        };
        Self {
            median: at(50),
            p99: at(99),
        }
    }

    /// The percentiles of some durations, in microseconds.
    pub fn of_us(durations: &[Duration]) -> Self {
        Self::of(
            durations
                .iter()
                .map(|duration| duration.as_secs_f64() * 1e6),
        )
    }
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The mean that suits ratios; 1 for none.
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let logarithms: Vec<f64> = ratios.into_iter().map(f64::ln).collect();
    if logarithms.is_empty() {
        return 1.0;
    }
    (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::{Spread, geometric_mean};

    #[test]
    fn the_median_of_an_even_number_of_figures_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 100.0]);
        assert_eq!(
            spread,
            Spread {
                median: 3.5,
                min: 1.0,
                max: 100.0
            }
        );
        assert_eq!(
            Spread::of([7.0]),
            Spread {
                median: 7.0,
                min: 7.0,
                max: 7.0
            }
        );
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn twice_and_half_as_long_cancel_out() {
        assert_eq!(geometric_mean([2.0, 0.5]), 1.0);
        assert_eq!(geometric_mean([]), 1.0);
    }
}
