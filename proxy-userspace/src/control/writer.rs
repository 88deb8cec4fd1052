//! Every change, from the request to the receipt.
//!
//! Owns the former configuration until the next one is in force and stored.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::change::{Batch, Changed, Done, Expect, Intent, Mode};
use super::dataplane::{Dataplane, InstallError};
use super::plan::Plan;
use super::refusal::Refusal;
use super::view::View;
use crate::beside::both;
use crate::config::{
    self, Entry, Kind, Object, ObjectName, Objects, Parsed, PatchType, Receipt, Store, StoreError,
    Warning,
};

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

    /// See [`Dataplane::reset_older`].
    pub(super) fn reset_older(&mut self, name: &ObjectName) -> Result<usize, InstallError> {
        self.dataplane.reset_older(name)
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
        plan.put(parsed.objects);
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
        // As a rule there is none, and of many objects each costs a look.
        if !parsed.has_versions() {
            return Ok(());
        }
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
        let oddities = next.check(&former.objects)?;
        warnings.extend(news(&oddities, &former, &objects));
        if intent.dry_run {
            self.dataplane.check(&next).map_err(Refusal::Install)?;
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
        let left_out = self.put_in_force(
            &next,
            Receipt {
                generation,
                revision,
            },
            intent,
        )?;
        warnings.extend(left_out.iter().cloned());
        self.show(next, [oddities, left_out].concat());
        Ok(Done {
            view: self.view.load_full(),
            objects,
            warnings,
            dry_run: false,
        })
    }

    /// Installs and stores; goes back to the former configuration if it cannot
    /// be stored. Gives what had to be left out.
    fn put_in_force(
        &mut self,
        next: &Objects,
        numbers: Receipt,
        intent: Intent,
    ) -> Result<Vec<Warning>, Refusal> {
        // Unchanged objects are installed too: what could not be had before
        // (a pod's namespace, say) may be there now.
        // Meanwhile the disk gets what does not hold before it is sealed.
        let store = &self.store;
        let dataplane = &mut self.dataplane;
        let (staged, installed) = both(
            || store.stage(next, intent.author),
            || dataplane.install(next, numbers.generation, numbers.revision),
        );
        let left_out = installed.map_err(|error| {
            if let InstallError::Closed(_) = error {
                self.add_warning(error.to_string());
            }
            Refusal::Install(error)
        })?;
        let sealed = staged.and_then(|staged| self.store.seal(staged));
        let Err(store) = sealed else {
            debug_assert_eq!(self.store.receipt(), numbers, "both count the same changes");
            return Ok(left_out);
        };
        let former = self.view.load_full();
        let back = self
            .dataplane
            .install(&former.objects, former.generation, former.revision);
        Err(match back {
            Ok(_) => Refusal::NotStored(store),
            Err(install) => {
                let refusal = Refusal::Torn { store, install };
                self.add_warning(refusal.to_string());
                refusal
            }
        })
    }

    /// Has `status` say that what is shown is not all of the truth, until the
    /// next change succeeds.
    fn add_warning(&self, message: String) {
        let mut view = View::clone(&self.view.load());
        let (source, document, object, path) = (None, None, None, String::new());
        view.warnings.push(Warning {
            source,
            document,
            object,
            path,
            message,
        });
        self.view.store(Arc::new(view));
    }

    /// Shows what is in force from now on.
    fn show(&self, objects: Objects, warnings: Vec<Warning>) {
        let Receipt {
            generation,
            revision,
        } = self.store.receipt();
        let versions = self.store.versions().clone();
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

/// The oddities that the request brought about, or that are about its objects.
fn news(oddities: &[Warning], former: &View, objects: &[Changed]) -> Vec<Warning> {
    if oddities.is_empty() {
        return Vec::new();
    }
    let known: HashSet<String> = former.warnings.iter().map(ToString::to_string).collect();
    let of_request: HashSet<String> = objects
        .iter()
        .map(|changed| format!("{} {}", changed.kind, changed.name()))
        .collect();
    let is_news = |oddity: &&Warning| {
        let object = oddity.object.as_ref();
        object.is_some_and(|object| of_request.contains(object))
            || !known.contains(&oddity.to_string())
    };
    oddities.iter().filter(is_news).cloned().collect()
}
