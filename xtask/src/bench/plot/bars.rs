//! Horizontal bars, the longest as wide as there is room.

use super::{canvas, label, push};

const WIDTH: f64 = 760.0;
/// Room for the bars' names.
const LEFT: f64 = 210.0;
/// Room for the values behind the bars.
const RIGHT: f64 = 90.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 14.0;
const HIGH: f64 = 18.0;
const STEP: f64 = 26.0;

/// One bar.
pub(in crate::bench) struct Bar {
    /// Its name.
    pub(in crate::bench) title: &'static str,
    /// Its length; not below zero.
    pub(in crate::bench) value: f64,
    /// The value in words.
    pub(in crate::bench) words: String,
    /// Its colour, as SVG has them.
    pub(in crate::bench) colour: &'static str,
}

/// A plot of `bars`, from top to bottom.
pub(in crate::bench) fn svg(title: &str, bars: &[Bar]) -> String {
    let rows = bars.iter().scan(TOP, |top, bar| {
        let own = *top;
        *top += STEP;
        Some((own, bar))
    });
    let height = rows.clone().last().map_or(TOP, |(top, _)| top + STEP) + BOTTOM;
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let mut text = canvas(title, (WIDTH, height), 16.0);
    for (top, bar) in rows {
        let share = if most > 0.0 { bar.value / most } else { 0.0 };
        let width = share * (WIDTH - LEFT - RIGHT);
        push(
            &mut text,
            format_args!(
                "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"{HIGH}\" \
                 fill=\"{}\"/>\n",
                bar.colour
            ),
        );
        label(&mut text, (LEFT - 8.0, top + 14.0), "end", bar.title);
        let behind = LEFT + width + 6.0;
        label(&mut text, (behind, top + 14.0), "start", &bar.words);
    }
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_takes_the_room() {
        let bar = |value| Bar {
            title: "a < b",
            value,
            words: value.to_string(),
            colour: "red",
        };
        let text = svg("t", &[bar(5.0), bar(10.0), bar(0.0)]);
        let widths: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("<rect x="))
            .filter_map(|line| line.split("width=").nth(1)?.split('"').nth(1))
            .collect();
        assert_eq!(widths, ["230.0", "460.0", "0.0"]);
        assert!(text.contains("a &lt; b"), "{text}");
        assert!(svg("none", &[]).ends_with("</svg>\n"));
    }
}
