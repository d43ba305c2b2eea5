//! Calls with several ends over a simulated network: minutes in milliseconds, the same on every run.

mod call;
mod keyframes;
mod repair;
mod switching;
mod world;
