//! A graph under construction.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::proto::{
    AttributeProto, DataType, GraphProto, IR_VERSION, ModelProto, NodeProto, OPSET,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto, signed,
};
use super::value::Order;
use super::{Attribute, OnnxError, Value};

/// Largest message that readers of protocol buffers take.
const MOST_BYTES: usize = i32::MAX as usize;

/// A weight that layers may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Unique name, `layer/weight`.
    pub name: &'a str,
    /// Dimensions, row-major.
    pub shape: &'a [usize],
    /// Its elements, without padding.
    pub values: &'a [f32],
}

/// Nodes in the order in which they are computed, and the weights they take.
///
/// A node is called after its operator and the layer that added it, `dense_1/MatMul`, and what it gives
/// after the node, `dense_1/MatMul:0`. Weights have the names that the model has for them.
pub struct Graph<'a> {
    weights: BTreeMap<&'a str, Tensor<'a>>,
    proto: GraphProto,
    notes: Vec<StringStringEntryProto>,
    /// Every name that is in use.
    taken: BTreeSet<String>,
    layer: String,
}

impl<'a> Graph<'a> {
    /// An empty graph of a model with these weights, of which only those that a layer takes get into the
    /// file.
    pub fn new(name: &str, weights: impl IntoIterator<Item = Tensor<'a>>) -> Self {
        let weights = weights.into_iter().map(|weight| (weight.name, weight));
        let weights: BTreeMap<_, _> = weights.collect();
        Self {
            taken: weights.keys().map(|&name| name.to_owned()).collect(),
            weights,
            proto: GraphProto {
                name: name.to_owned(),
                ..GraphProto::default()
            },
            notes: Vec::new(),
            layer: String::new(),
        }
    }

