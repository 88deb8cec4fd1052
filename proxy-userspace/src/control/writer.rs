//! Every change, from the request to the receipt.
//!
//! Owns the former configuration until the next one is in force and stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::dataplane::{Dataplane, InstallError};
use super::refusal::Refusal;
use super::view::View;
use crate::admin::selector::Selector;
use crate::config::{
    self, Author, Change, Entry, Kind, Object, ObjectName, Objects, Parsed, PatchType, Receipt,
    Store, StoreError, Warning,
};

/// What `POST /v1/apply` does with an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Creates or changes it.
    #[default]
    Upsert,
    /// Creates it; refused if it is there.
    Create,
    /// Changes it; refused if it is not there.
    Replace,
}

/// Documents to put in force together.
#[derive(Debug)]
pub struct Batch {
    /// The documents.
    pub parsed: Parsed,
    /// What to do with each.
    pub mode: Mode,
    /// Deletes what carries these labels and is not among the documents.
    pub prune: Option<Selector>,
}

/// On whose behalf, and how far.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Who asks, and why.
    pub author: Author,
    /// Whether to stop before anything changes.
    pub dry_run: bool,
}

/// What a request takes the one object that it writes to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Whatever it is.
    #[default]
    Anything,
    /// There, in any version.
    Present,
    /// Not there.
    Absent,
    /// There, in this version.
    Version(String),
}

/// What became of one object.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// What it was; absent if it is new.
    pub before: Option<Object>,
    /// What it is; absent if it is gone.
    pub after: Option<Object>,
    /// Whether that is the same.
    pub unchanged: bool,
}

/// A change that was made, or in a dry run would have been.
#[derive(Clone, Debug)]
pub struct Done {
    /// What is in force now.
    pub view: Arc<View>,
    /// Every object of the request.
    pub objects: Vec<Changed>,
    /// What was accepted but may not be what was meant.
    pub warnings: Vec<Warning>,
    /// Whether nothing was changed because only a check was asked for.
    pub dry_run: bool,
}

/// The writer. There is one.
pub struct Writer {
    store: Store,
    dataplane: Box<dyn Dataplane>,
    view: Arc<ArcSwap<View>>,
}

impl Writer {
    /// Puts `objects` in force, which `store` holds.
    pub(super) fn start(
        store: Store,
        objects: Objects,
        dataplane: Box<dyn Dataplane>,
    ) -> Result<Self, InstallError> {
        let view = Arc::new(ArcSwap::from_pointee(View::default()));
        let mut writer = Self {
            store,
            dataplane,
            view,
        };
        let Receipt {
            generation,
            revision,
        } = writer.store.receipt();
        let warnings = writer.dataplane.install(&objects, generation, revision)?;
        writer.show(objects, warnings);
        Ok(writer)
    }

    /// Where the configuration in force is shown.
    pub(super) fn view(&self) -> Arc<ArcSwap<View>> {
        Arc::clone(&self.view)
    }

    pub(super) fn dataplane(&self) -> &dyn Dataplane {
        &*self.dataplane
    }

    /// The generations that are kept, newest first.
    pub(super) fn history(&self) -> Vec<Entry> {
        self.store.history().iter().rev().cloned().collect()
    }

    /// Refuses unless the object is as the request takes it to be.
    pub fn expect(&self, kind: Kind, name: &ObjectName, expect: &Expect) -> Result<(), Refusal> {
        let version = self.store.resource_version(kind, name);
        let met = match expect {
            Expect::Anything => true,
            Expect::Present => version.is_some(),
            Expect::Absent => version.is_none(),
            Expect::Version(wanted) => {
                version.is_some_and(|version| version.to_string() == *wanted)
            }
        };
        if met {
            Ok(())
        } else {
            Err(Refusal::Precondition(kind, name.clone()))
        }
    }

    /// Puts documents in force, all or none.
    pub fn apply(&mut self, batch: Batch, intent: Intent) -> Result<Done, Refusal> {
        let Batch {
            parsed,
            mode,
            prune,
        } = batch;
        self.check_presence(&parsed, mode)?;
        self.check_versions(&parsed)?;
        let mut plan = Plan::new(&self.view.load());
        plan.warnings = parsed.warnings;
        for object in parsed.objects {
            plan.put(object);
        }
        if let Some(selector) = prune {
            plan.prune(&selector);
        }
        self.carry_out(plan, intent)
    }

