//! One metric family after another, in the format that the encoder writes.
//!
//! Must never know what a family means.

use std::fmt::Error;
use std::time::Duration;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::labels::LabelSet;

/// Where families are written to.
pub(super) struct Out<'e>(DescriptorEncoder<'e>);

impl<'e> Out<'e> {
    /// Writes to `encoder`.
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// Rows of labels, buckets and the sum in microseconds.
    pub(super) fn histogram<'l>(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[Duration],
        rows: impl IntoIterator<Item = (LabelSet<'l>, &'l [u64], u64)>,
    ) -> Result<(), Error> {
        let mut encoder =
            self.0
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let bounds = bounds.iter().map(Duration::as_secs_f64);
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        for (labels, counts, micros) in rows {
            let buckets: Vec<(f64, u64)> =
                bounds.iter().copied().zip(counts.iter().copied()).collect();
            let seconds = Duration::from_micros(micros).as_secs_f64();
            encoder
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(seconds, counts.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }

    /// Rows of labels and values.
    pub(super) fn counter<'l, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (LabelSet<'l>, V)>,
    ) -> Result<(), Error> {
        let descriptor = (name, help, unit, MetricType::Counter);
        self.family(descriptor, rows, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// Rows of labels and values.
    pub(super) fn gauge<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (LabelSet<'l>, V)>,
    ) -> Result<(), Error> {
        let descriptor = (name, help, unit, MetricType::Gauge);
        self.family(descriptor, rows, |encoder, value| {
            encoder.encode_gauge(&value)
        })
    }

    /// A row without labels is the family itself.
    fn family<'l, V>(
        &mut self,
        (name, help, unit, kind): (&str, &str, Option<&Unit>, MetricType),
        rows: impl IntoIterator<Item = (LabelSet<'l>, V)>,
        encode: impl Fn(&mut MetricEncoder<'_>, V) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut encoder = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                encode(&mut encoder, value)?;
            } else {
                encode(&mut encoder.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}
