//! Run times as pictures: ways differ by the shapes of their marks, not by colours.

use crate::report::{Program, Summary};
use crate::ways::Way;
use std::fmt::Display;
use svg::node::element::{Group, Line, Path, Text};
use svg::{Document, Node};

/// Ways whose run time is near that of bare wasmtime, so that they fit into one picture.
const NEAR: [Way; 4] = [Way::Epochs, Way::Wsnap, Way::Resumed, Way::Asyncify];

const LEFT: f64 = 130.0;
const RIGHT: f64 = 870.0;
const WIDTH: f64 = 900.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const MARK: f64 = 4.0;

/// A logarithmic axis from left to right.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis on which all ratios have a place, and 1 has.
    fn over(ratios: impl Iterator<Item = f64>) -> Self {
        let (from, to) = ratios.fold((1.0, 1.1), |(from, to): (f64, f64), ratio| {
            (from.min(ratio), to.max(ratio))
        });
        Self {
            from: from * 0.97,
            to: to * 1.05,
        }
    }

    fn x(&self, ratio: f64) -> f64 {
        let part = (ratio / self.from).ln() / (self.to / self.from).ln();
        LEFT + part * (RIGHT - LEFT)
    }

    /// Round numbers on the axis.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        const TICKS: [f64; 19] = [
            0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0, 10.0,
            20.0, 50.0, 100.0,
        ];
        TICKS
            .into_iter()
            .filter(|tick| (self.from..=self.to).contains(tick))
    }

    /// The axis with its vertical lines, down to `bottom`.
    fn draw(&self, bottom: f64) -> Group {
        let mut group = Group::new();
        for tick in self.ticks() {
            let x = self.x(tick);
            let stroke = if tick == 1.0 { "black" } else { "#bbb" };
            group.append(line(x, TOP - 10.0, x, bottom, stroke));
            group.append(text(x, bottom + 16.0, "middle", tick));
        }
        let title = "run time relative to bare wasmtime, logarithmic";
        group.append(text(
            f64::midpoint(LEFT, RIGHT),
            bottom + 36.0,
            "middle",
            title,
        ));
        group
    }
}

/// One line per program, with a mark for the median of each way and a stroke from least to most.
pub fn by_program(programs: &[Program]) -> String {
    let lane = 5.0 + NEAR.len() as f64 * 6.0;
    let bottom = TOP + programs.len() as f64 * lane;
    let spreads = |program: &Program| NEAR.map(|way| program.run.ratio(way, Way::Bare));
    let axis = Axis::over(
        programs
            .iter()
            .flat_map(spreads)
            .flatten()
            .flat_map(|spread| [spread.min, spread.max]),
    );
    let mut document = page(bottom + BOTTOM).add(axis.draw(bottom)).add(legend());
    for (index, program) in programs.iter().enumerate() {
        let top = TOP + index as f64 * lane;
        document.append(line(LEFT, top, RIGHT, top, "#ddd"));
        document.append(text(
            LEFT - 8.0,
            top + lane / 2.0 + 4.0,
            "end",
            &program.name,
        ));
        for (place, (way, spread)) in NEAR.into_iter().zip(spreads(program)).enumerate() {
            let Some(spread) = spread else { continue };
            let y = top + 6.0 + place as f64 * 6.0;
            document.append(line(axis.x(spread.min), y, axis.x(spread.max), y, "black"));
            document.append(mark(way, axis.x(spread.median), y));
        }
    }
    document.to_string()
}

