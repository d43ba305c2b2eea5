//! What the server knows of its classes: tables that `build/` writes from the descriptors.

/// A remote class with what it adds to its ancestors.
#[derive(Debug)]
pub struct Class {
    pub name: &'static str,
    /// With its namespace: `kurento.WebRtcEndpoint`.
    pub qualified: &'static str,
    /// The module `getInfo` lists it in: `core`, `elements`, `filters` or an extra one.
    pub module: &'static str,
    pub extends: Option<&'static Class>,
    pub is_abstract: bool,
    /// Whether something carries it out: abstract classes are not, and those that are only described.
    pub creatable: bool,
    pub constructor: &'static [Param],
    pub methods: &'static [Method],
    pub events: &'static [&'static EventClass],
    pub doc: &'static str,
}

impl Class {
    /// The class and its ancestors, nearest first.
    pub fn lineage(&'static self) -> impl Iterator<Item = &'static Class> {
        std::iter::successors(Some(self), |class| class.extends)
    }

    /// Whether it is `name` or descends from it.
    pub fn is_a(&'static self, name: &str) -> bool {
        self.lineage().any(|class| class.name == name)
    }

    /// The operation `name`, own or inherited.
    pub fn method(&'static self, name: &str) -> Option<&'static Method> {
        self.lineage().find_map(|class| class.methods.iter().find(|method| method.name == name))
    }

    /// The event that clients subscribe to as `name`, which may be its name of 6.x.
    pub fn event(&'static self, name: &str) -> Option<&'static EventClass> {
        self.lineage()
            .flat_map(|class| class.events)
            .find(|event| event.name == name || event.legacy.contains(&name))
            .copied()
    }

    /// The constructor parameter that names the parent: the first one, for all but a pipeline.
    pub fn parent(&self) -> Option<&'static Param> {
        self.constructor.first()
    }
}

/// An operation: a method, or the getter or setter of a property.
#[derive(Debug)]
pub struct Method {
    /// The class that declares it.
    pub class: &'static str,
    pub name: &'static str,
    pub params: &'static [Param],
    /// Whether it sets a property; its errors are worded differently.
    pub is_setter: bool,
    pub doc: &'static str,
}

#[derive(Debug)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    pub optional: bool,
    pub default: Option<Literal>,
}

/// The type of a value on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    Int,
    Int64,
    Boolean,
    Float,
    Double,
    /// A reference to an object of that class or one that descends from it.
    Object(&'static str),
    Enum(&'static Enum),
    Register(&'static Register),
    List(&'static Kind),
    Map(&'static Kind),
}

/// The default of an optional parameter.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    Text(&'static str),
    Int(i64),
    Double(f64),
    Boolean(bool),
    EmptyList,
    EmptyRegister,
}

#[derive(Debug)]
pub struct Enum {
    pub name: &'static str,
    pub values: &'static [&'static str],
}

/// A record with named members, its ancestors' members first.
#[derive(Debug)]
pub struct Register {
    pub name: &'static str,
    /// The namespace, `__module__` on the wire.
    pub namespace: &'static str,
    /// Names of its ancestors, nearest first.
    pub ancestors: &'static [&'static str],
    pub members: &'static [Param],
}

#[derive(Debug)]
pub struct EventClass {
    pub name: &'static str,
    /// The names it had in 6.x, oldest first.
    pub legacy: &'static [&'static str],
    /// Whether its data repeats the name as `type`.
    pub media: bool,
}

/// A module as `getInfo` lists it.
#[derive(Debug)]
pub struct Module {
    pub name: &'static str,
    /// Short names of the classes that can be created, sorted.
    pub factories: &'static [&'static str],
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

/// The class with that short or qualified name, abstract ones included.
pub fn find(name: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name == name || class.qualified == name).copied()
}

/// The class that `create` makes under that short or qualified name. Others are not pretended.
pub fn factory(name: &str) -> Option<&'static Class> {
    find(name).filter(|class| class.creatable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_short_and_by_qualified_name() {
        let class = find("WebRtcEndpoint").expect("the class is described");
        assert!(std::ptr::eq(class, find("kurento.WebRtcEndpoint").expect("the same")));
        assert!(find("elements.WebRtcEndpoint").is_none());
    }

    #[test]
    fn abstract_classes_and_the_manager_cannot_be_created() {
        for name in ["MediaElement", "Hub", "ServerManager", "kurento.ServerManager"] {
            assert!(find(name).is_some() && factory(name).is_none(), "{name}");
        }
    }

    #[test]
    fn classes_that_nothing_carries_out_are_described_but_cannot_be_created() {
        for class in CLASSES.iter().filter(|class| !class.is_abstract) {
            let module = MODULES.iter().find(|module| module.name == class.module);
            let listed = module.is_some_and(|module| module.factories.contains(&class.name));
            assert_eq!(listed, class.creatable, "{}", class.name);
            assert_eq!(factory(class.qualified).is_some(), class.creatable, "{}", class.name);
            assert!(find(class.qualified).is_some());
        }
    }

    #[test]
    fn operations_and_events_are_inherited_under_old_names_too() {
        let class = find("WebRtcEndpoint").expect("the class is described");
        for operation in ["getName", "connect", "processOffer", "getICECandidatePairs"] {
            assert!(class.method(operation).is_some(), "{operation}");
        }
        assert!(class.method("setICECandidatePairs").is_none());
        assert_eq!(
            class.event("OnIceCandidate").map(|event| event.name),
            Some("IceCandidateFound")
        );
        assert!(class.event("EndOfStream").is_none());
    }
}
