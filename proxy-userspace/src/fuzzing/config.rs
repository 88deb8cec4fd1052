//! What an operator sends: documents, patches, selectors.

use serde_json::{Value, json};

use crate::admin::selector::{Label, Selector};
use crate::config::{PatchType, Source, parse, parse_value, patch, to_yaml};

/// Documents: an object that is taken has a document that is that object.
pub fn documents(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let _either = (text.parse::<Selector>(), text.parse::<Label>());
    match parse(&[Source::new("fuzz", text)]) {
        Ok(parsed) => {
            for object in parsed.objects {
                let document = object.to_json();
                let again = parse_value("again", &document).expect("it is canonical");
                assert_eq!(again.objects, std::slice::from_ref(&object));
                let yaml = parse(&[Source::new("yaml", to_yaml(&document))]);
                assert_eq!(yaml.expect("it is canonical").objects, [object]);
            }
        }
        Err(mistakes) => {
            let _text = mistakes.to_string();
        }
    }
}

/// Patches of a rule, both forms: the result is a document, or there is none.
pub fn patches(bytes: &[u8]) {
    let current = json!({
        "apiVersion": "weir.dev/v1",
        "kind": "RouteRule",
        "metadata": { "name": "a", "namespace": "b" },
        "spec": {
            "destination": { "name": "c" },
            "precedence": 1,
            "route": [{ "labels": { "version": "v1" }, "weight": 100 }],
        },
    });
    for kind in [PatchType::Merge, PatchType::Json] {
        if let Ok(patched) = patch(&current, kind, bytes) {
            object(&patched);
        }
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _known = PatchType::from_content_type(text);
    }
}

fn object(document: &Value) {
    if let Ok(parsed) = parse_value("patched", document) {
        for object in parsed.objects {
            let again = parse_value("again", &object.to_json()).expect("it is canonical");
            assert_eq!(again.objects, [object]);
        }
    }
}
