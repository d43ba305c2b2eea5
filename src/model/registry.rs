//! Which objects exist, where they live, and which sessions hold them.
//!
//! A session holds what it creates and what it names, with all ancestors, and every child that is
//! created later in something it holds; siblings it never named are not its own. An object that the
//! last session let go of is to be released, with all below it.
//!
//! The registry decides and remembers; destroying is the work of the pipeline that owns the object,
//! whose word the registry follows. The server manager is always there and held by nobody.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::class::{self, Class};
use super::id::ObjectId;

/// A session, as far as objects are concerned.
pub type Holder = Arc<str>;

#[derive(Debug)]
struct Entry {
    class: &'static Class,
    parent: Option<ObjectId>,
    children: BTreeSet<ObjectId>,
    /// The number of the worker that owns it; none for the server manager.
    home: Option<usize>,
    holders: HashSet<Holder>,
}

/// All objects of the server.
#[derive(Debug)]
pub struct Registry {
    objects: HashMap<ObjectId, Entry>,
    held: HashMap<Holder, HashSet<ObjectId>>,
    /// Who asked for an object that its worker has not reported yet.
    expected: HashMap<ObjectId, Holder>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry that knows the server manager.
    pub fn new() -> Self {
        let class = class::find("ServerManager").expect("its descriptor is part of the program");
        let manager = Entry {
            class,
            parent: None,
            children: BTreeSet::new(),
            home: None,
            holders: HashSet::new(),
        };
        Self {
            objects: HashMap::from([(ObjectId::from(ObjectId::SERVER_MANAGER), manager)]),
            held: HashMap::new(),
            expected: HashMap::new(),
        }
    }

    /// Objects that exist or are being made, without the server manager.
    pub fn len(&self) -> usize {
        self.objects.len() - 1 + self.expected.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn class(&self, id: &str) -> Option<&'static Class> {
        self.objects.get(id).map(|entry| entry.class)
    }

    /// The worker that owns an object; none for the server manager and for what does not exist.
    pub fn home(&self, id: &str) -> Option<usize> {
        self.objects.get(id).and_then(|entry| entry.home)
    }

    /// Ids of all pipelines, sorted.
    pub fn pipelines(&self) -> Vec<ObjectId> {
        let pipelines = self.objects.iter().filter(|(_, entry)| entry.class.is_a("MediaPipeline"));
        let mut ids: Vec<_> = pipelines.map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    /// A worker was asked to make `id` for `holder`.
    pub fn expect(&mut self, id: ObjectId, holder: Holder) {
        self.expected.insert(id, holder);
    }

    /// The worker refused.
    pub fn give_up(&mut self, id: &str) {
        self.expected.remove(id);
    }

    /// An object came into being. Whoever asked for it holds it, and so do the holders of its parent.
    /// Returns who asked for it, for that one may have ended meanwhile.
    pub fn insert(
        &mut self,
        id: ObjectId,
        class: &'static Class,
        parent: Option<ObjectId>,
        home: usize,
    ) -> Option<Holder> {
        let mut holders = HashSet::new();
        if let Some(entry) = parent.as_ref().and_then(|parent| self.objects.get_mut(parent)) {
            entry.children.insert(id.clone());
            holders.clone_from(&entry.holders);
        }
        for holder in &holders {
            self.held.entry(holder.clone()).or_default().insert(id.clone());
        }
        let entry = Entry { class, parent, children: BTreeSet::new(), home: Some(home), holders };
        self.objects.insert(id.clone(), entry);
        let holder = self.expected.remove(&id)?;
        self.hold(&holder, id.as_str());
        Some(holder)
    }

    /// An object is no more; its class, when it was known.
    pub fn remove(&mut self, id: &str) -> Option<&'static Class> {
        let entry = self.objects.remove(id)?;
        for holder in &entry.holders {
            self.forget(holder, id);
        }
        if let Some(parent) = entry.parent.and_then(|parent| self.objects.get_mut(&parent)) {
            parent.children.remove(id);
        }
        Some(entry.class)
    }

    /// `holder` named the object: from now on it holds it and its ancestors. False when there is no
    /// such object.
    pub fn hold(&mut self, holder: &Holder, id: &str) -> bool {
        let mut next = self.objects.get_key_value(id).map(|(id, _)| id.clone());
        let known = next.is_some();
        while let Some(id) = next.take() {
            let Some(entry) = self.objects.get_mut(&id) else { break };
            next.clone_from(&entry.parent);
            if entry.home.is_some() && entry.holders.insert(holder.clone()) {
                self.held.entry(holder.clone()).or_default().insert(id);
            }
        }
        known
    }

    /// Whether `holder` holds the object.
    pub fn holds(&self, holder: &str, id: &str) -> bool {
        self.held.get(holder).is_some_and(|held| held.contains(id))
    }

    /// How many objects `holder` holds.
    pub fn held_count(&self, holder: &str) -> usize {
        self.held.get(holder).map_or(0, HashSet::len)
    }

