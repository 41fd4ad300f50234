//! What `ringstep bench matmul` prints.

use serde::Serialize;

use crate::backend::Precision;
use crate::cli::table::{Align, Table};

/// What came out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) device: String,
    /// What operands are rounded to.
    pub(super) precision: Precision,
    /// What multiplies and adds.
    pub(super) units: String,
    /// GFLOP/s of multiply-adds that touch no memory, on these.
    pub(super) peak: f64,
    /// cuBLASLt, or why it is not measured; nothing on CPUs.
    pub(super) library: Option<String>,
    pub(super) products: Vec<Measured>,
}

#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) product: String,
    pub(super) form: String,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Of one product by own kernels, the median.
    pub(super) seconds: f64,
    pub(super) gigaflops: f64,
    /// Part of the peak.
    pub(super) share: f64,
    /// The same of others.
    pub(super) rivals: Vec<Rival>,
}

#[derive(Debug, Serialize)]
pub(super) struct Rival {
    pub(super) name: String,
    pub(super) seconds: f64,
    pub(super) gigaflops: f64,
    pub(super) share: f64,
    /// How fast own kernels are for it: its seconds by theirs.
    pub(super) ratio: f64,
}

impl Report {
    /// For people.
    pub(super) fn table(&self) -> String {
        let rows = self.products.iter();
        let most = rows.max_by_key(|row| row.rivals.len());
        let rivals: Vec<&str> = most.map_or(Vec::new(), |row| {
            row.rivals.iter().map(|rival| &*rival.name).collect()
        });
        let titles = rivals
            .iter()
            .map(|name| [format!("{name} us"), format!("own/{name}")]);
        let titles: Vec<[String; 2]> = titles.collect();
        let mut columns = vec![
            ("product", Align::Left),
            ("form", Align::Left),
            ("m", Align::Right),
            ("n", Align::Right),
            ("k", Align::Right),
            ("us", Align::Right),
            ("GFLOP/s", Align::Right),
            ("of peak", Align::Right),
        ];
        for [seconds, ratio] in &titles {
            let more = [&**seconds, "GFLOP/s", "of peak", ratio];
            columns.extend(more.map(|title| (title, Align::Right)));
        }
        let mut table = Table::with_columns(columns);
        for measured in &self.products {
            table.row(measured.row(&rivals));
        }
        let Self {
            device,
            precision,
            units,
            peak,
            library,
            ..
        } = self;
        let mut notes = String::new();
        if let Some(library) = library {
            notes = format!("\n{library}");
        }
        if rivals.len() > 1 {
            notes += &format!(
                "\nown kernels and cuBLASLt are given f32, which they round, as in training; \
                 {} is given operands that were rounded before; all results are f32",
                rivals[1]
            );
        }
        format!(
            "{device}; products in {precision}; peak of {units} as measured: {peak:.0} GFLOP/s\
             {notes}\n\n{table}"
        )
    }
}

impl Measured {
    /// With a dash for each of `rivals` that was not measured.
    fn row(&self, rivals: &[&str]) -> Vec<String> {
        let percent = |part: f64| format!("{:.0} %", part * 100.0);
        let rates = |seconds: f64, gigaflops: f64, share: f64| {
            [
                format!("{:.1}", seconds * 1e6),
                format!("{gigaflops:.1}"),
                percent(share),
            ]
        };
        let mut row = vec![self.product.clone(), self.form.clone()];
        row.extend([self.m, self.n, self.k].map(|extent| extent.to_string()));
        row.extend(rates(self.seconds, self.gigaflops, self.share));
        for name in rivals {
            match self.rivals.iter().find(|rival| rival.name == *name) {
                Some(rival) => {
                    row.extend(rates(rival.seconds, rival.gigaflops, rival.share));
                    row.push(percent(rival.ratio));
                }
                None => row.extend([(); 4].map(|()| "-".to_owned())),
            }
        }
        row
    }
}
