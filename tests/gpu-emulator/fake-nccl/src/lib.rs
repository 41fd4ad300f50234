//! An `libnccl.so` for machines without a GPU.
//!
//! Ranks are threads of one process or processes of one machine; they meet in POSIX shared memory
//! named after the unique id. Every operation is enqueued on the caller's stream of the fake driver
//! (see `driver`) and makes progress without blocking, so one thread may drive several ranks.
//!
//! A mistake that hangs or corrupts on a real machine is reported here: the receive buffer becomes
//! NaN, the communicator gets an asynchronous error, and a message says which ranks disagree.

mod api;
mod collective;
mod comm;
mod driver;
mod group;
mod inject;
mod p2p;
mod progress;
mod reduce;
mod result;
mod shm;
