//! Send-side bandwidth estimation over simulated links: a minute of call in milliseconds, the same on
//! every run.

mod figures;
mod flow;
mod liar;
mod lies;
mod link;
mod traces;