/// One line per way, with a mark for each program and a tall stroke at the geometric mean.
pub fn by_way(programs: &[Program]) -> String {
    const LANE: f64 = 60.0;
    let ways: Vec<(Way, Summary<'_>)> = Way::ALL
        .into_iter()
        .filter(|way| *way != Way::Bare)
        .map(|way| (way, Summary::of(programs, way, Way::Bare)))
        .filter(|(_, summary)| !summary.ratios.is_empty())
        .collect();
    let bottom = TOP + ways.len() as f64 * LANE;
    let ratios = ways.iter().flat_map(|(_, summary)| &summary.ratios);
    let axis = Axis::over(ratios.map(|(_, ratio)| *ratio));
    let mut document = page(bottom + BOTTOM).add(axis.draw(bottom));
    for (index, (way, summary)) in ways.iter().enumerate() {
        let y = TOP + (index as f64 + 0.5) * LANE;
        document.append(text(LEFT - 8.0, y + 4.0, "end", way));
        document.append(line(LEFT, y, RIGHT, y, "#ddd"));
        for (_, ratio) in &summary.ratios {
            document.append(mark(*way, axis.x(*ratio), y));
        }
        let mean = axis.x(summary.mean());
        document.append(line(mean, y - 16.0, mean, y + 16.0, "black").set("stroke-width", 3));
        let label = format!("mean {:.2}", summary.mean());
        document.append(text(mean, y - 19.0, "middle", label));
        if let Some((name, ratio)) = summary.worst() {
            document.append(text(
                axis.x(ratio),
                y + 18.0,
                "middle",
                format!("{name} {ratio:.2}"),
            ));
        }
    }
    document.to_string()
}

fn page(height: f64) -> Document {
    let background = Path::new()
        .set("d", format!("M0 0H{WIDTH}V{height}H0Z"))
        .set("fill", "white");
    Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", "sans-serif")
        .set("font-size", 11)
        .add(background)
}

fn legend() -> Group {
    let mut group = Group::new();
    for (index, way) in NEAR.into_iter().enumerate() {
        let x = LEFT + index as f64 * 110.0;
        group.append(mark(way, x + MARK, 26.0));
        group.append(text(x + 14.0, 30.0, "start", way));
    }
    group.append(text(
        LEFT,
        48.0,
        "start",
        "A mark is a median, the stroke through it goes from least to most.",
    ));
    group
}

/// The mark of a way.
fn mark(way: Way, x: f64, y: f64) -> Path {
    let r = MARK;
    let (outline, fill) = match way {
        Way::Bare => (format!("M{} {y}h{}", x - r, 2.0 * r), "none"),
        // A hollow square, a full disc, a hollow disc, a triangle, a cross.
        Way::Epochs => (
            format!("M{} {}h{d}v{d}h-{d}z", x - r, y - r, d = 2.0 * r),
            "white",
        ),
        Way::Wsnap => (disc(x, y), "black"),
        Way::Resumed => (disc(x, y), "white"),
        Way::Asyncify => (
            format!("M{x} {}l{r} {d}h-{d}z", y - r, d = 2.0 * r),
            "white",
        ),
        Way::Wasmi => (
            format!("M{} {}l{d} {d}m0 -{d}l-{d} {d}", x - r, y - r, d = 2.0 * r),
            "none",
        ),
    };
    Path::new()
        .set("d", outline)
        .set("fill", fill)
        .set("stroke", "black")
}

fn disc(x: f64, y: f64) -> String {
    let (r, d) = (MARK, 2.0 * MARK);
    format!("M{} {y}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", x - r)
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64, stroke: &str) -> Line {
    Line::new()
        .set("x1", x1)
        .set("y1", y1)
        .set("x2", x2)
        .set("y2", y2)
        .set("stroke", stroke)
}

fn text(x: f64, y: f64, anchor: &str, content: impl Display) -> Text {
    Text::new(content.to_string())
        .set("x", x)
        .set("y", y)
        .set("text-anchor", anchor)
}

#[cfg(test)]
mod tests {
    use super::{Axis, LEFT, RIGHT};

    #[test]
    fn all_ratios_have_a_place_between_the_ends_and_one_has() {
        let axis = Axis::over([0.8, 30.0].into_iter());
        for ratio in [0.8, 1.0, 30.0] {
            assert!((LEFT..=RIGHT).contains(&axis.x(ratio)), "{ratio}");
        }
        assert!(axis.ticks().any(|tick| tick == 1.0));
        assert!(
            axis.ticks()
                .all(|tick| (LEFT..=RIGHT).contains(&axis.x(tick)))
        );
    }
}
