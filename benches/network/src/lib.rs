//! A bad network: [`Link`] shapes one direction, a [`Trace`] says how it changes over time, and the
//! program beside them carries datagrams over two of them. The link decides without I/O and without a
//! clock, so that simulations and the program treat a packet alike.

mod link;
mod random;
mod trace;

pub use link::{Burst, Conditions, Dropped, Link, Queue, Seen};
pub use random::Random;
pub use trace::{Direction, Player, Trace, TraceError};
