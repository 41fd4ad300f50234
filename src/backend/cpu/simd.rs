//! One loop, compiled for several instruction sets.

/// Defines functions whose loops are compiled for AVX-512, for AVX2 and for the target's baseline;
/// a call takes the best that the processor has.
///
/// The loop is plain Rust that the compiler vectorises. Rust never contracts a product and a sum to
/// one rounding by itself, and every lane does what the scalar operation does, so the instruction
/// set, the slice's length and an element's position in it do not change a bit.
///
/// ```ignore
/// vectorized! {
///     /// `y += a * x`.
///     pub(super) fn add_scaled(a: f32, x: &[f32], y: &mut [f32]) {
///         for (y, &x) in y.iter_mut().zip(x) {
///             *y += a * x;
///         }
///     }
/// }
/// ```
macro_rules! vectorized {
    ($(
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $type),*) $(-> $output)? {
                    body($($argument),*)
                }

                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) $(-> $output)? {
                    body($($argument),*)
                }

                if std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has these instructions.
                    return unsafe { avx512($($argument),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has these instructions.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    )+};
}

pub(super) use vectorized;

#[cfg(test)]
mod tests {
    vectorized! {
        fn add_scaled(a: f32, x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y += a * x;
            }
        }
    }

    #[test]
    fn a_vectorized_loop_gives_the_bits_of_scalar_arithmetic() {
        let x: Vec<f32> = (0..131).map(|i| (i as f32).sin()).collect();
        for offset in 0..64 {
            let mut y = vec![0.1; x.len() - offset];
            add_scaled(1.1, &x[offset..], &mut y);
            // A rounding after the product: what a fused multiply-add would not do.
            let one_by_one = |x: &f32| 0.1 + std::hint::black_box(1.1 * x);
            assert_eq!(y, x[offset..].iter().map(one_by_one).collect::<Vec<_>>());
        }
    }
}
