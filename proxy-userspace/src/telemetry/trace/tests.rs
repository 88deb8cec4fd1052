use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn never() -> Tracer {
    Tracer::new(Sampling::new(0.0).unwrap())
}

fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    assert!(values.next().is_none(), "{name} came out twice");
    Some(value.to_str().unwrap())
}

/// Headers that hold both forms, with the same ids and decision.
fn assert_complete(headers: &HeaderMap, trace: &str, sampled: &str) {
    let parent = get(headers, "traceparent").unwrap();
    assert_eq!(&parent[3..35], trace);
    assert_eq!(&parent[53..], format!("0{sampled}"));
    assert_eq!(get(headers, "x-b3-traceid"), Some(trace));
    assert_eq!(get(headers, "x-b3-spanid"), Some(&parent[36..52]));
    assert_eq!(get(headers, "x-b3-sampled"), Some(sampled));
}

fn prepared(pairs: &[(&'static str, &str)]) -> (HeaderMap, Trace) {
    let mut headers = headers(pairs);
    let trace = never().prepare(&mut headers);
    (headers, trace)
}

#[test]
fn a_request_without_headers_starts_a_trace_in_both_forms() {
    let (headers, trace) = prepared(&[]);
    assert_complete(&headers, trace.trace_id(), "0");
    assert_eq!(get(&headers, "x-request-id"), Some(trace.request_id()));
    let form =
        regex::Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$");
    assert!(
        form.unwrap().is_match(trace.request_id()),
        "{}",
        trace.request_id()
    );
}

#[test]
fn ids_differ_between_requests_and_threads() {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let ids = std::thread::spawn(|| {
            let tracer = never();
            (0..500)
                .map(|_| tracer.prepare(&mut HeaderMap::new()))
                .map(|trace| (trace.request_id().to_owned(), trace.trace_id().to_owned()))
                .collect::<Vec<_>>()
        });
        for (request, trace) in ids.join().unwrap() {
            assert!(seen.insert(request) && seen.insert(trace));
        }
    }
}

#[test]
fn the_share_of_sampled_traces_is_as_configured() {
    for (share, bounds) in [(0.0, 0..=0), (0.25, 150..=350), (1.0, 1000..=1000)] {
        let tracer = Tracer::new(Sampling::new(share).unwrap());
        let sampled = (0..1000).filter(|_| {
            let mut headers = HeaderMap::new();
            tracer.prepare(&mut headers);
            get(&headers, "x-b3-sampled") == Some("1")
        });
        assert!(bounds.contains(&sampled.count()), "{share}");
    }
    assert_eq!(Sampling::new(1.1), None);
    assert_eq!(Sampling::new(f64::NAN), None);
}

#[test]
fn complete_headers_pass_unchanged() {
    let several = [
        ("traceparent", PARENT),
        ("tracestate", "congo=t61rcWkgMzE"),
        ("tracestate", "rojo=00f067aa0ba902b7"),
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-parentspanid", "0000000000000001"),
        ("x-b3-sampled", "1"),
        ("x-request-id", "mine"),
    ];
    let single = [
        ("traceparent", PARENT),
        (
            "b3",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90",
        ),
        ("x-request-id", "mine"),
    ];
    for pairs in [&several[..], &single] {
        let (after, trace) = prepared(pairs);
        assert_eq!(after, headers(pairs));
        assert_eq!((trace.request_id(), trace.trace_id()), ("mine", TRACE));
    }
}

#[test]
fn the_missing_form_is_made_from_the_other() {
    let (after, _) = prepared(&[("traceparent", PARENT)]);
    assert_complete(&after, TRACE, "1");
    assert_eq!(get(&after, "traceparent"), Some(PARENT));

    let several = [
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-sampled", "1"),
    ];
    let (after, trace) = prepared(&several);
    assert_complete(&after, TRACE, "1");
    assert_eq!(trace.trace_id(), TRACE);

    let (after, _) = prepared(&[("b3", &format!("{TRACE}-{SPAN}-d"))]);
    assert_eq!(get(&after, "traceparent"), Some(PARENT));
    assert_eq!(
        get(&after, "x-b3-traceid"),
        None,
        "the single form suffices"
    );
}

#[test]
fn short_and_upper_case_b3_ids_become_w3c_ids() {
    let short = "8448EB211C80319C";
    let (after, trace) = prepared(&[("x-b3-traceid", short), ("x-b3-spanid", SPAN)]);
    assert_eq!(
        get(&after, "x-b3-traceid"),
        Some(short),
        "passed on as it came"
    );
    assert_eq!(trace.trace_id(), "00000000000000008448eb211c80319c");
    assert_eq!(
        &get(&after, "traceparent").unwrap()[3..35],
        trace.trace_id()
    );
    assert_eq!(
        get(&after, "x-b3-sampled"),
        None,
        "the decision stays deferred"
    );
}

#[test]
fn a_decision_without_ids_is_kept() {
    for (pairs, sampled) in [
        (&[("x-b3-sampled", "1")][..], "1"),
        (&[("x-b3-sampled", "false")], "0"),
        (&[("x-b3-flags", "1")], "1"),
        (&[("b3", "0")], "0"),
        (&[("b3", "d")], "1"),
    ] {
        let (after, _) = prepared(pairs);
        for (name, value) in pairs {
            assert_eq!(get(&after, name), Some(*value));
        }
        assert!(
            get(&after, "traceparent").unwrap().ends_with(sampled),
            "{pairs:?}"
        );
        let is_single = pairs[0].0 == "b3";
        assert_eq!(after.contains_key("x-b3-traceid"), !is_single, "{pairs:?}");
    }
}

#[test]
fn a_malformed_traceparent_restarts_the_trace() {
    let zero_trace = format!("00-{}-{SPAN}-01", "0".repeat(32));
    let zero_span = format!("00-{TRACE}-{}-01", "0".repeat(16));
    for parent in [
        "",
        "00",
        &PARENT.to_uppercase(),
        &PARENT.replace("00-", "ff-"),
        &format!("{PARENT}-"),
        &format!("{PARENT}-more"),
        &PARENT[..54],
        &PARENT.replace('-', "_"),
        &zero_trace,
        &zero_span,
        &PARENT.replace("00-0af7", "0-00af7"),
        &PARENT.replace("31-01", "31--1"),
    ] {
        let (after, trace) = prepared(&[("traceparent", parent), ("tracestate", "a=b")]);
        assert_ne!(trace.trace_id(), TRACE, "{parent}");
        assert_complete(&after, trace.trace_id(), "0");
        assert_eq!(get(&after, "tracestate"), None, "{parent}");
    }
    let (after, _) = prepared(&[("traceparent", PARENT), ("traceparent", PARENT)]);
    assert_ne!(get(&after, "traceparent"), Some(PARENT), "two are none");
    let (after, _) = prepared(&[("tracestate", "a=b")]);
    assert_eq!(get(&after, "tracestate"), None, "it belongs to nothing");
}

#[test]
fn later_versions_of_traceparent_pass() {
    for parent in [
        PARENT.replace("00-", "01-"),
        format!("{}-and-more", PARENT.replace("00-", "cc-")),
    ] {
        let (after, trace) = prepared(&[("traceparent", &parent)]);
        assert_eq!(get(&after, "traceparent"), Some(parent.as_str()));
        assert_eq!(trace.trace_id(), TRACE);
    }
    let odd_end = format!("{}x", PARENT.replace("00-", "01-"));
    assert_ne!(prepared(&[("traceparent", &odd_end)]).1.trace_id(), TRACE);
}

#[test]
fn flags_other_than_sampled_do_not_matter() {
    for (flags, sampled) in [
        ("00", "0"),
        ("02", "0"),
        ("03", "1"),
        ("ff", "1"),
        ("fa", "0"),
    ] {
        let parent = format!("00-{TRACE}-{SPAN}-{flags}");
        let (after, _) = prepared(&[("traceparent", &parent)]);
        assert_eq!(get(&after, "x-b3-sampled"), Some(sampled), "{flags}");
    }
}

#[test]
fn malformed_b3_is_replaced() {
    for pairs in [
        &[("b3", "")][..],
        &[("b3", "2")],
        &[("b3", TRACE)],
        &[("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b71692033")],
        &[("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-x")],
        &[(
            "b3",
            "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-1",
        )],
        &[(
            "b3",
            "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-b7ad6b7169203331-",
        )],
        &[("b3", "1"), ("b3", "1")],
        &[("x-b3-traceid", TRACE)],
        &[
            ("x-b3-spanid", SPAN),
            ("x-b3-parentspanid", SPAN),
            ("x-b3-flags", "1"),
        ],
        &[("x-b3-traceid", "xyz"), ("x-b3-spanid", SPAN)],
        &[("x-b3-traceid", "0000000000000000"), ("x-b3-spanid", SPAN)],
        &[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
            ("x-b3-sampled", "maybe"),
        ],
        &[
            ("x-b3-traceid", TRACE),
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
        ],
    ] {
        let (after, trace) = prepared(pairs);
        assert_complete(&after, trace.trace_id(), "0");
        for gone in ["b3", "x-b3-parentspanid", "x-b3-flags"] {
            assert_eq!(get(&after, gone), None, "{pairs:?}");
        }
        let with_parent = [&[("traceparent", PARENT)], pairs].concat();
        assert_complete(&prepared(&with_parent).0, TRACE, "1");
    }
}

#[test]
fn request_ids_that_cannot_be_used_are_replaced() {
    let long = "a".repeat(REQUEST_ID_MAX + 1);
    for id in ["", "two words", &long] {
        let (after, trace) = prepared(&[("x-request-id", id)]);
        assert_eq!(trace.request_id().len(), 36, "{id}");
        assert_eq!(get(&after, "x-request-id"), Some(trace.request_id()));
    }
    let (after, _) = prepared(&[("x-request-id", "a"), ("x-request-id", "b")]);
    assert_eq!(get(&after, "x-request-id").map(str::len), Some(36));
}
