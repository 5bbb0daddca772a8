//! One picture per axis, both scales logarithmic: a straight line as steep as the dashed one is linear growth.

use super::Axis;
use svg::Document;
use svg::node::element::{Circle, Group, Line, Path, Polyline, Text};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 300.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 270.0;

/// All axes below each other, two side by side.
pub fn all(axes: &[Axis]) -> String {
    let rows = axes.len().div_ceil(2) as f64;
    let background = Path::new()
        .set("d", format!("M0 0H{}V{}H0Z", 2.0 * WIDTH, rows * HEIGHT))
        .set("fill", "white");
    let mut document = Document::new()
        .set("viewBox", (0, 0, 2.0 * WIDTH, rows * HEIGHT))
        .set("font-family", "sans-serif")
        .set("font-size", 11)
        .add(background);
    for (index, axis) in axes.iter().enumerate() {
        let (x, y) = ((index % 2) as f64 * WIDTH, (index / 2) as f64 * HEIGHT);
        let place = format!("translate({x} {y})");
        document = document.add(one(axis).set("transform", place));
    }
    document.to_string()
}

/// Powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value.log10()), high.max(value.log10()))
        });
    if low > high {
        return (0, 1);
    }
    let low = low.floor() as i32;
    (low, (high.ceil() as i32).max(low + 1))
}

fn one(axis: &Axis) -> Group {
    let points = || axis.curves.iter().flat_map(|curve| &curve.points);
    let (x_low, x_high) = decades(points().map(|[x, _]| *x));
    let (y_low, y_high) = decades(points().map(|[_, y]| *y));
    let scale =
        |value: f64, low: i32, high: i32| (value.log10() - f64::from(low)) / f64::from(high - low);
    let x_at = |x: f64| LEFT + scale(x, x_low, x_high) * (RIGHT - LEFT);
    let y_at = |y: f64| BOTTOM - scale(y.max(1e-9), y_low, y_high) * (BOTTOM - TOP);
    let mut group = Group::new().add(text(LEFT, TOP - 18.0, "start", axis.name));
    for power in x_low..=x_high {
        let x = x_at(10_f64.powi(power));
        group = group.add(line([x, TOP], [x, BOTTOM])).add(text(
            x,
            BOTTOM + 16.0,
            "middle",
            &format!("{}", 10_f64.powi(power)),
        ));
    }
    for power in y_low..=y_high {
        let y = y_at(10_f64.powi(power));
        group = group.add(line([LEFT, y], [RIGHT, y])).add(text(
            LEFT - 6.0,
            y + 4.0,
            "end",
            &format!("{}", 10_f64.powi(power)),
        ));
    }
    let decades = f64::from((x_high - x_low).min(y_high - y_low));
    let end = [
        x_at(10_f64.powf(f64::from(x_low) + decades)),
        y_at(10_f64.powf(f64::from(y_low) + decades)),
    ];
    let linear = line([LEFT, BOTTOM], end)
        .set("stroke", "black")
        .set("stroke-dasharray", "3 3");
    group = group.add(linear);
    for curve in &axis.curves {
        let places: Vec<(f64, f64)> = curve
            .points
            .iter()
            .map(|[x, y]| (x_at(*x), y_at(*y)))
            .collect();
        let list = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
        group = group.add(
            Polyline::new()
                .set("points", list.collect::<Vec<_>>().join(" "))
                .set("fill", "none")
                .set("stroke", "black"),
        );
        for (x, y) in &places {
            let mark = Circle::new().set("cx", *x).set("cy", *y).set("r", 2.5);
            group = group.add(mark);
        }
        if let Some((x, y)) = places.last() {
            // Each curve is named where it ends.
            let label = format!("{}, {}", curve.what, curve.unit);
            group = group.add(text(x + 8.0, y + 4.0, "start", &label));
        }
    }
    group
}

fn line(from: [f64; 2], to: [f64; 2]) -> Line {
    Line::new()
        .set("x1", from[0])
        .set("y1", from[1])
        .set("x2", to[0])
        .set("y2", to[1])
        .set("stroke", "#ccc")
}

fn text(x: f64, y: f64, anchor: &str, content: &str) -> Text {
    Text::new(content)
        .set("x", x)
        .set("y", y)
        .set("text-anchor", anchor)
}
