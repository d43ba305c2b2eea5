//! Lines over time or load as SVG, without anything from elsewhere.

use std::fmt::Write;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 200.0;
/// Left of and below the lines, for the numbers.
const LEFT: f64 = 56.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 26.0;
const RIGHT: f64 = 10.0;

/// A line: its name, its class in the style sheet, and its points.
pub struct Line {
    pub name: String,
    pub class: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// A plot of lines that share their axes; both begin at 0, and `unit` stands behind the numbers below.
/// Nothing for lines without points.
pub fn plot(title: &str, unit: &str, lines: &[Line]) -> String {
    let points = lines.iter().flat_map(|line| &line.points);
    let finite = points.filter(|(x, y)| x.is_finite() && y.is_finite());
    let (right, top) =
        finite.fold((0.0_f64, 0.0_f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
    if right <= 0.0 {
        return String::new();
    }
    let (right_step, top_step) = (step(right), step(top));
    let (right, top) = (right, (top / top_step).ceil().max(1.0) * top_step);
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BELOW - value / top * (HEIGHT - BELOW - ABOVE);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\
         <text class=\"title\" x=\"{LEFT}\" y=\"14\">{0}</text>",
        escape(title)
    );
    // Writing to a text does not fail.
    for number in 0..=(top / top_step).round() as u32 {
        let value = f64::from(number) * top_step;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>\
             <text class=\"number\" text-anchor=\"end\" x=\"{2}\" y=\"{3:.1}\">{4}</text>",
            WIDTH - RIGHT,
            y(value),
            LEFT - 6.0,
            y(value) + 3.5,
            short(value)
        );
    }
    for number in 0..=(right / right_step) as u32 {
        let value = f64::from(number) * right_step;
        let _ = write!(
            svg,
            "<text class=\"number\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{}\">{}{unit}</text>",
            x(value),
            HEIGHT - 8.0,
            short(value)
        );
    }
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.points.is_empty()) {
        let mut path = String::new();
        for (at, value) in
            line.points.iter().filter(|(at, value)| at.is_finite() && value.is_finite())
        {
            let _ = write!(path, "{:.1},{:.1} ", x(*at), y(*value));
        }
        let _ = write!(
            svg,
            "<polyline class=\"{0}\" points=\"{1}\"/>\
             <text class=\"legend {0}\" text-anchor=\"end\" x=\"{2}\" y=\"{3}\">{4}</text>",
            line.class,
            path.trim_end(),
            WIDTH - RIGHT,
            ABOVE + 12.0 * (number as f64 + 1.0),
            escape(&line.name)
        );
    }
    svg += "</svg>";
    svg
}

/// A round distance between lines of the grid, four to eight of which cover the range.
fn step(range: f64) -> f64 {
    if range <= 0.0 {
        return 1.0;
    }
    let rough = range / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    [5.0, 2.0].into_iter().find(|times| power * times <= rough).unwrap_or(1.0) * power
}

fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{}k", value / 1_000.0),
        value if value.fract().abs() < 1e-9 => format!("{value:.0}"),
        value => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').to_owned()
        }
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_round_and_not_crowded() {
        for (range, expected) in
            [(0.7, 0.1), (4.0, 1.0), (10.0, 2.0), (37.0, 5.0), (100_000.0, 20_000.0)]
        {
            let step = step(range);
            assert!((step / expected - 1.0).abs() < 1e-9, "{range}: {step}");
            assert!((3.0..=10.0).contains(&(range / step)), "{range}");
        }
        assert_eq!(
            (short(20_000.0), short(0.25), short(3.0)),
            ("20k".into(), "0.25".into(), "3".into())
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let line = |points| Line { name: "a<b".to_owned(), class: "own", points };
        assert_eq!(plot("t", "", &[line(vec![])]), "");
        let svg = plot("t", " s", &[line(vec![(1.0, 2.0), (f64::NAN, 1.0), (2.0, 0.0)])]);
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 1);
    }
}
