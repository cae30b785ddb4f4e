//! Star graphs (Bachmann and Nagarajan, 2403.06963): the path from the centre to a leaf, one arm of several.
//!
//! Given every answer so far, all nodes but the second are found by looking an edge up; the second must be planned from the goal.
//! Line: `a,b|c,d|...|y,z/start,goal=path`, edges shuffled, as in the authors' files.

use super::{PROMPT_END, UNGUESSABLE_STREAM};
use crate::error::{Error, Result};
use crate::examples::Example;
use crate::random::Random;

/// Stands for a start that is not told: the filler of the tokenizer.
const HIDDEN: &str = "$";

/// Sizes of the graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StarGraph {
    /// Arms.
    pub degree: usize,
    /// Nodes of a path, both ends included.
    pub length: usize,
    /// Numbers that nodes are drawn from.
    pub nodes: usize,
    /// Whether the answer goes from the goal to the start, which needs no planning.
    pub reversed: bool,
}

impl StarGraph {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If there are too few nodes for the arms, or no arms.
    pub fn validate(&self) -> Result<()> {
        let wanted = self.degree.saturating_mul(self.length.saturating_sub(1)).saturating_add(1);
        if self.degree == 0 || self.length < 2 {
            return Err(Error::Setting("a star graph has at least 1 arm and paths of 2 nodes".to_owned()));
        }
        if self.nodes < wanted {
            let Self { degree, length, nodes, .. } = self;
            return Err(Error::Setting(format!(
                "{degree} arms of {length} nodes have {wanted} nodes, and there are {nodes}: give more nodes"
            )));
        }
        Ok(())
    }

    /// One graph.
    pub fn draw(&self, random: &mut Random) -> Example {
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        random.shuffle(&mut nodes);
        let start = nodes[0];
        let arms: Vec<Vec<usize>> = nodes[1..]
            .chunks(self.length - 1)
            .take(self.degree)
            .map(|arm| std::iter::once(start).chain(arm.iter().copied()).collect())
            .collect();
        let edges = arms.iter().flat_map(|arm| arm.windows(2).map(|edge| (edge[0], edge[1]))).collect();
        self.example(edges, &start.to_string(), arms[0].clone(), random)
    }

    /// One chain with as many edges as a star, and the path to one of its nodes.
    fn draw_chain(&self, random: &mut Random) -> Example {
        let edges = self.degree * (self.length - 1);
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        random.shuffle(&mut nodes);
        nodes.truncate(edges + 1);
        let start = random.below(edges + 2 - self.length);
        let path = nodes[start..start + self.length].to_vec();
        let edges = nodes.windows(2).map(|edge| (edge[0], edge[1])).collect();
        self.example(edges, HIDDEN, path, random)
    }

    /// The line of a graph and the path to ask for.
    fn example(
        &self,
        mut edges: Vec<(usize, usize)>,
        start: &str,
        mut path: Vec<usize>,
        random: &mut Random,
    ) -> Example {
        random.shuffle(&mut edges);
        let goal = path[self.length - 1];
        if self.reversed {
            path.reverse();
        }
        let edges: Vec<String> = edges.iter().map(|(from, to)| format!("{from},{to}")).collect();
        let path: Vec<String> = path.iter().map(usize::to_string).collect();
        Example { prompt: format!("{}/{start},{goal}{PROMPT_END}", edges.join("|")), answer: path.join(",") }
    }
}

/// Training prompts whose path cannot be guessed from the start, in percent of all; together at most 100.
///
/// In a star every node of the path is one of the few that stand so many edges behind the start. A model that has learnt to guess one
/// of these gains little more from planning, and stays there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unguessable {
    /// Chains in the place of stars: as many edges one behind the other, the start not told, the goal anywhere. Nothing but following
    /// the edges back from the goal tells the path.
    pub chains: usize,
    /// Stars whose start is not told. It can still be found out: two edges leave it.
    pub hidden: usize,
}

impl Unguessable {
    /// Checks that they are not more than all.
    ///
    /// # Errors
    /// If they are.
    pub fn validate(self) -> Result<()> {
        let Self { chains, hidden } = self;
        if chains.saturating_add(hidden) > 100 {
            return Err(Error::Setting(format!(
                "{chains} % chains and {hidden} % hidden starts: give at most 100 percent"
            )));
        }
        Ok(())
    }