    /// Takes objects out of force, all or none.
    pub fn delete(
        &mut self,
        objects: &[(Kind, ObjectName)],
        ignore_absent: bool,
        intent: Intent,
    ) -> Result<Done, Refusal> {
        let mut plan = Plan::new(&self.view.load());
        let mut absent = Vec::new();
        for (kind, name) in objects {
            if !plan.remove(*kind, name) {
                absent.push(format!("there is no {kind} {name}"));
            }
        }
        if !absent.is_empty() && !ignore_absent {
            return Err(Refusal::Absent(absent));
        }
        self.carry_out(plan, intent)
    }

    /// Takes the objects that documents name out of force, all or none.
    pub fn delete_documents(
        &mut self,
        parsed: &Parsed,
        ignore_absent: bool,
        intent: Intent,
    ) -> Result<Done, Refusal> {
        self.check_versions(parsed)?;
        let named = parsed
            .objects
            .iter()
            .map(|object| (object.kind(), object.name().clone()));
        let named: Vec<_> = named.collect();
        self.delete(&named, ignore_absent, intent)
    }

    /// Changes part of an object.
    pub fn patch(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        patch: (PatchType, &[u8]),
        intent: Intent,
    ) -> Result<Done, Refusal> {
        let current = self.view.load().objects.get(kind, name);
        let current =
            current.ok_or_else(|| Refusal::Absent(vec![format!("there is no {kind} {name}")]))?;
        let (patch_type, body) = patch;
        let patched = config::patch(&self.store.document(&current), patch_type, body)
            .map_err(Refusal::Patch)?;
        let parsed = config::parse_value("the patched object", &patched)?;
        self.put(kind, name, parsed, intent)
    }

    /// Creates or changes the one object that `parsed` must be about.
    pub fn put(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        parsed: Parsed,
        intent: Intent,
    ) -> Result<Done, Refusal> {
        match &parsed.objects[..] {
            [object] if object.kind() == kind && object.name() == name => self.apply(
                Batch {
                    parsed,
                    mode: Mode::Upsert,
                    prune: None,
                },
                intent,
            ),
            objects => Err(Refusal::OtherObject {
                wanted: format!("{kind} {name}"),
                found: match objects {
                    [] => "no object".to_owned(),
                    [object] => object.to_string(),
                    many => format!("{} objects", many.len()),
                },
            }),
        }
    }

    /// Puts the rules of an earlier generation in force, as a new one; those
    /// before the present ones if none is named.
    pub fn undo(&mut self, to: Option<u64>, mut intent: Intent) -> Result<Done, Refusal> {
        let present = self.store.receipt().generation;
        let to = match to {
            Some(to) => to,
            None => present.checked_sub(1).ok_or(Refusal::NothingBefore)?,
        };
        let rules = self.store.rules_at(to).map_err(|error| match error {
            StoreError::UnknownGeneration { .. } => Refusal::NoGeneration(error),
            error => Refusal::History(error),
        })?;
        intent
            .author
            .reason
            .get_or_insert_with(|| format!("undo to generation {to}"));
        let mut plan = Plan::new(&self.view.load());
        plan.replace_rules(&rules);
        self.carry_out(plan, intent)
    }

    fn check_presence(&self, parsed: &Parsed, mode: Mode) -> Result<(), Refusal> {
        let is_there = |object: &&Object| {
            self.store
                .resource_version(object.kind(), object.name())
                .is_some()
        };
        match mode {
            Mode::Upsert => Ok(()),
            Mode::Create => {
                let there = parsed.objects.iter().filter(is_there);
                let there = there
                    .map(|object| format!("{object} is there already: `weir apply` changes it"));
                none(there.collect(), Refusal::Conflict)
            }
            Mode::Replace => {
                let absent = parsed.objects.iter().filter(|object| !is_there(object));
                let absent =
                    absent.map(|object| format!("there is no {object}: `weir create` makes it"));
                none(absent.collect(), Refusal::Absent)
            }
        }
    }

    fn check_versions(&self, parsed: &Parsed) -> Result<(), Refusal> {
        let stale = parsed.objects.iter().filter_map(|object| {
            let given = parsed.resource_version(object.kind(), object.name());
            self.store
                .check_version(object.kind(), object.name(), given)
                .err()
        });
        none(
            stale.map(|stale| stale.to_string()).collect(),
            Refusal::Conflict,
        )
    }

