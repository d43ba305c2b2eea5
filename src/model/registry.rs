//! Which objects exist, where they live, and which sessions hold them.
//!
//! A session holds what it creates and what it names, with all ancestors, and every child that is
//! created later in something it holds; siblings it never named are not its own. An object that the
//! last session let go of is to be released, with all below it.
//!
//! Who holds an object is not copied to its children. Holds and objects are numbered as they come, and
//! who held the parent before the child was made holds the child, unless it said otherwise. So a
//! thousand viewers with a session each may share a pipeline, and one more object in it costs the same.
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
    /// When it was made, in the registry's count of what happened.
    created: u64,
    /// Those who hold it by themselves, and since when; and the same by time.
    holders: HashMap<Holder, u64>,
    by_time: BTreeSet<(u64, Holder)>,
    /// Those who would hold it as they hold its parent, and let it go.
    let_go: HashSet<Holder>,
}

impl Entry {
    fn new(class: &'static Class, parent: Option<ObjectId>, home: Option<usize>, at: u64) -> Self {
        Self {
            class,
            parent,
            children: BTreeSet::new(),
            home,
            created: at,
            holders: HashMap::new(),
            by_time: BTreeSet::new(),
            let_go: HashSet::new(),
        }
    }

    fn add(&mut self, holder: &Holder, since: u64) {
        self.let_go.remove(holder);
        if self.holders.insert(holder.clone(), since).is_none() {
            self.by_time.insert((since, holder.clone()));
        }
    }

    fn drop_holder(&mut self, holder: &str) {
        if let Some((holder, since)) = self.holders.remove_entry(holder) {
            self.by_time.remove(&(since, holder));
        }
    }
}

/// What a session holds by itself, and what it let go of though it holds the parent.
#[derive(Debug, Default)]
struct Held {
    objects: HashSet<ObjectId>,
    let_go: HashSet<ObjectId>,
}

/// All objects of the server.
#[derive(Debug)]
pub struct Registry {
    objects: HashMap<ObjectId, Entry>,
    held: HashMap<Holder, Held>,
    /// Who asked for an object that its worker has not reported yet.
    expected: HashMap<ObjectId, Holder>,
    /// Counts what happens, so that holds and objects can be told by their order.
    happened: u64,
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
        let manager = Entry::new(class, None, None, 0);
        Self {
            objects: HashMap::from([(ObjectId::from(ObjectId::SERVER_MANAGER), manager)]),
            held: HashMap::new(),
            expected: HashMap::new(),
            happened: 0,
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
        let created = self.next();
        if let Some(entry) = parent.as_ref().and_then(|parent| self.objects.get_mut(parent)) {
            entry.children.insert(id.clone());
        }
        self.objects.insert(id.clone(), Entry::new(class, parent, Some(home), created));
        let holder = self.expected.remove(&id)?;
        // By itself, whether or not it holds the parent: what a session makes counts as its own.
        self.add(&holder, &id);
        self.hold(&holder, id.as_str());
        Some(holder)
    }

