//! The files of the workspace, read and, where they are Rust, parsed.

use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Endings of the files that people write.
const ENDINGS: [&str; 7] = ["rs", "md", "toml", "yml", "yaml", "json", "sh"];

/// One file.
pub(crate) struct Source {
    /// Its path below the workspace, with `/`.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
}

/// Lines of a file, counted from 1, both included.
pub(crate) type Lines = (usize, usize);

/// What the rules want to know of a Rust file.
#[derive(Default)]
pub(crate) struct Outline {
    /// Every function with its name, from `fn` to the closing brace.
    pub(crate) functions: Vec<(String, Lines)>,
    /// Every inline module with its name.
    pub(crate) modules: Vec<(String, Lines)>,
    /// Inline modules that are only there for tests.
    pub(crate) tests: Vec<Lines>,
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        self.ends_in("rs")
    }

    pub(crate) fn is_markdown(&self) -> bool {
        self.ends_in("md")
    }

    fn ends_in(&self, ending: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|own| own == ending)
    }

    /// Whether a link in it leads to a file.
    pub(crate) fn leads_to(&self, link: &str) -> bool {
        root()
            .join(&self.path)
            .with_file_name("")
            .join(link)
            .exists()
    }

    /// Whether it holds the tests of the module beside it, and no more.
    pub(crate) fn is_unit_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.ends_with("_tests.rs")
    }

    /// The file's functions and modules.
    pub(crate) fn outline(&self) -> Outline {
        let file = syn::parse_file(&self.text)
            .unwrap_or_else(|error| panic!("{} does not parse: {error}", self.path));
        let mut outline = Outline::default();
        outline.visit_file(&file);
        outline
    }

    /// The lines on which the word `name` stands as code, inside macros too.
    pub(crate) fn lines_of(&self, name: &str) -> Vec<usize> {
        let tokens: TokenStream = self.text.parse().expect("it was parsed as a file before");
        let mut lines = Vec::new();
        collect(tokens, name, &mut lines);
        lines
    }
}

fn collect(tokens: TokenStream, name: &str, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect(group.stream(), name, lines),
            TokenTree::Ident(ident) if ident == name => lines.push(ident.span().start().line),
            _ => {}
        }
    }
}

impl Outline {
    fn function(&mut self, signature: &syn::Signature, end: &impl Spanned) {
        let lines = (signature.span().start().line, end.span().end().line);
        self.functions.push((signature.ident.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Outline {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, item);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            let lines = (item.span().start().line, item.span().end().line);
            self.modules.push((item.ident.to_string(), lines));
            if item.attrs.iter().any(is_cfg_test) {
                self.tests.push(lines);
            }
        }
        visit::visit_item_mod(self, item);
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Ident>()
            .is_ok_and(|what| what == "test")
}

/// Every file of the workspace that people write. Hidden directories are those
/// of tools, but for the CI's own.
pub(crate) fn all() -> Vec<Source> {
    let mut sources = Vec::new();
    walk(root(), "", &mut sources);
    sources
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

fn walk(root: &Path, below: &str, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(root.join(below)).expect("the workspace can be read");
    for entry in entries {
        let entry = entry.expect("the workspace can be read");
        let name = entry.file_name().into_string().expect("names are plain");
        let path = format!("{below}{name}");
        let hidden = name.starts_with('.') && ![".ci", ".github", ".cargo"].contains(&&*name);
        if hidden || ["target", "fuzz/target"].contains(&path.as_str()) {
            continue;
        }
        if entry.file_type().expect("it has a type").is_dir() {
            walk(root, &format!("{path}/"), sources);
        } else if is_written(&path) {
            let text = fs::read_to_string(entry.path()).expect("it is text");
            sources.push(Source { path, text });
        }
    }
}

fn is_written(path: &str) -> bool {
    let ending = Path::new(path)
        .extension()
        .and_then(|ending| ending.to_str());
    path.starts_with(".ci/") || ending.is_some_and(|ending| ENDINGS.contains(&ending))
}
