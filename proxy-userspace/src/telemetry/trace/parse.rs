//! The trace headers of a request, read strictly.

use hyper::HeaderMap;
use hyper::header::HeaderName;

use super::{B3_FLAGS, B3_SAMPLED, B3_SINGLE, B3_SPAN, B3_TRACE, Context, TRACEPARENT};

/// The `traceparent` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum W3c {
    Absent,
    Invalid,
    Valid(Context),
}

impl W3c {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        match sole(headers, &TRACEPARENT) {
            Sole::None => Self::Absent,
            Sole::Several => Self::Invalid,
            Sole::One(value) => traceparent(value).map_or(Self::Invalid, Self::Valid),
        }
    }
}

/// The B3 headers of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum B3 {
    Absent,
    Invalid,
    /// No ids yet, but whether to sample is decided.
    Decision(bool),
    Valid(Context),
}

impl B3 {
    /// The single header counts before the several, as its specification says.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        match sole(headers, &B3_SINGLE) {
            Sole::One(value) => single(value).unwrap_or(Self::Invalid),
            Sole::Several => Self::Invalid,
            Sole::None => several(headers).unwrap_or(Self::Invalid),
        }
    }
}

enum Sole<'a> {
    None,
    One(&'a [u8]),
    Several,
}

fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Sole<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Sole::None,
        (Some(value), None) => Sole::One(value.as_bytes()),
        _ => Sole::Several,
    }
}

/// `version-trace-span-flags`; a later version may add fields at the end.
fn traceparent(value: &[u8]) -> Option<Context> {
    let (fixed, rest) = value.split_at_checked(55)?;
    let mut fields = fixed.split(|byte| *byte == b'-');
    let (version, trace, span, flags) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let is_hex = |field: &[u8]| {
        field
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if fields.next().is_some() || ![version, trace, span, flags].into_iter().all(is_hex) {
        return None;
    }
    let [_, low] = *flags else { return None };
    let rest_fits = match version {
        b"ff" => false,
        b"00" => rest.is_empty(),
        _ => version.len() == 2 && (rest.is_empty() || rest.starts_with(b"-")),
    };
    let context = Context {
        trace: trace.try_into().ok().filter(is_set)?,
        span: span.try_into().ok().filter(is_set)?,
        // The lowest bit of the flags.
        sampled: Some(matches!(
            low,
            b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f'
        )),
    };
    rest_fits.then_some(context)
}

/// `trace-span`, `trace-span-state`, `trace-span-state-parent` or `state`.
fn single(value: &[u8]) -> Option<B3> {
    let mut fields = value.split(|byte| *byte == b'-');
    let first = fields.next()?;
    let Some(span) = fields.next() else {
        return state(first).map(B3::Decision);
    };
    let sampled = match fields.next() {
        Some(field) => Some(state(field)?),
        None => None,
    };
    let parent = fields.next();
    if parent.is_some_and(|parent| span_id(parent).is_none()) || fields.next().is_some() {
        return None;
    }
    Some(B3::Valid(Context {
        trace: trace_id(first)?,
        span: span_id(span)?,
        sampled,
    }))
}

fn several(headers: &HeaderMap) -> Option<B3> {
    let field = |name| match sole(headers, name) {
        Sole::None => Some(None),
        Sole::One(value) => Some(Some(value)),
        Sole::Several => None,
    };
    let sampled = match (field(&B3_FLAGS)?, field(&B3_SAMPLED)?) {
        (Some(b"1"), _) | (_, Some(b"true")) => Some(true),
        (_, Some(b"false")) => Some(false),
        (_, Some(value)) => Some(state(value)?),
        (_, None) => None,
    };
    match (field(&B3_TRACE)?, field(&B3_SPAN)?) {
        (None, None) => Some(sampled.map_or(B3::Absent, B3::Decision)),
        (Some(trace), Some(span)) => Some(B3::Valid(Context {
            trace: trace_id(trace)?,
            span: span_id(span)?,
            sampled,
        })),
        _ => None,
    }
}

/// Whether a sampling state says to sample; `d` is debug, which implies it.
fn state(field: &[u8]) -> Option<bool> {
    match field {
        b"0" => Some(false),
        b"1" | b"d" => Some(true),
        _ => None,
    }
}

/// 64 or 128 bits; the shorter form is filled up with zeros.
fn trace_id(field: &[u8]) -> Option<[u8; 32]> {
    let mut id = [b'0'; 32];
    match field.len() {
        16 => id[16..].copy_from_slice(field),
        32 => id.copy_from_slice(field),
        _ => return None,
    }
    lower_hex(id)
}

fn span_id(field: &[u8]) -> Option<[u8; 16]> {
    lower_hex(field.try_into().ok()?)
}

fn lower_hex<const N: usize>(mut id: [u8; N]) -> Option<[u8; N]> {
    id.make_ascii_lowercase();
    (id.iter().all(u8::is_ascii_hexdigit) && is_set(&id)).then_some(id)
}

/// All zero means no id.
fn is_set<const N: usize>(id: &[u8; N]) -> bool {
    id.iter().any(|digit| *digit != b'0')
}
