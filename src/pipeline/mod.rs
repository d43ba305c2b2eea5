mod command;

pub use command::{Command, Notice, Ticket, WorkerId};
