//! The crate driven from outside: gradients, checkpoints, whole runs, and PyTorch's numbers.

extern crate sakiyomi_train as train;

mod checkpoints;
mod gradients;
mod losses;
mod plans;
mod runs;
mod support;
mod torch;
