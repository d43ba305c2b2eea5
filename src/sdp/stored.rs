//! A description that is kept for those who ask for it: as its text, which takes a third of the memory
//! that its lines take one by one.

use std::fmt::{Display, Formatter, Result};

use super::{Description, parse};

/// What was said, and the candidates of its author that were told since.
#[derive(Clone, Debug)]
pub struct Stored {
    text: Box<str>,
    /// Each with the number of its section.
    told: Vec<(usize, Box<str>)>,
}

impl Stored {
    pub fn new(description: &Description) -> Self {
        Self::of(description.to_text())
    }

    /// Of a description that was written already.
    pub fn of(text: String) -> Self {
        Self { text: text.into(), told: Vec::new() }
    }

    /// Notes a candidate of a section that there is. One that is no line is left out.
    pub fn add_candidate(&mut self, index: usize, line: &str) {
        if !line.contains(['\r', '\n']) {
            self.told.push((index, line.into()));
        }
    }

    /// How many candidates were told of a section since.
    pub fn told(&self, index: usize) -> usize {
        self.told.iter().filter(|(section, _)| *section == index).count()
    }

    pub fn read(&self) -> Description {
        let read = parse::read(&self.text, parse::NO_LIMITS);
        let mut description = read.expect("what was written can be read");
        for (index, line) in &self.told {
            description.add_candidate(*index, line);
        }
        description
    }
}

impl Display for Stored {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.told.is_empty() { f.write_str(&self.text) } else { self.read().fmt(f) }
    }
}
