//! The crate driven from outside: gradients, checkpoints, whole runs, a trained model, and PyTorch's numbers.

extern crate sakiyomi_train as train;

mod checkpoints;
mod endings;
mod exits;
mod gradients;
mod joint;
mod lora;
mod losses;
mod numerics;
mod plans;
mod registers;
mod runs;
mod small_run;
mod support;
mod torch;
mod trained_model;
mod trunk_states;