    /// An object is no more; its class, when it was known.
    pub fn remove(&mut self, id: &str) -> Option<&'static Class> {
        let entry = self.objects.remove(id)?;
        for holder in entry.holders.keys().chain(&entry.let_go) {
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
            if self.since(holder, id.as_str()).is_none() {
                self.add(holder, &id);
            }
            next = self.objects.get(&id).and_then(|entry| entry.parent.clone());
        }
        known
    }

    /// Whether `holder` holds the object.
    pub fn holds(&self, holder: &str, id: &str) -> bool {
        self.since(holder, id).is_some()
    }

    /// How many objects `holder` holds by itself: those it made and those it named.
    pub fn held_count(&self, holder: &str) -> usize {
        self.held.get(holder).map_or(0, |held| held.objects.len())
    }

    /// `holder` does not need the object any more. True when nobody else does, and it is to be
    /// released.
    pub fn let_go(&mut self, holder: &Holder, id: &str) -> bool {
        if self.since(holder, id).is_none() {
            return false;
        }
        let Some((id, entry)) = self.objects.get_key_value(id) else { return false };
        let (id, children) = (id.clone(), entry.children.clone());
        // What it holds below by way of this object, it holds by itself from now on.
        for child in children {
            if let Some(since) = self.since(holder, child.as_str())
                && let Some(entry) = self.objects.get_mut(&child)
            {
                entry.add(holder, since);
                self.held.entry(holder.clone()).or_default().objects.insert(child);
            }
        }
        self.forget(holder, id.as_str());
        if let Some(entry) = self.objects.get_mut(&id) {
            entry.drop_holder(holder);
        }
        if self.since(holder, id.as_str()).is_some()
            && let Some(entry) = self.objects.get_mut(&id)
        {
            entry.let_go.insert(holder.clone());
            self.held.entry(holder.clone()).or_default().let_go.insert(id.clone());
        }
        !self.is_held(id.as_str())
    }

    /// What `holder` holds, the topmost objects only.
    pub fn held_by(&self, holder: &str) -> Vec<ObjectId> {
        self.held.get(holder).map(|held| self.topmost(&held.objects)).unwrap_or_default()
    }

    /// The session is over. The objects that nobody holds now, the topmost only: they are to be
    /// released.
    pub fn end(&mut self, holder: &str) -> Vec<ObjectId> {
        let held = self.held.remove(holder).unwrap_or_default();
        for id in &held.let_go {
            if let Some(entry) = self.objects.get_mut(id) {
                entry.let_go.remove(holder);
            }
        }
        for id in &held.objects {
            if let Some(entry) = self.objects.get_mut(id) {
                entry.drop_holder(holder);
            }
        }
        let mut abandoned = HashSet::new();
        for id in &held.objects {
            self.find_abandoned(id, &mut abandoned);
        }
        self.topmost(&abandoned)
    }

    /// The objects at `id` and below that nobody holds; nothing below such an object is looked at.
    fn find_abandoned(&self, id: &ObjectId, abandoned: &mut HashSet<ObjectId>) {
        let Some(entry) = self.objects.get(id) else { return };
        if self.is_held(id.as_str()) {
            for child in &entry.children {
                self.find_abandoned(child, abandoned);
            }
        } else {
            abandoned.insert(id.clone());
        }
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

    /// Since when `holder` holds the object, by itself or by way of its parent.
    fn since(&self, holder: &str, id: &str) -> Option<u64> {
        let entry = self.objects.get(id)?;
        if let Some(since) = entry.holders.get(holder) {
            return Some(*since);
        }
        let parent = entry.parent.as_ref().filter(|_| !entry.let_go.contains(holder))?;
        let since = self.since(holder, parent.as_str())?;
        (since < entry.created).then_some(entry.created)
    }

    fn is_held(&self, id: &str) -> bool {
        self.has_holder(id, u64::MAX, &mut Vec::new())
    }

    /// Whether anybody holds the object since before that time, and by way of it what lies `below`:
    /// who let something there go, or holds it since another time, does not.
    fn has_holder<'a>(&'a self, id: &str, before: u64, below: &mut Vec<&'a Entry>) -> bool {
        let Some(entry) = self.objects.get(id) else { return false };
        let decided = |holder: &Holder, entry: &&Entry| {
            entry.let_go.contains(holder) || entry.holders.contains_key(holder)
        };
        let mut in_time = entry.by_time.iter().take_while(|(since, _)| *since < before);
        if in_time.any(|(_, holder)| !below.iter().any(|entry| decided(holder, entry))) {
            return true;
        }
        match &entry.parent {
            Some(parent) if entry.created < before => {
                below.push(entry);
                self.has_holder(parent.as_str(), entry.created, below)
            }
            _ => false,
        }
    }

    fn add(&mut self, holder: &Holder, id: &ObjectId) {
        let since = self.next();
        if let Some(entry) = self.objects.get_mut(id).filter(|entry| entry.home.is_some()) {
            entry.add(holder, since);
            let held = self.held.entry(holder.clone()).or_default();
            held.let_go.remove(id);
            held.objects.insert(id.clone());
        }
    }

    fn forget(&mut self, holder: &str, id: &str) {
        if let Some(held) = self.held.get_mut(holder) {
            held.objects.remove(id);
            held.let_go.remove(id);
            if held.objects.is_empty() && held.let_go.is_empty() {
                self.held.remove(holder);
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.happened += 1;
        self.happened
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
        assert!(!registry.let_go(&holder("a"), "p/1"));
        assert!(!registry.let_go(&holder("a"), "p/1"));
        assert!(registry.let_go(&holder("b"), "p/1"));
        assert!(!registry.let_go(&holder("b"), "nothing"));
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
        assert!(!registry.let_go(&holder("a"), ObjectId::SERVER_MANAGER));
        assert_eq!(ids(registry.held_by("a")), [""; 0]);
        assert!(!registry.hold(&holder("a"), "nobody"));
    }

    #[test]
    fn letting_go_of_a_parent_keeps_what_is_below() {
        let mut registry = house();
        registry.hold(&holder("b"), "p");
        add(&mut registry, "DispatcherOneToMany", "p/h", "a");
        add(&mut registry, "HubPort", "p/h/1", "a");
        assert!(!registry.let_go(&holder("b"), "p"));
        assert!(registry.holds("b", "p/h") && registry.holds("b", "p/h/1"));
        assert!(!registry.holds("b", "p") && !registry.holds("b", "p/1"));
        assert!(!registry.let_go(&holder("b"), "p/h"));
        assert!(registry.holds("b", "p/h/1") && !registry.holds("b", "p/h"));
        assert_eq!(ids(registry.end("b")), [""; 0]);
        assert_eq!(ids(registry.end("a")), ["p"]);
        assert!(registry.held.is_empty());
    }

    #[test]
    fn what_a_session_makes_counts_for_it_alone() {
        let mut registry = house();
        registry.hold(&holder("b"), "p");
        for number in 3..10 {
            add(&mut registry, "PassThrough", &format!("p/{number}"), "b");
        }
        assert_eq!((registry.held_count("a"), registry.held_count("b")), (3, 8));
        assert!(registry.holds("a", "p/9"));
        assert!(!registry.let_go(&holder("a"), "p/9") && !registry.holds("a", "p/9"));
        assert_eq!(ids(registry.end("b")), ["p/9"]);
    }

    /// What the rules say, with every hold copied to every child.
    #[derive(Default)]
    struct Plain {
        parents: HashMap<String, Option<String>>,
        holders: HashMap<String, HashSet<String>>,
    }

    impl Plain {
        fn hold(&mut self, holder: &str, id: &str) {
            let mut next = self.parents.contains_key(id).then(|| id.to_owned());
            while let Some(id) = next {
                self.holders.entry(id.clone()).or_default().insert(holder.to_owned());
                next = self.parents[&id].clone();
            }
        }

        fn insert(&mut self, holder: &str, id: &str) {
            let parent = id.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            let inherited = parent.as_ref().map(|parent| self.holders[parent].clone());
            self.parents.insert(id.to_owned(), parent);
            self.holders.insert(id.to_owned(), inherited.unwrap_or_default());
            self.hold(holder, id);
        }

        fn abandoned(&self, ids: impl Iterator<Item = String>) -> BTreeSet<String> {
            ids.filter(|id| self.holders[id].is_empty()).collect()
        }

        /// What is to go, with all below it.
        fn below(&self, top: &BTreeSet<String>) -> BTreeSet<String> {
            let all = self.parents.keys();
            let under = |id: &&String| {
                top.iter().any(|top| id == &top || id.starts_with(&format!("{top}/")))
            };
            all.filter(under).cloned().collect()
        }
    }

    proptest::proptest! {
        #[test]
        fn holds_are_as_if_they_were_copied(
            steps in proptest::collection::vec((0..5_u8, 0..4_usize, 0..8_usize), 1..80)
        ) {
            let names = ["a", "b", "c", "d"];
            let (mut registry, mut plain) = (Registry::new(), Plain::default());
            let mut made: Vec<String> = Vec::new();
            for (at, (what, who, which)) in steps.into_iter().enumerate() {
                let who = names[who];
                let which = made.get(which % made.len().max(1)).cloned();
                let gone = match (what, which) {
                    (0, _) | (_, None) => {
                        add(&mut registry, "MediaPipeline", &format!("p{at}"), who);
                        plain.insert(who, &format!("p{at}"));
                        made.push(format!("p{at}"));
                        continue;
                    }
                    (1, Some(parent)) if parent.matches('/').count() < 2 => {
                        let id = format!("{parent}/{at}");
                        let class = if parent.contains('/') { "HubPort" } else { "Dispatcher" };
                        add(&mut registry, class, &id, who);
                        plain.insert(who, &id);
                        made.push(id);
                        continue;
                    }
                    (2, Some(id)) => {
                        registry.hold(&holder(who), &id);
                        plain.hold(who, &id);
                        continue;
                    }
                    (3, Some(id)) => {
                        let ours = registry.let_go(&holder(who), &id);
                        let held = plain.holders.get_mut(&id).expect("it exists").remove(who);
                        let theirs = held && plain.holders[&id].is_empty();
                        proptest::prop_assert_eq!(ours, theirs, "{} lets {} go", who, id);
                        if theirs { BTreeSet::from([id]) } else { BTreeSet::new() }
                    }
                    (_, Some(_)) => {
                        let ours: BTreeSet<_> = ids(registry.end(who)).into_iter().collect();
                        let mut touched = Vec::new();
                        for (id, holders) in &mut plain.holders {
                            if holders.remove(who) {
                                touched.push(id.clone());
                            }
                        }
                        let theirs = plain.abandoned(touched.into_iter());
                        proptest::prop_assert_eq!(plain.below(&ours), plain.below(&theirs));
                        theirs
                    }
                };
                for id in plain.below(&gone) {
                    registry.remove(&id);
                    plain.parents.remove(&id);
                    plain.holders.remove(&id);
                    made.retain(|known| *known != id);
                }
                for id in &made {
                    for name in names {
                        proptest::prop_assert_eq!(
                            registry.holds(name, id),
                            plain.holders[id].contains(name),
                            "{} and {}", name, id
                        );
                    }
                }
            }
        }
    }
}
