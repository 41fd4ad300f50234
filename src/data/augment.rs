//! Images that are varied at random, each time they are trained on.
//!
//! What becomes of an image depends on the seed, the epoch and its row, and on nothing else: not on the batch or the
//! rank that it comes to, nor on where a run was resumed.

use super::Normalize;
use crate::layers::Shape;
use crate::named::choices;
use crate::random::Stream;

/// How images are varied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Half of them are mirrored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<Flip>,
    /// They are moved by up to so many pixels up or down and left or right, and black comes in: what is cut at
    /// random out of an image with such a border.
    #[serde(default)]
    pub crop: usize,
}

choices! {
    /// What is mirrored.
    pub enum Flip("flip") {
        /// Left and right are exchanged.
        Horizontal = "horizontal",
        /// Top and bottom are exchanged.
        Vertical = "vertical",
    }
}

/// How images of one shape are varied.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmentation {
    augment: Augment,
    height: usize,
    width: usize,
    /// A black pixel.
    black: Vec<f32>,
}

impl Augmentation {
    /// For images of `shape`, which were normalised before; `None` where those are no images.
    pub fn new(augment: Augment, shape: &Shape, normalize: Option<&Normalize>) -> Option<Self> {
        let &[height, width, channels] = &shape.0[..] else {
            return None;
        };
        let black = match normalize {
            None => vec![0.0; channels],
            Some(normalize) => {
                let moments = normalize
                    .mean(channels)
                    .into_iter()
                    .zip(normalize.std(channels));
                moments.map(|(mean, std)| (-mean / std) as f32).collect()
            }
        };
        Some(Self {
            augment,
            height,
            width,
            black,
        })
    }

    /// Adds the image that row `row` is in `epoch` to `images`.
    pub(super) fn push(
        &self,
        image: &[f32],
        seed: u64,
        epoch: u64,
        row: usize,
        images: &mut Vec<f32>,
    ) {
        let mut numbers = Stream::new(seed, format_args!("image {row} in epoch {epoch}"));
        let flip = self.augment.flip.filter(|_| numbers.below(2) == 1);
        let crop = self.augment.crop;
        // From 0, a border's width up or left, to twice that.
        let mut shift = || numbers.below(2 * crop as u32 + 1) as usize;
        let (down, right) = (shift(), shift());
        // The place in the image that `at` shows, where it shows one.
        let source = |at: usize, shift: usize, extent: usize, is_flipped: bool| {
            let at = (at + shift).checked_sub(crop).filter(|at| *at < extent)?;
            Some(if is_flipped { extent - 1 - at } else { at })
        };
        let channels = self.black.len();
        for y in 0..self.height {
            let y = source(y, down, self.height, flip == Some(Flip::Vertical));
            for x in 0..self.width {
                let x = source(x, right, self.width, flip == Some(Flip::Horizontal));
                images.extend_from_slice(match (y, x) {
                    (Some(y), Some(x)) => {
                        let at = (y * self.width + x) * channels;
                        &image[at..at + channels]
                    }
                    _ => &self.black,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row `row` of epoch 0 under every key, of two channels, 2 x 3 pixels: the numbers 1 to 12.
    fn variants(augment: Augment, normalize: Option<&Normalize>) -> Vec<Vec<f32>> {
        let augmentation = Augmentation::new(augment, &[2, 3, 2].into(), normalize).unwrap();
        let image: Vec<_> = (1..=12).map(|number| number as f32).collect();
        let variant = |row| {
            let mut images = vec![-1.0];
            augmentation.push(&image, 3, 0, row, &mut images);
            images.split_off(1)
        };
        (0..200).map(variant).collect()
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let whole: Vec<_> = (1..=12).map(|number| number as f32).collect();
        for (flip, mirrored) in [
            (Flip::Horizontal, [5, 6, 3, 4, 1, 2, 11, 12, 9, 10, 7, 8]),
            (Flip::Vertical, [7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6]),
        ] {
            let flip = Some(flip);
            let variants = variants(Augment { flip, crop: 0 }, None);
            let mirrored = mirrored.map(|number| number as f32);
            let count = variants.iter().filter(|image| **image == mirrored).count();
            let same = variants.iter().filter(|image| **image == whole).count();
            assert_eq!(count + same, 200);
            assert!((70..130).contains(&count), "{count}");
        }
    }

    #[test]
    fn images_are_moved_and_black_comes_in() {
        let normalize = Normalize {
            mean: vec![1.0, 3.0],
            std: vec![2.0],
        };
        let crop = Augment {
            flip: None,
            crop: 1,
        };
        let variants = variants(crop, Some(&normalize));
        let mut found = variants.clone();
        found.sort_by(|a, b| a.partial_cmp(b).unwrap());
        found.dedup();
        assert_eq!(found.len(), 9);
        // One pixel up and to the left: below and at the right is black, as it is normalised.
        let moved = [
            9.0, 10.0, 11.0, 12.0, -0.5, -1.5, -0.5, -1.5, -0.5, -1.5, -0.5, -1.5,
        ];
        assert!(found.contains(&moved.to_vec()));
        let unmoved: Vec<_> = (1..=12).map(|number| number as f32).collect();
        assert!(found.contains(&unmoved));
    }

    #[test]
    fn rows_epochs_and_seeds_have_their_own() {
        let crop = Augment {
            flip: None,
            crop: 40,
        };
        let augmentation = Augmentation::new(crop, &[81, 81, 1].into(), None).unwrap();
        let mut image = vec![0.0; 81 * 81];
        image[40 * 81 + 40] = 1.0;
        let place = |seed, epoch, row| {
            let mut images = Vec::new();
            augmentation.push(&image, seed, epoch, row, &mut images);
            images.iter().position(|&pixel| pixel == 1.0).unwrap()
        };
        assert_eq!(place(1, 2, 3), place(1, 2, 3));
        let others = [place(2, 2, 3), place(1, 3, 3), place(1, 2, 4)];
        assert!(!others.contains(&place(1, 2, 3)));
    }
}
