//! Hubs: a folder per class. A hub says which of its ports feeds which; the graph follows that.

include!(concat!(env!("OUT_DIR"), "/hubs.rs"));
