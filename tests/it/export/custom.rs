//! Models written in Rust.

use ringstep::backend::{Backend, View, ViewMut};
use ringstep::config::CustomModels;
use ringstep::data::Description;
use ringstep::layers::{Build, Context, LayerError};
use ringstep::models::{BuildModel, CustomModel, LossSpec, MicroBatch, Model, Report, Structure};
use ringstep::params::GradSink;

use super::{Saved, classes, normal};
use crate::custom_model::example;

#[test]
fn a_model_that_says_what_it_computes_is_exported() {
    for model in ["{ kind = 'residual', filters = 3 }", "'plain'"] {
        let section = format!("loss = 'softmax_cross_entropy'\ncustom = {model}");
        let models = example::models();
        Saved::new(&section, &[8, 8, 1], classes(10), &models).check(model, normal);
    }
}

/// The plain model of the example, which keeps to itself what it computes.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Silent {}

impl CustomModel for Silent {
    const KIND: &'static str = "silent";
}

impl BuildModel for Silent {
    fn build<B: Backend>(
        &self,
        build: Build<'_, B>,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Box<dyn Model<B>>, LayerError> {
        let plain = example::Plain::default().build(build, data, loss)?;
        Ok(Box::new(SilentModel(plain)))
    }
}

struct SilentModel<B: Backend>(Box<dyn Model<B>>);

impl<B: Backend> Model<B> for SilentModel<B> {
    fn structure(&self) -> &Structure {
        self.0.structure()
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        report: Report<'_, B>,
    ) {
        self.0.forward(cx, parameters, batch, report);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        sink: &mut dyn GradSink<B>,
    ) {
        self.0.backward(cx, parameters, batch, sink);
    }

    fn predict(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        features: View<'_, B>,
        out: ViewMut<'_, B>,
    ) {
        self.0.predict(cx, parameters, features, out);
    }
}

#[test]
fn a_model_that_does_not_say_is_an_error_that_says_so() {
    let section = "loss = 'softmax_cross_entropy'\ncustom = 'silent'";
    let models = CustomModels::new().with::<Silent>();
    let saved = Saved::new(section, &[4], classes(3), &models);
    assert_eq!(
        saved.export().unwrap_err().to_string(),
        "the model does not say what it computes: implement `export` for it, or export the weights \
         alone with --format safetensors"
    );
    assert!(saved.checkpoint().weights().is_ok());
}
