//! All integration tests, in one binary: one module per area.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop the test where they fail"
)]

#[path = "../bad_sample/mod.rs"]
mod bad_sample;
#[path = "../collectives/mod.rs"]
mod collectives;
mod comm;
mod commands;
mod applied;
mod bench;
mod checkpoint;
mod control;
mod convolution;
mod custom_model;
mod output;
mod overlap;
mod parity;
mod precision;
mod pooling;
mod images;
mod keras;
mod kill;
#[path = "../digits/mod.rs"]
mod digits;
mod doctor;
mod estimators;
mod export;
mod golden;
mod gradient;
mod layers;
mod not_finite;
#[path = "../lockstep/mod.rs"]
mod lockstep;
mod reference;
mod repeats;
mod config;
mod data;
mod training;
mod resume;
mod session;
mod losses;
mod mishaps;
mod optimizers;
mod schedules;
mod sources;
mod slices;
mod stream;
mod robustness;
mod tidy;