    /// Check, install, store, show.
    fn carry_out(&mut self, plan: Plan, intent: Intent) -> Result<Done, Refusal> {
        let Plan {
            next,
            objects,
            mut warnings,
        } = plan;
        let former = self.view.load_full();
        let oddities = next.check()?;
        warnings.extend(
            oddities
                .iter()
                .filter(|oddity| is_news(oddity, &former, &objects))
                .cloned(),
        );
        if intent.dry_run {
            return Ok(Done {
                view: former,
                objects,
                warnings,
                dry_run: true,
            });
        }
        let changed = |rule: bool| {
            objects
                .iter()
                .any(|object| object.kind.is_rule() == rule && !object.unchanged)
        };
        let generation = former.generation + u64::from(changed(true));
        let revision = former.revision + u64::from(changed(false));
        // Unchanged objects are installed too: what could not be had before
        // (a pod's namespace, say) may be there now.
        let left_out = self
            .dataplane
            .install(&next, generation, revision)
            .map_err(Refusal::Install)?;
        if let Err(store) = self.store.commit(&next, intent.author) {
            let back = self
                .dataplane
                .install(&former.objects, former.generation, former.revision);
            return Err(match back {
                Ok(_) => Refusal::NotStored(store),
                Err(install) => Refusal::Torn { store, install },
            });
        }
        warnings.extend(left_out.iter().cloned());
        self.show(next, [oddities, left_out].concat());
        Ok(Done {
            view: self.view.load_full(),
            objects,
            warnings,
            dry_run: false,
        })
    }

    /// Shows what is in force from now on.
    fn show(&self, objects: Objects, warnings: Vec<Warning>) {
        let Receipt {
            generation,
            revision,
        } = self.store.receipt();
        let all = Kind::ALL.into_iter().flat_map(|kind| objects.list(kind));
        let version = |object: Object| {
            let version = self.store.resource_version(object.kind(), object.name())?;
            Some(((object.kind(), object.name().clone()), version))
        };
        let versions = all.filter_map(version).collect();
        self.view.store(Arc::new(View {
            objects,
            generation,
            revision,
            warnings,
            versions,
        }));
    }
}

/// `Ok` if there are no `sentences`.
fn none(sentences: Vec<String>, refusal: fn(Vec<String>) -> Refusal) -> Result<(), Refusal> {
    if sentences.is_empty() {
        Ok(())
    } else {
        Err(refusal(sentences))
    }
}

/// Whether the request brought the oddity about, or is about the object that is odd.
fn is_news(oddity: &Warning, former: &View, objects: &[Changed]) -> bool {
    let about = |changed: &Changed| {
        oddity.object.as_deref() == Some(&*format!("{} {}", changed.kind, changed.name))
    };
    !former.warnings.contains(oddity) || objects.iter().any(about)
}

/// A configuration on its way.
struct Plan {
    next: Objects,
    objects: Vec<Changed>,
    warnings: Vec<Warning>,
}

impl Plan {
    fn new(view: &View) -> Self {
        Self {
            next: view.objects.clone(),
            objects: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn put(&mut self, object: Object) {
        let (kind, name) = (object.kind(), object.name().clone());
        let before = self.next.get(kind, &name);
        let unchanged = self.next.upsert(object) == Change::Unchanged;
        let after = self.next.get(kind, &name);
        self.objects.push(Changed {
            kind,
            name,
            before,
            after,
            unchanged,
        });
    }

    /// Whether there was something to take out.
    fn remove(&mut self, kind: Kind, name: &ObjectName) -> bool {
        let before = self.next.remove(kind, name);
        let found = before.is_some();
        if found {
            self.objects.push(Changed {
                kind,
                name: name.clone(),
                before,
                after: None,
                unchanged: false,
            });
        }
        found
    }

    /// Takes out what carries the labels and is not of the request.
    fn prune(&mut self, selector: &Selector) {
        let named: BTreeSet<_> = self
            .objects
            .iter()
            .map(|changed| (changed.kind, changed.name.clone()))
            .collect();
        for kind in Kind::ALL {
            for object in self.next.list(kind) {
                let name = object.name();
                if object
                    .labels()
                    .is_some_and(|labels| selector.selects(labels))
                    && !named.contains(&(kind, name.clone()))
                {
                    self.remove(kind, name);
                }
            }
        }
    }

    /// Puts these rules in the place of the present ones.
    fn replace_rules(&mut self, rules: &Objects) {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_rule()) {
            for object in self.next.list(kind) {
                if rules.get(kind, object.name()).is_none() {
                    self.remove(kind, object.name());
                }
            }
            for object in rules.list(kind) {
                if self.next.get(kind, object.name()).as_ref() != Some(&object) {
                    self.put(object);
                }
            }
        }
    }
}
