//! CUDA graphs: operations of a capture, or nodes with dependencies.
//!
//! The operations of a capture are kept in the order of the calls, which respects all dependencies,
//! and are replayed in that order on the launch stream. Ordering mistakes *inside* a captured graph
//! are therefore not found. Nodes run in the order that is least convenient among those their
//! dependencies permit: of the nodes that may run, the one that was added last.

use crate::error::{self, CuResult};
use crate::queue::Operation;
use crate::state::Handle;

#[derive(Default)]
pub(crate) struct Graph {
    pub operations: Vec<Operation>,
    /// Stream on which the capture began, while it lasts.
    pub origin: Option<Handle>,
    nodes: Vec<Node>,
}

#[derive(Clone)]
struct Node {
    handle: Handle,
    /// Handles of earlier nodes.
    dependencies: Vec<Handle>,
    /// One, or those of a graph.
    operations: Vec<Operation>,
}

impl Graph {
    pub(crate) fn captured_on(stream: Handle) -> Self {
        Self {
            origin: Some(stream),
            ..Self::default()
        }
    }

    pub(crate) fn node_count(&self) -> usize {
        self.operations.len() + self.nodes.len()
    }

    pub(crate) fn add(
        &mut self,
        handle: Handle,
        dependencies: &[Handle],
        operations: Vec<Operation>,
    ) -> CuResult {
        let known = |handle: &Handle| self.nodes.iter().any(|node| node.handle == *handle);
        if !dependencies.iter().all(known) {
            return Err(error::INVALID_VALUE);
        }
        self.nodes.push(Node {
            handle,
            dependencies: dependencies.to_vec(),
            operations,
        });
        Ok(())
    }

    /// What is launched: the nodes in the order in which they will run.
    pub(crate) fn instantiate(&self) -> Self {
        let mut waiting = self.nodes.clone();
        let mut nodes: Vec<Node> = Vec::new();
        while !waiting.is_empty() {
            let is_done = |handle: &Handle| nodes.iter().any(|node| node.handle == *handle);
            let ready = |node: &Node| node.dependencies.iter().all(is_done);
            // Dependencies are earlier nodes, so the first that waits is always ready.
            let last = waiting.iter().rposition(ready).unwrap_or(0);
            nodes.push(waiting.remove(last));
        }
        Self {
            operations: self.operations.clone(),
            origin: None,
            nodes,
        }
    }

    /// What a launch runs, in order.
    pub(crate) fn sequence(&self) -> impl Iterator<Item = Operation> + '_ {
        let nodes = self.nodes.iter().flat_map(|node| &node.operations);
        self.operations.iter().chain(nodes).cloned()
    }

    /// Gives a node of an instantiated graph another operation.
    pub(crate) fn set(&mut self, handle: Handle, operation: Operation) -> CuResult {
        let node = self.nodes.iter_mut().find(|node| node.handle == handle);
        node.ok_or(error::INVALID_VALUE)?.operations = vec![operation];
        Ok(())
    }
}
