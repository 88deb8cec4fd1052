//! Where in its document a value stands, and how messages say that.

use std::fmt::Write as _;
use std::rc::Rc;

use super::{Node, shortened};

/// The way from the document's root to a value.
pub(super) struct Path<'a> {
    /// That of the list or map around it; `None`: this is the root.
    pub(super) parent: Option<Rc<Self>>,
    pub(super) step: Step<'a>,
}

/// From a list or map to a value in it.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    /// None yet, at the root.
    Start,
    Field(&'a str),
    Item(usize),
}

impl Path<'_> {
    fn write(&self, out: &mut String) {
        if let Some(parent) = &self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Start => {}
            Step::Field(name) => {
                // A key with dots in it, such as a label's, must not read as a path.
                if name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                {
                    let dot = if out.is_empty() { "" } else { "." };
                    let _infallible = write!(out, "{dot}{name}");
                } else {
                    let _infallible = write!(out, "[{}]", Node::String(shortened(name).into()));
                }
            }
            Step::Item(index) => {
                let _infallible = write!(out, "[{index}]");
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}
