//! Stacked bars, a column a minute, drawn by plotters as SVG.
//!
//! The bars alone are in the picture: it is stretched to the screen, and words would be too.

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::drawing::IntoDrawingArea;
use plotters::element::Rectangle;
use plotters::style::{Color, RGBColor};

/// Told apart also by those who see few colours (Okabe and Ito's set); the last is for the rest.
pub(crate) const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a"];

const SIZE: (u32, u32) = (720, 200);
/// Of a column's width; the rest is the gap.
const BAR: f64 = 0.8;

/// What one colour shows, a value a column.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) values: Vec<f64>,
}

/// The picture, and the value at its upper edge.
pub(crate) fn draw(series: &[Series]) -> (String, f64) {
    let columns = series.iter().map(|one| one.values.len()).max().unwrap_or(0);
    let total = |column: usize| series.iter().filter_map(|one| one.values.get(column)).sum::<f64>();
    let top = round_up((0..columns).map(total).fold(0.0, f64::max));
    let mut svg = String::new();
    // Drawing into a string cannot fail; were it to, the table below the picture has the figures.
    let _ = paint(&mut svg, series, columns, top);
    (svg.replacen("<svg ", "<svg preserveAspectRatio=\"none\" aria-hidden=\"true\" ", 1), top)
}

type Failure = Box<dyn std::error::Error>;

fn paint(svg: &mut String, series: &[Series], columns: usize, top: f64) -> Result<(), Failure> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area).build_cartesian_2d(0.0..columns.max(1) as f64, 0.0..top)?;
    let mut base = vec![0.0; columns];
    for one in series {
        let style = rgb(one.colour).filled();
        let bars = one.values.iter().zip(&mut base).enumerate().filter(|(_, (value, _))| **value > 0.0);
        let bars = bars.map(|(column, (value, base))| {
            let from = (column as f64 + (1.0 - BAR) / 2.0, *base);
            *base += value;
            Rectangle::new([from, (from.0 + BAR, *base)], style)
        });
        chart.draw_series(bars)?;
    }
    area.present()?;
    Ok(())
}

fn rgb(colour: &str) -> RGBColor {
    let part = |at: usize| u8::from_str_radix(colour.get(at..at + 2).unwrap_or("0"), 16).unwrap_or(0);
    RGBColor(part(1), part(3), part(5))
}

/// The next 1, 2 or 5 with zeros: a value that an axis can end at.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let magnitude = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
    steps.into_iter().find(|step| *step >= value).unwrap_or(steps[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_on_each_other_below_a_round_figure() {
        let one = |colour, values: &[f64]| Series { name: String::new(), colour, values: values.to_vec() };
        let (svg, top) = draw(&[one(COLOURS[0], &[1.0, 0.0, 3.0]), one(COLOURS[1], &[0.0, 2.0, 4.0])]);
        assert_eq!(top, 10.0);
        assert_eq!(svg.matches("<rect").count(), 4, "{svg}");
        assert_eq!(svg.to_lowercase().matches(COLOURS[1]).count(), 2, "{svg}");
    }

    #[test]
    fn an_axis_ends_at_a_round_figure() {
        for (value, top) in [(0.0, 1.0), (0.03, 0.05), (1.0, 1.0), (1.2, 2.0), (73.0, 100.0), (2100.0, 5000.0)] {
            assert!((round_up(value) - top).abs() < top * 1e-9, "{value}: {}", round_up(value));
        }
    }
}
