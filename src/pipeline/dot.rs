//! The graph as text for Graphviz: a cluster for each element with what it negotiated and the state it
//! is in, an edge for each connection with the kind of media and the format that it carries.
//!
//! Names come from clients and are escaped. Left out: what is inside an element, for there are no
//! smaller elements.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use slotmap::Key as _;

use super::graph::{Connection, DEFAULT};
use super::{Entry, Pipeline};
use crate::elements::{Moment, ObjectKey, index, kind_of};
use crate::model::types::GstreamerDotDetails;
use crate::rtp::{Format, Kind};

/// What is told beside elements and connections.
#[derive(Clone, Copy)]
struct Details {
    formats: bool,
    states: bool,
    parameters: bool,
}

impl Details {
    fn of(wanted: Option<GstreamerDotDetails>) -> Self {
        use GstreamerDotDetails as Wanted;
        let all = matches!(wanted, None | Some(Wanted::ShowAll | Wanted::ShowVerbose));
        let parameters =
            matches!(wanted, Some(Wanted::ShowFullParams | Wanted::ShowNonDefaultParams));
        Self {
            formats: all || wanted == Some(Wanted::ShowCapsDetails),
            states: all || wanted == Some(Wanted::ShowStates),
            parameters: all || parameters,
        }
    }
}

impl Pipeline {
    /// All of the graph for the pipeline, an object with its neighbours else.
    pub(super) fn dot(
        &self,
        at: Moment,
        around: ObjectKey,
        wanted: Option<GstreamerDotDetails>,
    ) -> String {
        let details = Details::of(wanted);
        let whole = around == self.root;
        let connections: Vec<Connection> = self
            .objects
            .keys()
            .flat_map(|key| self.graph.sources_of(key))
            .filter(|one| whole || one.source == around || one.sink == around)
            .collect();
        let mut shown: BTreeSet<ObjectKey> = BTreeSet::new();
        if whole {
            shown.extend(self.objects.keys().filter(|key| *key != self.root));
        } else {
            shown.insert(around);
            shown.extend(&self.objects[around].children);
            shown.extend(connections.iter().flat_map(|one| [one.source, one.sink]));
        }
        let mut text = String::from(
            "digraph pipeline {\n  rankdir=LR;\n  labelloc=t;\n  fontname=\"sans\";\n  \
             node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans\", fontsize=10];\n  \
             edge [fontname=\"sans\", fontsize=9];\n",
        );
        let root = &self.objects[self.root];
        let _ = writeln!(text, "  label=\"{}\";", label(&self.title(root, details)));
        for &key in &shown {
            self.write_element(&mut text, key, details);
        }
        for connection in &connections {
            self.write_connection(&mut text, at, connection, details);
        }
        for &key in &shown {
            for child in self.objects[key].children.iter().filter(|child| shown.contains(child)) {
                let (hub, port) = (number(key), number(*child));
                let _ = writeln!(text, "  \"{hub}\" -> \"{port}\" [style=dashed, dir=none];");
            }
        }
        text + "}\n"
    }

    fn title(&self, entry: &Entry, details: Details) -> Vec<String> {
        let mut lines = vec![entry.object.class.name.to_owned(), entry.object.name().to_owned()];
        if details.parameters {
            if entry.object.name() != entry.object.id.as_str() {
                lines.push(entry.object.id.to_string());
            }
            let tags = entry.object.tags().into_iter();
            lines.extend(tags.map(|tag| format!("{}={}", tag.key, tag.value)));
        }
        lines
    }

    fn write_element(&self, text: &mut String, key: ObjectKey, details: Details) {
        let entry = &self.objects[key];
        let node = entry.body.node();
        let mut inside = Vec::new();
        if details.states {
            inside.extend(node.states().iter().map(|(name, state)| format!("{name}: {state}")));
        }
        for kind in [Kind::Audio, Kind::Video] {
            let media = crate::elements::media_type(kind).as_str();
            if details.formats {
                let source = node.source(kind).map(|one| names(self.router.source_formats(one)));
                let sink = node.sink(kind).map(|one| names(self.router.sink_formats(one)));
                inside.extend(source.map(|formats| format!("{media} comes as {formats}")));
                inside.extend(sink.map(|formats| format!("{media} goes as {formats}")));
            }
            if details.states {
                let flow_in = entry.element.flow_in[index(kind)];
                let flow_out = entry.element.flow_out[index(kind)];
                inside.extend(flow_in.then(|| format!("{media} flows in")));
                inside.extend(flow_out.then(|| format!("{media} flows out")));
            }
        }
        if inside.is_empty() {
            inside.push(entry.object.class.name.to_owned());
        }
        let _ = writeln!(
            text,
            "  subgraph cluster_{0} {{\n    label=\"{1}\";\n    \"{0}\" [label=\"{2}\"];\n  }}",
            number(key),
            label(&self.title(entry, details)),
            label(&inside),
        );
    }

    fn write_connection(
        &self,
        text: &mut String,
        at: Moment,
        connection: &Connection,
        details: Details,
    ) {
        let mut lines = vec![connection.media.as_str().to_owned()];
        for (end, description) in
            [("from", &connection.source_description), ("to", &connection.sink_description)]
        {
            if description != DEFAULT {
                lines.push(format!("{end} {description}"));
            }
        }
        // What enters the sink is what comes over this connection, for a sink has only one.
        let source = kind_of(connection.media)
            .filter(|_| connection.sink_description == DEFAULT)
            .and_then(|kind| self.source_for(connection.sink, kind));
        let flows = source.is_some_and(|source| self.flows(at, source));
        if details.formats
            && let Some(format) = source.and_then(|one| self.router.source_stats(one).format)
        {
            lines.push(format.codec.name().to_owned());
        }
        if details.states && flows {
            lines.push("flows".to_owned());
        }
        let style = if flows { "bold" } else { "solid" };
        let _ = writeln!(
            text,
            "  \"{}\" -> \"{}\" [label=\"{}\", style={style}];",
            number(connection.source),
            number(connection.sink),
            label(&lines),
        );
    }
}

fn number(key: ObjectKey) -> u64 {
    key.data().as_ffi()
}

fn names(formats: &[(u8, Format)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (_, format) in formats {
        if !names.contains(&format.codec.name()) {
            names.push(format.codec.name());
        }
    }
    names.join(", ")
}

/// Lines of text between the quotes of a label.
fn label(lines: &[String]) -> String {
    lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("\\n")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => escaped.extend(['\\', letter]),
            // The language has no way to write them.
            _ if letter.is_control() => escaped.push(' '),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_ends_its_label() {
        assert_eq!(escape(r#"a"b\c"#), r#"a\"b\\c"#);
        assert_eq!(escape("line\nline\0\u{7f}"), "line line  ");
        assert_eq!(escape("Küche <1> {x}"), "Küche <1> {x}");
        assert_eq!(label(&["a\\".to_owned(), "b".to_owned()]), r"a\\\nb");
    }
}
