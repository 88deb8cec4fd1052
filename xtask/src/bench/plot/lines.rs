//! Line plots as SVG: sizes on a logarithmic axis, nanoseconds on another.
//!
//! Knows nothing of what is plotted.

use super::{canvas, escaped, label, push, time};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 56.0;
/// Told apart by people who see few colours too.
const COLOURS: [&str; 9] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#882255",
    "#000000",
];
/// Labels at the ends of lines are at least this far apart.
const LABEL_GAP: f64 = 16.0;

/// A line: its name, and its points by size.
pub(in crate::bench) struct Line {
    /// Shown at its end.
    pub(in crate::bench) title: String,
    /// Sizes and nanoseconds, both above zero.
    pub(in crate::bench) points: Vec<(f64, f64)>,
}

/// A plot of `lines`.
pub(in crate::bench) fn svg(title: &str, x_title: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = Scale::around(all().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Scale::around(all().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let mut text = canvas(title, (WIDTH, HEIGHT), LEFT);
    for decade in x.decades() {
        let at = x.place(decade);
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        line(&mut text, (at, top), (at, bottom), "#e4e4e4");
        label(&mut text, (at, bottom + 18.0), "middle", &count(decade));
    }
    for decade in y.decades() {
        let at = y.place(decade);
        line(&mut text, (LEFT, at), (WIDTH - RIGHT, at), "#e4e4e4");
        label(&mut text, (LEFT - 8.0, at + 4.0), "end", &time(decade));
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    label(&mut text, (middle, HEIGHT - 12.0), "middle", x_title);
    for (index, colour) in (0..lines.len()).zip(COLOURS.iter().cycle()) {
        curve(&mut text, &lines[index], colour, &x, &y);
    }
    for (at, index) in label_places(lines, &y) {
        let Some((_, last)) = lines[index].points.last() else {
            continue;
        };
        let words = format!("{} {}", lines[index].title, time(*last));
        let colour = COLOURS[index % COLOURS.len()];
        push(
            &mut text,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>\n",
                WIDTH - RIGHT + 10.0,
                at + 4.0,
                escaped(&words)
            ),
        );
    }
    text + "</svg>\n"
}

fn curve(text: &mut String, line: &Line, colour: &str, x: &Scale, y: &Scale) {
    let mut path = String::new();
    for (size, nanos) in &line.points {
        let (left, top) = (x.place(*size), y.place(*nanos));
        push(&mut path, format_args!("{left:.1},{top:.1} "));
        push(
            text,
            format_args!("<circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"3\" fill=\"{colour}\"/>\n"),
        );
    }
    push(
        text,
        format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            path.trim_end()
        ),
    );
}

/// Where each line's label goes: at the line's end, but never over another one.
fn label_places(lines: &[Line], y: &Scale) -> Vec<(f64, usize)> {
    let mut places: Vec<(f64, usize)> = lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| Some((y.place(line.points.last()?.1), index)))
        .collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    for index in 1..places.len() {
        places[index].0 = places[index].0.max(places[index - 1].0 + LABEL_GAP);
    }
    places
}

/// A logarithmic axis of whole decades.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let low = if low.is_finite() {
            low.log10().floor()
        } else {
            0.0
        };
        let high = high.max(1.0).log10().ceil().max(low + 1.0);
        Self {
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low, self.high);
        (0..=16_u8)
            .map(move |step| low + f64::from(step))
            .take_while(move |decade| *decade <= high)
            .map(|decade| 10_f64.powf(decade))
    }
}

fn line(text: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    push(
        text,
        format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\n",
            from.0, from.1, to.0, to.1
        ),
    );
}

/// 1000 as `1k`.
fn count(value: f64) -> String {
    if value >= 1000.0 {
        format!("{:.0}k", value / 1000.0)
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_inside() {
        let lines = [
            Line {
                title: "a < b".into(),
                points: vec![(1.0, 120.0), (100_000.0, 2e6)],
            },
            Line {
                title: "c".into(),
                points: vec![(1.0, 119.0), (100_000.0, 1.9e6)],
            },
        ];
        let text = svg("t", "x", &lines);
        assert!(text.contains("a &lt; b 2 ms"), "{text}");
        for line in text.lines().filter(|line| line.starts_with("<circle")) {
            let number = |name: &str| -> f64 {
                let (_, rest) = line.split_once(name).unwrap();
                rest.split('"').nth(1).unwrap().parse().unwrap()
            };
            assert!((LEFT..=WIDTH - RIGHT).contains(&number("cx=")), "{line}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&number("cy=")), "{line}");
        }
        let places = label_places(&lines, &Scale::around([1.0, 2e6].into_iter(), 400.0, 0.0));
        assert!(places[1].0 - places[0].0 >= LABEL_GAP);
    }
}
