//! Buffers that are lent and come back, so that a training step allocates nothing after the first.

use std::collections::BTreeMap;

/// A pool of f32 buffers. What it lends holds stale values: whoever takes a buffer overwrites it.
#[derive(Debug, Default)]
pub struct Arena {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    allocated: usize,
    most_rows: usize,
}

/// A free buffer serves a request if it is at most this much longer, so that a small request does not hold a large one.
const LARGEST_WASTE: usize = 4;

impl Arena {
    /// Lends a buffer of `len` values with arbitrary contents.
    pub fn take(&mut self, len: usize) -> Vec<f32> {
        let found = self.free.range(len..=len + len / LARGEST_WASTE).next().map(|(&capacity, _)| capacity);
        if let Some(capacity) = found {
            let buffers = self.free.entry(capacity).or_default();
            let buffer = buffers.pop();
            if buffers.is_empty() {
                self.free.remove(&capacity);
            }
            if let Some(mut buffer) = buffer {
                buffer.resize(len, 0.0);
                return buffer;
            }
        }
        self.allocated += len;
        vec![0.0; len]
    }

    /// Lends a buffer of `len` zeros.
    pub fn take_zeroed(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// Begins a step of `rows` rows. Where that is more than in any step before, buffers of fewer rows would lie idle beside those
    /// of this step, and go: memory is that of the largest step, not of all sizes there were (the number of registers varies).
    pub fn begin(&mut self, rows: usize) {
        if rows > self.most_rows {
            self.most_rows = rows;
            self.allocated -=
                self.free.iter().map(|(capacity, buffers)| capacity * buffers.len()).sum::<usize>();
            self.free.clear();
        }
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.free.entry(buffer.capacity()).or_default().push(buffer);
        }
    }

    /// How many values are allocated: steady once every shape has been seen.
    pub fn allocated_values(&self) -> usize {
        self.allocated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_large_ones_do_not_serve_small_requests() {
        let mut arena = Arena::default();
        let a = arena.take(100);
        arena.give(a);
        let b = arena.take(90);
        assert_eq!((b.len(), arena.allocated_values()), (90, 100));
        arena.give(b);
        let c = arena.take(10);
        assert_eq!((c.len(), arena.allocated_values()), (10, 110));
    }

    #[test]
    fn steps_of_many_sizes_take_the_memory_of_the_largest() {
        let mut arena = Arena::default();
        for rows in [100, 103, 98, 110, 104, 110, 99] {
            arena.begin(rows);
            let (a, b) = (arena.take(rows), arena.take(2 * rows));
            arena.give(a);
            arena.give(b);
        }
        assert_eq!(arena.allocated_values(), 3 * 110);
        // What is lent stays counted.
        let lent = arena.take(110);
        arena.begin(200);
        assert_eq!(arena.allocated_values(), lent.len());
    }

    #[test]
    fn zeroed_buffers_are_zero_even_when_reused() {
        let mut arena = Arena::default();
        let mut a = arena.take(5);
        a.fill(3.0);
        arena.give(a);
        assert_eq!(arena.take_zeroed(5), vec![0.0; 5]);
    }
}
