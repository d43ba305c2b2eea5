//! What the router's parties and streams count and hold, added up for those who watch the server.

use super::Router;
use crate::bandwidth;

/// What the router of a pipeline keeps for later.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Holdings {
    /// Packets that wait for their time to leave.
    pub paced: usize,
    /// Bytes of packets kept to be sent again.
    pub histories: usize,
    /// Bytes of notes about what was sent to whom.
    pub notes: usize,
}

impl std::ops::AddAssign for Holdings {
    fn add_assign(&mut self, one: Self) {
        self.paced += one.paced;
        self.histories += one.histories;
        self.notes += one.notes;
    }
}

impl Router {
    pub fn holdings(&self) -> Holdings {
        Holdings {
            paced: self.peers.values().map(|peer| peer.sending.waiting()).sum(),
            histories: self.sources.values().map(|source| source.history.memory()).sum(),
            notes: self.sinks.values().map(|sink| sink.notes()).sum::<usize>()
                + self.peers.values().map(|peer| peer.sending.departures.memory()).sum::<usize>(),
        }
    }

    /// What the estimates of all ways to receivers did not believe or could not use, since this was asked
    /// last.
    pub fn take_estimator_counts(&mut self) -> bandwidth::Counts {
        let mut total = self.estimators_of_removed;
        self.peers.values().for_each(|peer| total += peer.sending.bandwidth.counts());
        let new = total.since(self.estimators_taken);
        self.estimators_taken = total;
        new
    }
}
