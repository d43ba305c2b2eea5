//! The program as an operator sees it: flags, settings, signals, logs; and its door as a stranger does.

mod bench;
mod doctor;
mod door;
mod process;
mod program;
mod secure;
