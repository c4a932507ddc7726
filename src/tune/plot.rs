//! An SVG of rate against entropy: modelled settings as dots, the Pareto front as a line, measured settings as rings. It follows the
//! viewer's light or dark colour scheme.

use std::fmt::Write as _;

use super::Report;
use super::model::Modelled;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
/// Left, top, right, bottom.
const MARGINS: [f64; 4] = [76.0, 46.0, 20.0, 56.0];
/// One for each format, from Okabe and Ito (2008), distinguishable by colour-blind people.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const STYLE: &str = "<style>
  .back { fill: #ffffff } text { fill: #1b1b1b } .grid { stroke: #dddddd } .front { stroke: #1b1b1b }
  @media (prefers-color-scheme: dark) {
    .back { fill: #15181c } text { fill: #e6e6e6 } .grid { stroke: #3a3f46 } .front { stroke: #e6e6e6 }
  }
</style>";

/// The scales of the plot.
struct Axes {
    entropy: f64,
    /// Powers of ten.
    rates: (i32, i32),
}

impl Axes {
    fn x(&self, entropy: f64) -> f64 {
        MARGINS[0] + (WIDTH - MARGINS[0] - MARGINS[2]) * entropy / self.entropy
    }

    fn y(&self, rate: f64) -> f64 {
        let (low, high) = (f64::from(self.rates.0), f64::from(self.rates.1));
        let up = (rate.max(1e-3).log10() - low) / (high - low).max(1.0);
        HEIGHT - MARGINS[3] - (HEIGHT - MARGINS[1] - MARGINS[3]) * up.clamp(0.0, 1.0)
    }
}

/// Renders a report.
pub fn svg(report: &Report) -> String {
    let rates = report.modelled.iter().map(|one| one.rows_per_second);
    let rates = rates.chain(report.checked.iter().map(|(_, served)| served.rows_per_second)).filter(|rate| *rate > 0.0);
    let (low, high) = rates.fold((f64::INFINITY, 1.0_f64), |(low, high), rate| (low.min(rate), high.max(rate)));
    let power = |rate: f64| rate.max(1.0).log10();
    let low = if low.is_finite() { power(low).floor() as i32 } else { 0 };
    let most = report.modelled.iter().map(|one| one.entropy).fold(report.perfect, f64::max);
    let axes = Axes { entropy: most.max(1e-6) * 1.04, rates: (low, (power(high).ceil() as i32).max(low + 1)) };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">{STYLE}<rect class=\"back\" width=\"100%\" height=\"100%\"/>\n"
    );
    frame(&mut out, &axes, report);
    let mut formats: Vec<&str> = Vec::new();
    for one in &report.modelled {
        if !formats.contains(&one.setting.format) {
            formats.push(one.setting.format);
        }
    }
    let colour = |one: &Modelled| {
        let number = formats.iter().position(|format| *format == one.setting.format).unwrap_or(0);
        COLOURS[number % COLOURS.len()]
    };
    // Only settings with all threads: the others lie below.
    for one in report.modelled.iter().filter(|one| one.setting.threads == report.threads) {
        let (x, y) = (axes.x(one.entropy), axes.y(one.rows_per_second));
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{}\" fill-opacity=\"0.6\"/>",
            colour(one)
        );
    }
    let line: Vec<String> = report
        .front
        .iter()
        .filter_map(|&i| report.modelled.get(i))
        .map(|one| format!("{:.1},{:.1}", axes.x(one.entropy), axes.y(one.rows_per_second)))
        .collect();
    let _ =
        writeln!(out, "<polyline class=\"front\" fill=\"none\" stroke-width=\"1.5\" points=\"{}\"/>", line.join(" "));
    for &(number, served) in &report.checked {
        let Some(one) = report.modelled.get(number) else { continue };
        let (x, y) = (axes.x(one.entropy), axes.y(served.rows_per_second));
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.5\"/>",
            colour(one)
        );
    }
    if let Some(one) = report.chosen.and_then(|chosen| report.modelled.get(chosen)) {
        let (x, y) = (axes.x(one.entropy), axes.y(one.rows_per_second));
        let said = format!("block {} x fetch {}", one.setting.block_size, one.setting.fetch_factor);
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{said}</text>", x - 10.0, y - 10.0);
    }
    for (number, format) in formats.iter().enumerate() {
        let (x, colour) = (MARGINS[0] + 110.0 * number as f64, COLOURS[number % COLOURS.len()]);
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"34\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"38\">{format}</text>",
            x + 9.0
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Title, axes and grid.
fn frame(out: &mut String, axes: &Axes, report: &Report) {
    let (left, right) = (MARGINS[0], WIDTH - MARGINS[2]);
    let bottom = HEIGHT - MARGINS[3];
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"18\" font-weight=\"bold\">Rows a second and mixing: modelled (dots), the front (line), measured (rings)</text>"
    );
    for power in axes.rates.0..=axes.rates.1 {
        let y = axes.y(10f64.powi(power));
        let said = match power {
            0..=2 => 10f64.powi(power).to_string(),
            3..=5 => format!("{} k", 10f64.powi(power - 3)),
            _ => format!("{} M", 10f64.powi(power - 6)),
        };
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{said}</text>",
            left - 8.0,
            y + 4.0
        );
    }
    for step in 0..=8 {
        let entropy = axes.entropy / 1.04 * f64::from(step) / 8.0;
        let x = axes.x(entropy);
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {}V{bottom}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{entropy:.2}</text>",
            MARGINS[1],
            bottom + 18.0
        );
    }
    let perfect = axes.x(report.perfect);
    let _ = writeln!(
        out,
        "<path class=\"front\" stroke-dasharray=\"5 4\" d=\"M{perfect:.1} {}V{bottom}\"/>\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\">perfect {:.2}</text>",
        MARGINS[1],
        perfect - 6.0,
        bottom - 8.0,
        report.perfect
    );
    let label: String = escaped(&report.label);
    let (middle, half) = ((left + right) / 2.0, HEIGHT / 2.0);
    let _ = writeln!(
        out,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">entropy of {label} within a batch of {}, bits</text>\
         <text transform=\"translate(16 {half}) rotate(-90)\" text-anchor=\"middle\">rows a second</text>",
        HEIGHT - 14.0,
        report.modelled.first().map_or(0, |one| one.setting.batch_size)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
