//! The metrics as text, in the format that the scraper asks for.
//!
//! `OpenMetrics` is what the library writes; the older Prometheus format is made
//! from it, because scrapers and people that do not ask for `OpenMetrics` expect it.

use std::fmt::Write;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Prometheus,
}

impl Format {
    /// The format that an `Accept` header prefers; the older one if it names neither.
    pub fn accepted(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::Prometheus);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next() {
                Some("application/openmetrics-text") => Self::OpenMetrics,
                Some("text/plain") => Self::Prometheus,
                _ => continue,
            };
            let quality = parts
                .find_map(|parameter| parameter.strip_prefix("q="))
                .map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// The `Content-Type` of this format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

pub(super) fn render(registry: &Registry, format: Format) -> String {
    let mut text = String::new();
    text::encode(&mut text, registry).expect("a string takes all that is written");
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => to_prometheus(&text),
    }
}

/// In the older format the type of a counter names the sample, `_total` included,
/// and units and the end are not told.
fn to_prometheus(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let kind = lines
            .next_if(|next| next.starts_with("# TYPE "))
            .and_then(|next| next.rsplit_once(' '))
            .map_or("untyped", |(_, kind)| kind);
        let suffix = if kind == "counter" { "_total" } else { "" };
        writeln!(
            out,
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}"
        )
        .expect("a string takes all that is written");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_ask_for() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, format) in [
            (Some(prometheus_3), Format::OpenMetrics),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("text/plain"), Format::Prometheus),
            (
                Some("text/plain, application/openmetrics-text;q=0.2"),
                Format::Prometheus,
            ),
            (
                Some("application/openmetrics-text; q=0"),
                Format::Prometheus,
            ),
            (Some("*/*"), Format::Prometheus),
            (Some("text/html;q=x,;,"), Format::Prometheus),
            (None, Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_older_format_names_counters_by_their_samples() {
        let open = "# HELP a_seconds What a is.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
            a_seconds_total 1\n# HELP b What b is.\n# TYPE b gauge\nb{c=\"d\"} 2\n# EOF\n";
        let old = "# HELP a_seconds_total What a is.\n# TYPE a_seconds_total counter\n\
            a_seconds_total 1\n# HELP b What b is.\n# TYPE b gauge\nb{c=\"d\"} 2\n";
        assert_eq!(to_prometheus(open), old);
    }
}
