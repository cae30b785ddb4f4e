//! The product as its users meet it: through the command line, with models small enough to train in a moment.

mod bad_input;
mod disk;
mod interrupt;
mod joint;
mod json;
mod killed;
mod lens;
mod registers;
mod support;
mod sweep;
mod tasks;
mod text;
mod weights;
mod workflow;
