//! The end-to-end tests: ordinary CUDA programs on the emulator.

mod emulator;
mod end_to_end;
mod planted_bugs;
