//! The Kurento Protocol over real WebSockets, one test per statement about it.

mod bad_input;
mod bad_media;
mod churn;
mod client;
mod coverage;
mod descriptions;
mod events;
mod limits;
mod manager;
mod messages;
mod methods;
mod old_clients;
mod retries;
mod sessions;
mod transport;
