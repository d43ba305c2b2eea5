//! Calls with several ends over a simulated network: minutes in milliseconds, the same on every run.

mod browser;
mod call;
mod camera;
mod data;
mod failure;
mod feedback;
mod hostile;
mod hostile_data;
mod joins;
mod keyframes;
mod layers;
mod narrow;
mod network;
mod plain;
mod publisher;
mod repair;
mod rtx;
mod stage;
mod statistics;
mod studio;
mod switching;
mod viewer;
mod whole_call;
mod world;
