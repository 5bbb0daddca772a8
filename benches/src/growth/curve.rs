//! A curve of figures, and how steep it is.

use serde::Serialize;

/// An exponent from which on a curve counts as steeper than linear: measuring is not exact.
const STEEP: f64 = 1.15;

/// Figures for growing values.
#[derive(Debug, Serialize)]
pub struct Curve {
    /// What was measured.
    pub what: &'static str,
    /// The unit of the figures.
    pub unit: &'static str,
    /// Values and figures, ascending by value.
    pub points: Vec<[f64; 2]>,
}

impl Curve {
    pub fn new(what: &'static str, unit: &'static str) -> Self {
        Self {
            what,
            unit,
            points: Vec::new(),
        }
    }

    pub fn add(&mut self, x: f64, y: f64) {
        self.points.push([x, y]);
    }

    /// The exponent `e` for which the figures of the upper half of the values are nearest to a multiple of `value^e`, by least squares
    /// of logarithms; 0 for fewer than two points.
    pub fn exponent(&self) -> f64 {
        let upper = &self.points[self.points.len() / 2..];
        let upper = if upper.len() < 2 { &self.points } else { upper };
        let logarithms = upper.iter().map(|[x, y]| (x.ln(), y.max(1e-9).ln()));
        let count = upper.len() as f64;
        let (mut sum_x, mut sum_y, mut sum_xx, mut sum_xy) = (0.0, 0.0, 0.0, 0.0);
        for (x, y) in logarithms {
            sum_x += x;
            sum_y += y;
            sum_xx += x * x;
            sum_xy += x * y;
        }
        let spread = count * sum_xx - sum_x * sum_x;
        if spread <= 0.0 {
            return 0.0;
        }
        (count * sum_xy - sum_x * sum_y) / spread
    }

    /// Whether it grows faster than linearly.
    pub fn is_steep(&self) -> bool {
        self.exponent() > STEEP
    }
}

#[cfg(test)]
mod tests {
    use super::Curve;

    fn curve(figure: fn(f64) -> f64) -> Curve {
        let mut curve = Curve::new("something", "ms");
        for x in [1.0, 4.0, 16.0, 64.0, 256.0] {
            curve.add(x, figure(x));
        }
        curve
    }

    #[test]
    fn the_exponent_is_that_of_the_upper_half() {
        assert!((curve(|x| 3.0 * x).exponent() - 1.0).abs() < 1e-9);
        assert!(!curve(|x| 3.0 * x).is_steep());
        assert!(curve(|x| x * x).is_steep());
        assert!(curve(|_| 5.0).exponent().abs() < 1e-9);
        // What is constant at first and linear later is linear.
        assert!(curve(|x| (x - 10.0).max(1.0)).exponent() > 0.9);
    }
}
