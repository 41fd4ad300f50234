//! What a user may choose about collectives.

use std::time::Duration;

use super::sim::Link;
use super::{Algorithm, CommError};
use crate::named::choices;
use crate::params::partition;

choices! {
    /// Which algorithm runs collectives.
    #[derive(Default)]
    pub enum CollectiveChoice ("collective") {
        /// Direct on one host, hierarchical or a ring on several.
        #[default]
        Auto = "auto",
        /// A ring of messages through all ranks.
        Ring = "ring",
        /// Everybody reads everybody's memory; all ranks on one host.
        Direct = "direct",
        /// Direct within a host, rings of messages between hosts.
        Hierarchical = "hierarchical",
        /// Through the host's memory: ranks on GPUs only.
        Staged = "staged",
        /// NCCL between the memories of GPUs.
        Nccl = "nccl",
    }
}

impl CollectiveChoice {
    /// What the hosts of ranks on GPUs are to run.
    pub(crate) fn of_hosts(self) -> Self {
        match self {
            Self::Staged | Self::Nccl => Self::Auto,
            other => other,
        }
    }
}

/// How ranks talk to each other; the same on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Which algorithm.
    pub collective: CollectiveChoice,
    /// Ranks on each of several pretended hosts, in rank order; empty for the real ones.
    pub hosts: Vec<usize>,
    /// Largest message, in bytes; a multiple of 8.
    pub chunk: usize,
    /// How long to wait for a rank before it is an error.
    pub patience: Duration,
    /// A slow network between thread ranks that every message passes.
    pub link: Option<Link>,
    /// Whether collectives run on a thread of their own beside compute; `None` for where that gains
    /// something. Those of MPI always do.
    pub overlap: Option<bool>,
    /// Most bytes of memory that a rank may share with processes of its host; beyond, messages.
    pub shared_memory_limit: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            collective: CollectiveChoice::Auto,
            hosts: Vec::new(),
            chunk: 256 << 10,
            patience: Duration::from_secs(300),
            link: None,
            overlap: None,
            shared_memory_limit: None,
        }
    }
}

impl Options {
    /// These options with another algorithm.
    pub fn with_collective(self, collective: CollectiveChoice) -> Self {
        Self { collective, ..self }
    }

    /// The pretended host of each of `world` ranks, or `None` where none are pretended.
    pub(crate) fn pretended_hosts(&self, world: usize) -> Result<Option<Vec<usize>>, CommError> {
        if self.hosts.is_empty() {
            return Ok(None);
        }
        if self.hosts.iter().sum::<usize>() != world || self.hosts.contains(&0) {
            let hosts = &self.hosts;
            return Err(invalid(format!(
                "hosts of {hosts:?} ranks do not add up to {world} ranks; give each host at least \
                 one rank and {world} in all"
            )));
        }
        let of_host = |(host, &ranks): (usize, &usize)| std::iter::repeat_n(host, ranks);
        Ok(Some(
            self.hosts.iter().enumerate().flat_map(of_host).collect(),
        ))
    }

    /// What runs on ranks that lie on these hosts.
    pub(crate) fn algorithm(&self, hosts: &Hosts) -> Result<Algorithm, CommError> {
        if self.chunk == 0 || !self.chunk.is_multiple_of(8) {
            return Err(invalid(format!(
                "a chunk of {} bytes is not a multiple of 8",
                self.chunk
            )));
        }
        let (one_host, none_shared) = (hosts.count() == 1, hosts.largest() == 1);
        match self.collective {
            CollectiveChoice::Auto if self.link.is_some() && one_host => Ok(Algorithm::Ring),
            CollectiveChoice::Auto if one_host => Ok(Algorithm::Direct),
            CollectiveChoice::Auto if none_shared => Ok(Algorithm::Ring),
            CollectiveChoice::Auto | CollectiveChoice::Hierarchical => Ok(Algorithm::Hierarchical),
            CollectiveChoice::Ring => Ok(Algorithm::Ring),
            CollectiveChoice::Direct if one_host => Ok(Algorithm::Direct),
            CollectiveChoice::Staged | CollectiveChoice::Nccl => Err(invalid(
                "staged and nccl sum between GPUs: choose --device cuda, or another collective"
                    .to_owned(),
            )),
            CollectiveChoice::Direct => Err(invalid(format!(
                "direct needs all ranks on one host, and there are {}; choose auto, hierarchical \
                 or ring",
                hosts.count()
            ))),
        }
    }
}

