//! Calls with several ends over a simulated network: minutes in milliseconds, the same on every run.

mod call;
mod keyframes;
mod publisher;
mod repair;
mod switching;
mod viewer;
mod world;