    /// `holder` does not need the object any more. True when nobody else does, and it is to be
    /// released.
    pub fn let_go(&mut self, holder: &str, id: &str) -> bool {
        let Some(entry) = self.objects.get_mut(id) else { return false };
        let held = entry.holders.remove(holder);
        let abandoned = held && entry.holders.is_empty();
        self.forget(holder, id);
        abandoned
    }

    /// What `holder` holds, the topmost objects only.
    pub fn held_by(&self, holder: &str) -> Vec<ObjectId> {
        self.held.get(holder).map(|held| self.topmost(held)).unwrap_or_default()
    }

    /// The session is over. The objects that nobody holds now, the topmost only: they are to be
    /// released.
    pub fn end(&mut self, holder: &str) -> Vec<ObjectId> {
        let mut abandoned = HashSet::new();
        for id in self.held.remove(holder).unwrap_or_default() {
            if let Some(entry) = self.objects.get_mut(&id) {
                entry.holders.remove(holder);
                if entry.holders.is_empty() {
                    abandoned.insert(id);
                }
            }
        }
        self.topmost(&abandoned)
    }

    fn topmost(&self, ids: &HashSet<ObjectId>) -> Vec<ObjectId> {
        let covered = |id: &ObjectId| {
            let parent = self.objects.get(id).and_then(|entry| entry.parent.as_ref());
            std::iter::successors(parent, |id| self.objects.get(*id)?.parent.as_ref())
                .any(|ancestor| ids.contains(ancestor))
        };
        let mut top: Vec<_> = ids.iter().filter(|id| !covered(id)).cloned().collect();
        top.sort_unstable();
        top
    }

    fn forget(&mut self, holder: &str, id: &str) {
        if let Some(held) = self.held.get_mut(holder) {
            held.remove(id);
            if held.is_empty() {
                self.held.remove(holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> Holder {
        name.into()
    }

    fn add(registry: &mut Registry, class: &str, id: &str, by: &str) {
        let class = class::find(class).expect("described");
        let parent = id.rsplit_once('/').map(|(parent, _)| ObjectId::from(parent));
        registry.expect(ObjectId::from(id), holder(by));
        registry.insert(ObjectId::from(id), class, parent, 0);
    }

    /// Session `a` made a pipeline with two elements.
    fn house() -> Registry {
        let mut registry = Registry::new();
        add(&mut registry, "MediaPipeline", "p", "a");
        add(&mut registry, "PassThrough", "p/1", "a");
        add(&mut registry, "PassThrough", "p/2", "a");
        registry
    }

    fn ids(ids: Vec<ObjectId>) -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_that_only_one_session_held_ends_with_it() {
        let mut registry = house();
        assert_eq!(ids(registry.end("a")), ["p"]);
        assert_eq!(ids(registry.end("a")), [""; 0]);
    }

    #[test]
    fn what_another_session_named_stays_with_its_ancestors_and_without_its_siblings() {
        let mut registry = house();
        assert!(registry.hold(&holder("b"), "p/1"));
        assert_eq!(ids(registry.end("a")), ["p/2"]);
    }

    #[test]
    fn children_created_later_belong_to_all_who_hold_the_parent() {
        let mut registry = house();
        registry.hold(&holder("b"), "p");
        add(&mut registry, "PassThrough", "p/3", "a");
        assert_eq!(ids(registry.end("a")), ["p/1", "p/2"]);
        assert_eq!(ids(registry.end("b")), ["p"]);
    }

    #[test]
    fn letting_go_matters_only_to_the_last_holder() {
        let mut registry = house();
        registry.hold(&holder("b"), "p/1");
        assert!(!registry.let_go("a", "p/1"));
        assert!(!registry.let_go("a", "p/1"));
        assert!(registry.let_go("b", "p/1"));
        assert!(!registry.let_go("b", "nothing"));
    }

    #[test]
    fn a_session_that_ended_while_its_object_was_made_holds_it_all_the_same() {
        let mut registry = Registry::new();
        registry.expect(ObjectId::from("p"), holder("a"));
        assert_eq!(ids(registry.end("a")), [""; 0]);
        let class = class::find("MediaPipeline").expect("described");
        registry.insert(ObjectId::from("p"), class, None, 0);
        assert_eq!(ids(registry.end("a")), ["p"]);
    }

    #[test]
    fn removing_leaves_nothing_behind() {
        let mut registry = house();
        assert_eq!(registry.len(), 3);
        for id in ["p/1", "p/2", "p"] {
            assert!(registry.remove(id).is_some());
        }
        assert!(registry.remove("p").is_none());
        assert!(registry.is_empty() && registry.held.is_empty() && registry.expected.is_empty());
        assert_eq!(registry.pipelines(), []);
    }

    #[test]
    fn the_manager_is_held_by_nobody() {
        let mut registry = Registry::new();
        assert!(registry.hold(&holder("a"), ObjectId::SERVER_MANAGER));
        assert!(!registry.let_go("a", ObjectId::SERVER_MANAGER));
        assert_eq!(ids(registry.held_by("a")), [""; 0]);
        assert!(!registry.hold(&holder("a"), "nobody"));
    }
}