fn invalid(problem: String) -> CommError {
    CommError::Transport {
        operation: "choice of the collective",
        rank: 0,
        problem,
    }
}

/// Which ranks share a host.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// Ranks of each host, ascending; hosts in the order of their first ranks.
    ranks: Vec<Vec<usize>>,
    /// Host of each rank.
    host: Vec<usize>,
}

impl Hosts {
    /// From any number per rank that is equal on equal hosts.
    pub(crate) fn new(names: &[usize]) -> Self {
        let mut known: Vec<usize> = Vec::new();
        let mut ranks: Vec<Vec<usize>> = Vec::new();
        let mut host = Vec::new();
        for (rank, name) in names.iter().enumerate() {
            let index = known
                .iter()
                .position(|other| other == name)
                .unwrap_or(known.len());
            if index == known.len() {
                known.push(*name);
                ranks.push(Vec::new());
            }
            ranks[index].push(rank);
            host.push(index);
        }
        Self { ranks, host }
    }

    /// Number of hosts.
    pub(crate) fn count(&self) -> usize {
        self.ranks.len()
    }

    /// Most ranks of a host.
    pub(crate) fn largest(&self) -> usize {
        self.ranks.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Ranks of a host, ascending.
    pub(crate) fn ranks(&self, host: usize) -> &[usize] {
        &self.ranks[host]
    }

    /// Host of a rank.
    pub(crate) fn host(&self, rank: usize) -> usize {
        self.host[rank]
    }

    /// The rank of `host` that leads in lane `lane`: lanes are as many as the largest host has
    /// ranks, and a rank of a smaller host leads in several.
    pub(crate) fn leader(&self, host: usize, lane: usize) -> usize {
        let ranks = &self.ranks[host];
        ranks[lane % ranks.len()]
    }

    /// The elements of `len` that belong to `host` in `lane`: the piece of its rank number `lane`,
    /// nothing if it has fewer.
    pub(crate) fn piece(&self, host: usize, lane: usize, len: usize) -> std::ops::Range<usize> {
        match self.ranks[host].get(lane) {
            Some(&rank) => partition(len, self.host.len(), rank),
            None => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_algorithm_follows_from_the_hosts() {
        let chosen = |choice, names: &[usize]| {
            Options::default()
                .with_collective(choice)
                .algorithm(&Hosts::new(names))
        };
        use CollectiveChoice::{Auto, Direct, Ring};
        assert_eq!(chosen(Auto, &[7, 7, 7]).unwrap(), Algorithm::Direct);
        assert_eq!(chosen(Auto, &[7, 8, 9]).unwrap(), Algorithm::Ring);
        assert_eq!(chosen(Auto, &[7, 8, 7]).unwrap(), Algorithm::Hierarchical);
        assert_eq!(chosen(Ring, &[7, 7]).unwrap(), Algorithm::Ring);
        let error = chosen(Direct, &[7, 8]).unwrap_err().to_string();
        assert!(
            error.contains("direct needs all ranks on one host, and there are 2"),
            "{error}"
        );
    }

    #[test]
    fn pretended_hosts_must_add_up() {
        let options = |hosts: &[usize]| Options {
            hosts: hosts.to_vec(),
            ..Options::default()
        };
        assert_eq!(options(&[]).pretended_hosts(3).unwrap(), None);
        assert_eq!(
            options(&[2, 1]).pretended_hosts(3).unwrap(),
            Some(vec![0, 0, 1])
        );
        assert!(options(&[2, 2]).pretended_hosts(3).is_err());
        assert!(options(&[3, 0]).pretended_hosts(3).is_err());
    }

    #[test]
    fn lanes_cover_every_piece_once() {
        let hosts = Hosts::new(&[0, 0, 0, 1, 2, 2]);
        let mut pieces: Vec<_> = (0..hosts.largest())
            .flat_map(|lane| (0..hosts.count()).map(move |host| (host, lane)))
            .map(|(host, lane)| hosts.piece(host, lane, 13))
            .filter(|piece| !piece.is_empty())
            .collect();
        pieces.sort_by_key(|piece| piece.start);
        assert_eq!(
            pieces,
            (0..6)
                .map(|rank| partition(13, 6, rank))
                .collect::<Vec<_>>()
        );
        assert_eq!(hosts.leader(1, 2), 3);
    }
}
