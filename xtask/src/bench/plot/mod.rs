//! Plots as SVG, without a library: what both kinds share.
//!
//! Knows nothing of what is plotted.

mod bars;
mod lines;

use std::fmt::Write as _;

pub(super) use bars::{Bar, svg as bars};
pub(super) use lines::{Line, svg as lines};

/// The beginning of a plot of this size, with its title from `left` on.
fn canvas(title: &str, (width, height): (f64, f64), left: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"26\" font-size=\"16\">{}</text>\n",
        escaped(title)
    )
}

fn label(text: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    push(
        text,
        format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#444\">{}</text>\n",
            at.0,
            at.1,
            escaped(words)
        ),
    );
}

/// Nanoseconds, in the unit that people would use.
pub(super) fn time(nanos: f64) -> String {
    let (value, unit) = match nanos {
        _ if nanos.abs() >= 1e6 => (nanos / 1e6, "ms"),
        _ if nanos.abs() >= 1e3 => (nanos / 1e3, "µs"),
        _ => (nanos, "ns"),
    };
    if value.abs() >= 100.0 || unit == "ns" || (value - value.round()).abs() < 1e-9 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let times = [150.0, 1_000.0, 1_234.0, 123_400.0, 2e6, -1_234.0].map(time);
        assert_eq!(
            times,
            ["150 ns", "1 µs", "1.2 µs", "123 µs", "2 ms", "-1.2 µs"]
        );
    }
}