    /// Changes about as many of the examples.
    pub fn change(self, examples: &mut [Example], star: StarGraph, seed: u64) {
        let mut random = Random::new(seed, UNGUESSABLE_STREAM);
        for example in examples {
            let place = random.below(100);
            if place < self.chains {
                *example = star.draw_chain(&mut random);
            } else if place < self.chains + self.hidden
                && let Some((edges, ends)) = example.prompt.split_once('/')
                && let Some((_, goal)) = ends.split_once(',')
            {
                example.prompt = format!("{edges}/{HIDDEN},{goal}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the edges of a line from its start to its goal.
    fn solve(prompt: &str) -> String {
        let (edges, ends) = prompt.trim_end_matches('=').split_once('/').unwrap();
        let before = |node: &str| {
            let edge = edges.split('|').map(|edge| edge.split_once(',').unwrap()).find(|edge| edge.1 == node);
            edge.map(|edge| edge.0.to_owned())
        };
        let (start, goal) = ends.split_once(',').unwrap();
        let mut path = vec![goal.to_owned()];
        while path.last().unwrap() != start {
            path.push(before(path.last().unwrap()).unwrap());
        }
        path.reverse();
        path.join(",")
    }

    #[test]
    fn every_graph_has_the_path_that_it_says() {
        let graph = StarGraph { degree: 3, length: 5, nodes: 20, reversed: false };
        graph.validate().unwrap();
        let mut random = Random::new(1, 1);
        for _ in 0..50 {
            let example = graph.draw(&mut random);
            assert_eq!(solve(&example.prompt), example.answer);
            assert_eq!(example.prompt.matches('|').count(), 3 * 4 - 1);
            let start = example.answer.split(',').next().unwrap().to_owned();
            let arms = example.prompt.split(['|', '/']).filter(|edge| edge.starts_with(&format!("{start},")));
            assert_eq!(arms.count(), 3 + 1);
        }
        let reversed = StarGraph { reversed: true, ..graph };
        let (there, back) = (graph.draw(&mut Random::new(2, 2)), reversed.draw(&mut Random::new(2, 2)));
        assert_eq!(there.answer.split(',').rev().collect::<Vec<_>>().join(","), back.answer);
    }

    #[test]
    fn chains_and_hidden_starts_are_as_many_as_asked() {
        let star = StarGraph { degree: 2, length: 4, nodes: 10, reversed: false };
        let mut random = Random::new(3, 3);
        let examples: Vec<Example> = (0..1000).map(|_| star.draw(&mut random)).collect();
        for (chains, hidden) in [(0, 0), (30, 0), (0, 30), (60, 40), (0, 100), (100, 0)] {
            let unguessable = Unguessable { chains, hidden };
            unguessable.validate().unwrap();
            let mut changed = examples.clone();
            unguessable.change(&mut changed, star, 1);
            let mut counts = (0, 0);
            let mut goals = std::collections::BTreeSet::new();
            for (before, after) in examples.iter().zip(&changed) {
                let start = after.answer.split(',').next().unwrap();
                let told = after.prompt.replacen("/$,", &format!("/{start},"), 1);
                assert_eq!(solve(&told), after.answer);
                if after.prompt == before.prompt {
                    continue;
                }
                assert_ne!(told, after.prompt, "the start is hidden");
                if told == before.prompt {
                    counts.1 += 1;
                    continue;
                }
                counts.0 += 1;
                let (edges, _) = told.split_once('/').unwrap();
                let edges: Vec<(&str, &str)> =
                    edges.split('|').filter_map(|edge| edge.split_once(',')).collect();
                // One edge into each node but the first, one out of each but the last.
                let once = |of: fn(&(&str, &str)) -> String| {
                    edges.iter().map(of).collect::<std::collections::BTreeSet<_>>().len() == edges.len()
                };
                assert!(once(|edge| edge.0.to_owned()) && once(|edge| edge.1.to_owned()), "{told}");
                assert_eq!((edges.len(), after.answer.split(',').count()), (6, 4));
                goals.insert(after.answer.split(',').all(|node| edges.iter().any(|edge| edge.0 == node)));
            }
            let near =
                |count: usize, percent: usize| count.abs_diff(10 * percent) <= 5 * percent.min(100 - percent);
            assert!(
                near(counts.0, chains) && near(counts.1, hidden),
                "{counts:?} of 1000 at {unguessable:?}"
            );
            assert_eq!(
                goals.len(),
                if chains > 0 { 2 } else { 0 },
                "the goal is the last node, and it is not"
            );
        }
    }

    #[test]
    fn more_than_all_is_refused() {
        let refusal = |chains, hidden| Unguessable { chains, hidden }.validate().unwrap_err().to_string();
        assert!(refusal(60, 41).contains("60 % chains and 41 % hidden"));
        assert!(refusal(0, usize::MAX).contains("100 percent"));
    }

    #[test]
    fn graphs_that_cannot_be_are_refused() {
        let refusal = |degree, length, nodes| {
            StarGraph { degree, length, nodes, reversed: false }.validate().unwrap_err().to_string()
        };
        assert!(refusal(2, 5, 8).contains("9 nodes, and there are 8"));
        assert!(refusal(0, 5, 8).contains("at least 1 arm"));
        assert!(refusal(2, 1, 8).contains("2 nodes"));
        assert!(refusal(usize::MAX / 4 + 1, 5, 50).contains("give more nodes"));
    }
}
