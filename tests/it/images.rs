//! Layers on images against golden numbers and finite differences, and what they refuse.

use ringstep::backend::Padding;
use ringstep::backend::cpu::Cpu;
use ringstep::layers::{
    ActivationSpec, AveragePooling2D, Build, Conv2D, GlobalAveragePooling2D, GlobalMaxPooling2D,
    LayerSpec, MaxPooling2D, Mode, Shape,
};

use crate::gradient::{OneLayer, check_finite_differences, check_golden, normal};

#[test]
fn convolution_is_tensorflows() {
    check_golden("conv2d_3x3_valid_s1", Conv2D::new(4, 3));
    check_golden("conv2d_3x3_valid_s2", Conv2D::new(4, 3).strides(2));
    check_golden(
        "conv2d_3x3_same_s1",
        Conv2D::new(4, 3).padding(Padding::Same),
    );
    let relu = Conv2D::new(4, 3).activation(ActivationSpec::Relu);
    check_golden(
        "conv2d_relu_nobias",
        Conv2D {
            use_bias: false,
            ..relu
        },
    );
}

#[test]
fn pooling_is_tensorflows() {
    let padding = Padding::Same;
    let strides = Some(2.into());
    let (max, average) = (MaxPooling2D::default(), AveragePooling2D::default());
    check_golden("maxpool2_valid", max.clone());
    check_golden(
        "maxpool3_s2_valid",
        MaxPooling2D {
            strides,
            ..MaxPooling2D::new(3)
        },
    );
    check_golden("maxpool2_same", MaxPooling2D { padding, ..max });
    check_golden("avgpool2_valid", average.clone());
    check_golden(
        "avgpool3_s2_valid",
        AveragePooling2D {
            strides,
            ..AveragePooling2D::new(3)
        },
    );
    check_golden("avgpool2_same", AveragePooling2D { padding, ..average });
    check_golden("gmaxpool", GlobalMaxPooling2D::default());
    check_golden("gavgpool", GlobalAveragePooling2D::default());
}

#[test]
fn convolution_passes_finite_differences() {
    for (spec, image) in [
        (Conv2D::new(3, [2, 3]), [4, 5, 2]),
        (Conv2D::new(2, 3).padding(Padding::Same), [4, 3, 3]),
        (
            Conv2D::new(5, [3, 2])
                .strides([2, 3])
                .padding(Padding::Same),
            [5, 7, 1],
        ),
        (Conv2D::new(4, 1).strides(2), [3, 4, 2]),
        (
            Conv2D::new(3, 2).activation(ActivationSpec::Tanh),
            [3, 3, 2],
        ),
        (
            Conv2D::new(3, 2).activation(ActivationSpec::Silu),
            [3, 3, 2],
        ),
        (
            Conv2D::new(3, 2).activation(ActivationSpec::Softmax),
            [3, 3, 2],
        ),
    ] {
        let x = normal("images", 3 * image.iter().product::<usize>());
        let mut layer = OneLayer::new(spec, &image, 3);
        check_finite_differences(&mut layer, &x, true);
        check_finite_differences(&mut layer, &x, false);
    }
}

#[test]
fn pooling_passes_finite_differences() {
    let (window, padding) = (3.into(), Padding::Same);
    let strides = Some([1, 2].into());
    let max = MaxPooling2D {
        pool_size: window,
        strides,
        padding,
        name: None,
    };
    let average = AveragePooling2D {
        pool_size: window,
        strides,
        padding,
        name: None,
    };
    for spec in [
        LayerSpec::from(max),
        average.into(),
        MaxPooling2D::default().into(),
        AveragePooling2D::default().into(),
        GlobalMaxPooling2D::default().into(),
        GlobalAveragePooling2D::default().into(),
    ] {
        // All different by far more than a difference's step, so that no maximum changes places.
        let len = 2 * 5 * 4 * 3;
        let x: Vec<f32> = (0..len).map(|i| (i * 37 % len) as f32 * 0.1).collect();
        check_finite_differences(&mut OneLayer::new(spec, &[5, 4, 3], 2), &x, true);
    }
}

#[test]
fn fewer_rows_than_built_for_give_the_same_output() {
    let spec = Conv2D::new(20, 3)
        .padding(Padding::Same)
        .activation(ActivationSpec::Gelu);
    let x = normal("images", 7 * 6 * 5 * 3);
    let all = OneLayer::new(spec.clone(), &[6, 5, 3], 7).forward(Mode::Train, &x);
    let mut few = OneLayer::new(spec, &[6, 5, 3], 7);
    few.rows(2);
    assert_eq!(few.forward(Mode::Train, &x[..2 * 90]), all[..2 * 600]);
}

fn problem(spec: impl Into<LayerSpec>, input: &[usize]) -> String {
    let mut cpu = Cpu::new();
    let mut build = Build::new(&mut cpu, 2);
    let built = spec.into().build(&mut build, &Shape(input.to_vec()));
    built.map(|built| built.output).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(
        problem(Conv2D::new(4, 3), &[28, 28]),
        "layer 'conv2d' needs [height, width, channels], but 'input' before it gives [28, 28]"
    );
    assert_eq!(
        problem(Conv2D::new(4, [3, 9]), &[5, 8, 1]),
        "layer 'conv2d': a window of 3 x 9 is larger than the image of 5 x 8; make it smaller or \
         use padding = \"same\""
    );
    assert_eq!(
        problem(MaxPooling2D::new(6), &[5, 8, 1]),
        "layer 'max_pooling2d': a window of 6 x 6 is larger than the image of 5 x 8; make it \
         smaller or use padding = \"same\""
    );
    assert!(problem(GlobalMaxPooling2D::default(), &[7]).contains("[height, width, channels]"));
    assert!(problem(Conv2D::new(0, 3), &[5, 5, 1]).contains("filters is 0"));
    assert!(problem(Conv2D::new(1, [3, 0]), &[5, 5, 1]).contains("kernel_size is 0"));
    assert!(problem(Conv2D::new(1, 3).strides(0), &[5, 5, 1]).contains("strides is 0"));
    assert!(problem(AveragePooling2D::new(0), &[5, 5, 1]).contains("pool_size is 0"));
}

#[test]
fn sizes_are_written_as_one_number_or_two() {
    let read = |text: &str| toml::from_str::<LayerSpec>(text);
    let spec = read("kind = 'conv2d'\nfilters = 8\nkernel_size = 3\nstrides = [1, 2]").unwrap();
    assert_eq!(spec, Conv2D::new(8, 3).strides([1, 2]).into());
    let again = toml::to_string(&spec).unwrap();
    assert_eq!(read(&again).unwrap(), spec);
    let spec = read("kind = 'max_pooling2d'\npool_size = [3, 2]\npadding = 'same'").unwrap();
    let padding = Padding::Same;
    assert_eq!(
        spec,
        MaxPooling2D {
            padding,
            ..MaxPooling2D::new([3, 2])
        }
        .into()
    );
    assert_eq!(
        read("kind = 'max_pooling2d'").unwrap(),
        MaxPooling2D::default().into()
    );
    let error = read("kind = 'conv2d'\nfilters = 8\nkernel_size = 'x'").unwrap_err();
    assert!(
        error.to_string().contains("a whole number, or two"),
        "{error}"
    );
}