    /// What the graph is given: rows of `shape`, channels last.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Value {
        let name = self.unique(name);
        self.proto.input.push(ValueInfoProto::of_rows(&name, shape));
        Value {
            name,
            shape: shape.to_vec(),
            order: Order::ChannelsLast,
        }
    }

    /// Makes `value` what the graph gives.
    pub fn output(&mut self, name: &str, value: Value) {
        let value = self.channels_last(value);
        let name = self.unique(name);
        self.push("Identity", &[value.name()], &[], Some(&name));
        self.proto
            .output
            .push(ValueInfoProto::of_rows(&name, &value.shape));
    }

    /// Adds a remark for whoever reads the file.
    pub fn note(&mut self, key: &str, value: String) {
        self.notes.push(StringStringEntryProto {
            key: key.to_owned(),
            value,
        });
    }

    /// Adds what the layer called `name` computes.
    pub fn layer<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let enclosing = std::mem::replace(&mut self.layer, name.to_owned());
        let added = body(self);
        self.layer = enclosing;
        added
    }

    /// The error of a layer that cannot say what it computes.
    pub fn no_description(&self) -> OnnxError {
        OnnxError::NoDescription {
            what: format!("layer '{}'", self.layer),
        }
    }

    /// The layer's weight of that name.
    ///
    /// # Panics
    /// If it has none.
    pub fn weight(&mut self, weight: &str) -> String {
        let Tensor {
            name,
            shape,
            values,
        } = self.find(weight);
        self.initializer(name, shape, DataType::Float, little_endian(values))
    }

    /// As [`Self::weight`], of a convolution: `[height, width, in, out]`, turned to ONNX's `[out, in,
    /// height, width]`.
    ///
    /// # Panics
    /// If it has none, or one of another number of dimensions.
    pub fn kernel(&mut self, weight: &str) -> String {
        let tensor = self.find(weight);
        let &[height, width, channels, filters] = tensor.shape else {
            panic!("'{}' is no kernel of a convolution", tensor.name);
        };
        let mut values = Vec::with_capacity(tensor.values.len());
        for filter in 0..filters {
            for channel in 0..channels {
                for place in 0..height * width {
                    values.push(tensor.values[(place * channels + channel) * filters + filter]);
                }
            }
        }
        let shape = [filters, channels, height, width];
        self.initializer(tensor.name, &shape, DataType::Float, little_endian(&values))
    }

    /// What stands in for a weight of `len` numbers that the layer does not have.
    pub fn filled(&mut self, len: usize, value: f32) -> String {
        let name = format!("{value:?} x {len}");
        self.initializer(
            &name,
            &[len],
            DataType::Float,
            little_endian(&vec![value; len]),
        )
    }

    /// A constant.
    pub fn number(&mut self, value: f32) -> String {
        let name = format!("{value:?}");
        self.initializer(&name, &[], DataType::Float, little_endian(&[value]))
    }

    /// The name of a constant of `shape`.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.initializer(name, shape, DataType::Float, little_endian(values))
    }

    /// The name of a list of whole numbers.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let name = format!("{values:?}");
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.initializer(&name, &[values.len()], DataType::Int64, bytes)
    }

    /// `x * factor`.
    pub fn multiply(&mut self, x: &Value, factor: f32) -> Value {
        let factor = self.number(factor);
        self.apply("Mul", x, &[&factor])
    }

    /// `x + term`.
    pub fn add(&mut self, x: &Value, term: f32) -> Value {
        let term = self.number(term);
        self.apply("Add", x, &[&term])
    }

    /// The rows of the weight `table` that the whole numbers `indices` name, each `[.., width]`.
    pub fn gather(&mut self, table: &str, indices: Value, width: usize) -> Value {
        let indices = self.channels_last(indices);
        let integers = self.integers_of(&indices);
        self.lookup(table, &integers, width)
    }

    /// `x` as integers.
    pub fn integers_of(&mut self, x: &Value) -> Value {
        self.cast(x, DataType::Int64)
    }

    /// `x`, which is of integers or of what is true or not, as numbers.
    pub fn numbers_of(&mut self, x: &Value) -> Value {
        self.cast(x, DataType::Float)
    }

    fn cast(&mut self, x: &Value, to: DataType) -> Value {
        let to = [("to", Attribute::Int(to as i64))];
        self.map("Cast", x, &[], &to, &x.shape)
    }

    /// As [`Self::gather`], of `indices` that are integers.
    pub fn lookup(&mut self, table: &str, indices: &Value, width: usize) -> Value {
        Value {
            name: self.push("Gather", &[table, indices.name()], &[], None),
            shape: [&indices.shape[..], &[width]].concat(),
            order: Order::ChannelsLast,
        }
    }

    /// Probabilities over the channels.
    pub fn softmax(&mut self, x: &Value) -> Value {
        let axis = [("axis", Attribute::Int(x.channel_axis()))];
        self.map("Softmax", x, &[], &axis, &x.shape)
    }

    /// `a + b`, of one shape.
    pub fn sum(&mut self, a: Value, b: &Value) -> Value {
        let a = match b.order {
            Order::ChannelsLast => self.channels_last(a),
            Order::ChannelsFirst => self.channels_first(a),
        };
        self.apply("Add", &a, &[b.name()])
    }

    /// A node that gives rows as `x` has them; `others` are its inputs beside `x`.
    pub fn apply(&mut self, operator: &str, x: &Value, others: &[&str]) -> Value {
        self.map(operator, x, others, &[], &x.shape)
    }

    /// A node that gives rows of `shape` in the order that `x` has.
    pub fn map(
        &mut self,
        operator: &str,
        x: &Value,
        others: &[&str],
        attributes: &[(&str, Attribute)],
        shape: &[usize],
    ) -> Value {
        let inputs: Vec<&str> = [x.name()].iter().chain(others).copied().collect();
        Value {
            name: self.push(operator, &inputs, attributes, None),
            shape: shape.to_vec(),
            order: match shape.len() {
                0 | 1 => Order::ChannelsLast,
                _ => x.order,
            },
        }
    }

    /// The same numbers as rows of another shape, channels last; `x` itself where it is of that shape.
    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Value {
        if x.shape == shape {
            return x;
        }
        let x = self.channels_last(x);
        // A zero stands for the input's own: the batch.
        let target: Vec<i64> = std::iter::once(0).chain(signed(shape)).collect();
        let name = format!("shape {target:?}");
        let bytes = target.iter().flat_map(|size| size.to_le_bytes()).collect();
        let target = self.initializer(&name, &[target.len()], DataType::Int64, bytes);
        self.map("Reshape", &x, &[&target], &[], shape)
    }

    /// `x` with the channels before all other dimensions of a row.
    pub fn channels_first(&mut self, x: Value) -> Value {
        let dimensions = x.shape.len() as i64;
        if x.order == Order::ChannelsFirst || dimensions < 2 {
            return x;
        }
        let axes = [0, dimensions].into_iter().chain(1..dimensions);
        self.transpose(&x, axes.collect(), Order::ChannelsFirst)
    }

    /// `x` with the channels behind all other dimensions of a row.
    pub fn channels_last(&mut self, x: Value) -> Value {
        if x.order == Order::ChannelsLast {
            return x;
        }
        let dimensions = x.shape.len() as i64;
        let axes = std::iter::once(0).chain(2..=dimensions).chain([1]);
        self.transpose(&x, axes.collect(), Order::ChannelsLast)
    }

    fn transpose(&mut self, x: &Value, axes: Vec<i64>, order: Order) -> Value {
        let axes = [("perm", Attribute::Ints(axes))];
        let turned = self.map("Transpose", x, &[], &axes, &x.shape);
        Value { order, ..turned }
    }

    /// The bytes of the file: the same for the same graph.
    ///
    /// # Errors
    /// If they are too many for those that read such files.
    pub fn finish(self) -> Result<Vec<u8>, OnnxError> {
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.proto),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
            metadata_props: self.notes,
        };
        match model.encoded_len() {
            bytes if bytes > MOST_BYTES => Err(OnnxError::TooLarge { bytes }),
            _ => Ok(model.encode_to_vec()),
        }
    }

    /// Adds a node; returns the name of its output.
    fn push(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
        output: Option<&str>,
    ) -> String {
        let name = match self.layer.as_str() {
            "" => self.unique(operator),
            layer => self.unique(&format!("{layer}/{operator}")),
        };
        let output = match output {
            Some(output) => output.to_owned(),
            // Some readers have one name space for nodes and what they give.
            None => self.unique(&format!("{name}:0")),
        };
        let attributes = attributes.iter();
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            name,
            op_type: operator.to_owned(),
            attribute: attributes
                .map(|(name, value)| AttributeProto::new(name, value))
                .collect(),
        });
        output
    }

    fn find(&self, weight: &str) -> Tensor<'a> {
        let name = format!("{}/{weight}", self.layer);
        let found = self.weights.get(name.as_str());
        *found.unwrap_or_else(|| panic!("the model has no weight '{name}'"))
    }

    /// Puts a constant into the file unless one of that name is there.
    fn initializer(
        &mut self,
        name: &str,
        shape: &[usize],
        data_type: DataType,
        bytes: Vec<u8>,
    ) -> String {
        let mut present = self.proto.initializer.iter();
        if let Some(tensor) = present.find(|tensor| tensor.name == name) {
            debug_assert_eq!(tensor.raw_data, bytes, "two constants called '{name}'");
        } else {
            self.taken.insert(name.to_owned());
            self.proto.initializer.push(TensorProto {
                dims: signed(shape).collect(),
                data_type: data_type as i32,
                name: name.to_owned(),
                raw_data: bytes,
            });
        }
        name.to_owned()
    }

    /// `name`, or where something is called so already, `name_1`, `name_2`, ...
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 0;
        while !self.taken.insert(unique.clone()) {
            count += 1;
            unique = format!("{name}_{count}");
        }
        unique
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators<'a>(graph: &'a Graph<'_>) -> Vec<&'a str> {
        let nodes = graph.proto.node.iter();
        nodes.map(|node| node.op_type.as_str()).collect()
    }

    #[test]
    fn images_are_turned_only_where_the_order_changes() {
        let mut graph = Graph::new("turns", []);
        let x = graph.input("features", &[2, 3, 4]);
        let x = graph.channels_last(x);
        let x = graph.channels_first(x);
        let x = graph.channels_first(x);
        assert_eq!((x.channel_axis(), x.spatial_axes()), (1, vec![2, 3]));
        let x = graph.apply("Relu", &x, &[]);
        let x = graph.reshape(x, &[2, 3, 4]);
        let x = graph.reshape(x, &[24]);
        assert_eq!((x.channel_axis(), x.spatial_axes()), (1, vec![]));
        let x = graph.channels_first(x);
        graph.output("predictions", x);
        let expected = ["Transpose", "Relu", "Transpose", "Reshape", "Identity"];
        assert_eq!(operators(&graph), expected);
        let axes = |node: usize| graph.proto.node[node].attribute[0].ints.clone();
        assert_eq!((axes(0), axes(2)), (vec![0, 3, 1, 2], vec![0, 2, 3, 1]));
        let target = &graph.proto.initializer[0].raw_data;
        assert_eq!(*target, [0, 24].map(i64::to_le_bytes).concat());
    }

    #[test]
    fn names_are_those_of_layers_and_weights_and_unique() {
        let weight = |name| Tensor {
            name,
            shape: &[1],
            values: &[1.0],
        };
        let mut graph = Graph::new("names", ["a/Relu", "a/b", "c/d"].map(weight));
        let x = graph.input("x", &[1]);
        let x = graph.layer("a", |graph| {
            let weights = ["b", "b"].map(|name| graph.weight(name));
            assert_eq!(weights, ["a/b", "a/b"]);
            graph.apply("Relu", &x, &[])
        });
        let x = graph.multiply(&x, 0.5);
        let x = graph.multiply(&x, 0.5);
        let nodes = graph.proto.node.iter();
        let names: Vec<_> = nodes.map(|node| (&*node.name, &*node.output[0])).collect();
        let expected = [
            ("a/Relu_1", "a/Relu_1:0"),
            ("Mul", "Mul:0"),
            ("Mul_1", "Mul_1:0"),
        ];
        assert_eq!(names, expected);
        assert_eq!(x.name(), "Mul_1:0");
        let stored = graph.proto.initializer.iter();
        let stored: Vec<_> = stored.map(|tensor| &*tensor.name).collect();
        assert_eq!(stored, ["a/b", "0.5"]);
    }

    #[test]
    fn a_layer_that_says_nothing_is_named() {
        let mut graph = Graph::new("silence", []);
        let error = graph.layer("outer", |graph| {
            graph.layer("inner", |_| ());
            graph.no_description()
        });
        let start = "layer 'outer' does not say what it computes: ";
        assert!(error.to_string().starts_with(start), "{error}");
    }

    #[test]
    fn kernels_are_turned_to_filters_of_channels() {
        // One row of two columns, two channels, three filters.
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let kernel = Tensor {
            name: "a/kernel",
            shape: &[1, 2, 2, 3],
            values: &values,
        };
        let mut graph = Graph::new("kernel", [kernel]);
        graph.layer("a", |graph| graph.kernel("kernel"));
        let stored = &graph.proto.initializer[0];
        assert_eq!(stored.dims, [3, 2, 1, 2]);
        let turned = [0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11].map(|value| value as f32);
        assert_eq!(stored.raw_data, little_endian(&turned));
    }
}
