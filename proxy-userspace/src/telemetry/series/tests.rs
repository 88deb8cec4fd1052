use super::super::cells::Count;
use super::*;

fn key<'a>(source: &'a str, destination: &'a str) -> Key<'a> {
    Key {
        source,
        destination,
        ..Key::default()
    }
}

fn count(handles: &Handles<Count>, key: Key<'_>) {
    handles.with(key, |cell| {
        cell.0.fetch_add(1, Ordering::Relaxed);
    });
}

fn shown(family: &Family<Count>) -> Vec<(String, String, u64)> {
    family
        .sums()
        .into_iter()
        .map(|(labels, sum)| {
            let key = labels.key();
            (key.source.to_owned(), key.destination.to_owned(), sum)
        })
        .collect()
}

#[test]
fn workers_are_added_up() {
    let family = Arc::new(Family::<Count>::new(100));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let family = family.clone();
            scope.spawn(move || {
                let handles = Handles::new(family, worker);
                for _ in 0..1000 {
                    count(&handles, key("a", "b"));
                    count(&handles, key("a", "c"));
                }
            });
        }
    });
    let series = |destination: &str| ("a".to_owned(), destination.to_owned(), 4000);
    assert_eq!(shown(&family), [series("b"), series("c")]);
}

#[test]
fn labels_past_the_limit_are_folded_and_nothing_is_lost() {
    let family = Arc::new(Family::<Count>::new(40));
    let handles = Handles::new(family.clone(), 0);
    for destination in 0..1000 {
        count(&handles, key("scanner", &destination.to_string()));
    }
    for source in 0..1000 {
        count(&handles, key(&source.to_string(), "x"));
    }
    let shown = shown(&family);
    assert!(shown.len() <= 40);
    assert_eq!(shown.iter().map(|(_, _, sum)| sum).sum::<u64>(), 2000);
    let folded = |source: &str| {
        shown
            .iter()
            .find(|(s, d, _)| s == source && d == OTHER)
            .map(|(_, _, sum)| *sum)
    };
    assert_eq!(folded("scanner"), Some(970), "one source keeps its name");
    assert!(folded(OTHER).is_some_and(|sum| sum > 900));
    assert!(family.folded() >= 1900);
}

#[test]
fn a_worker_remembers_no_more_than_the_limit() {
    let family = Arc::new(Family::<Count>::new(8));
    let handles = Handles::new(family, 0);
    for destination in 0..100 {
        count(&handles, key("a", &destination.to_string()));
        assert!(handles.known.borrow().len() <= 8);
    }
}

#[test]
fn series_of_gone_sources_expire_and_come_back_from_zero() {
    let family = Arc::new(Family::<Count>::new(40));
    let handles = Handles::new(family.clone(), 0);
    count(&handles, key("gone", "x"));
    count(&handles, key("here", "x"));
    count(&handles, key("", "x"));
    let sources = BTreeSet::from([Arc::from("here")]);
    let start = Instant::now();
    family.sweep(Some(&sources), start);
    family.sweep(Some(&sources), start + GONE_GRACE / 2);
    assert_eq!(shown(&family).len(), 3);
    family.sweep(Some(&sources), start + GONE_GRACE);
    let names: Vec<_> = shown(&family)
        .into_iter()
        .map(|(source, _, _)| source)
        .collect();
    assert_eq!(names, ["", "here"]);

    count(&handles, key("gone", "x"));
    assert!(shown(&family).contains(&("gone".to_owned(), "x".to_owned(), 1)));
}

#[test]
fn use_keeps_a_series_and_idleness_ends_it() {
    let family = Arc::new(Family::<Count>::new(40));
    let handles = Handles::new(family.clone(), 0);
    let start = Instant::now();
    count(&handles, key("a", "used"));
    count(&handles, key("a", "idle"));
    family.sweep(None, start);
    count(&handles, key("a", "used"));
    family.sweep(None, start + IDLE_MAX / 2);
    family.sweep(None, start + IDLE_MAX);
    assert_eq!(shown(&family), [("a".to_owned(), "used".to_owned(), 2)]);
}

#[test]
fn an_open_connection_pins_its_series() {
    use super::super::cells::Connections;
    let family = Arc::new(Family::<Connections>::new(40));
    let handles = Handles::new(family.clone(), 0);
    let cell = handles.with(key("a", "b"), Arc::clone);
    cell.opened.fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    family.sweep(None, start);
    family.sweep(None, start + IDLE_MAX);
    assert_eq!(family.sums().len(), 1);
    cell.closed.fetch_add(1, Ordering::Relaxed);
    family.sweep(None, start + IDLE_MAX);
    family.sweep(None, start + IDLE_MAX * 2);
    assert_eq!(family.sums().len(), 0);
}
