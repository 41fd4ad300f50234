//! What the nodes of a graph compute.

/// What is computed for each row of the batch.
#[derive(Debug, Clone)]
pub struct Value {
    pub(super) name: String,
    /// Of one row, channels last whatever the order.
    pub(super) shape: Vec<usize>,
    pub(super) order: Order,
}

/// Where the channels of a row of several dimensions stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    ChannelsLast,
    ChannelsFirst,
}

impl Value {
    /// The name that nodes take it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of one row, channels last.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The axis of the channels, counted with the batch.
    pub fn channel_axis(&self) -> i64 {
        match self.order {
            Order::ChannelsLast => self.shape.len() as i64,
            Order::ChannelsFirst => 1,
        }
    }

    /// The axes between batch and channels, whichever comes first of them.
    pub fn spatial_axes(&self) -> Vec<i64> {
        let axes = 1..=self.shape.len() as i64;
        axes.filter(|&axis| axis != self.channel_axis()).collect()
    }
}
