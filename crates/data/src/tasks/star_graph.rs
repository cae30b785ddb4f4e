//! Star graphs (Bachmann and Nagarajan, 2403.06963): the path from the centre to a leaf, one arm of several.
//!
//! Given every answer so far, all nodes but the second are found by looking an edge up; the second must be planned from the goal.
//! Line: `a,b|c,d|...|y,z/start,goal=path`, edges shuffled, as in the authors' files.

use super::{HIDING_STREAM, PROMPT_END};
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
        let mut edges: Vec<(usize, usize)> =
            arms.iter().flat_map(|arm| arm.windows(2).map(|edge| (edge[0], edge[1]))).collect();
        random.shuffle(&mut edges);
        let mut path = arms[0].clone();
        let goal = path[self.length - 1];
        if self.reversed {
            path.reverse();
        }
        let edges: Vec<String> = edges.iter().map(|(from, to)| format!("{from},{to}")).collect();
        let path: Vec<String> = path.iter().map(usize::to_string).collect();
        Example { prompt: format!("{}/{start},{goal}{PROMPT_END}", edges.join("|")), answer: path.join(",") }
    }
}

/// Takes the start from the prompts of about `percent` of the examples. Answers stay as they are.
///
/// The second node is one of the few that stand behind the start, and a model that has learnt to guess one of these gains little more
/// from planning. Where the start is not told, the edges must be followed from the goal.
pub fn hide_starts(examples: &mut [Example], percent: usize, seed: u64) {
    let mut random = Random::new(seed, HIDING_STREAM);
    for example in examples {
        if random.chance(percent, 100)
            && let Some((edges, ends)) = example.prompt.split_once('/')
            && let Some((_, goal)) = ends.split_once(',')
        {
            example.prompt = format!("{edges}/{HIDDEN},{goal}");
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
    fn starts_are_hidden_from_as_many_prompts_as_asked() {
        let graph = StarGraph { degree: 2, length: 4, nodes: 10, reversed: false };
        let mut random = Random::new(3, 3);
        let examples: Vec<Example> = (0..1000).map(|_| graph.draw(&mut random)).collect();
        for (percent, expected) in [(0, 0..=0), (30, 250..=350), (100, 1000..=1000)] {
            let mut hidden = examples.clone();
            hide_starts(&mut hidden, percent, 1);
            let mut count = 0;
            for (before, after) in examples.iter().zip(&hidden) {
                assert_eq!(before.answer, after.answer);
                let start = before.answer.split(',').next().unwrap();
                count += usize::from(before.prompt != after.prompt);
                let told = after.prompt.replacen("/$,", &format!("/{start},"), 1);
                assert_eq!(told, before.prompt, "only the start is another");
            }
            assert!(expected.contains(&count), "{count} of 1000 at {percent} %");
        }
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
