//! Lines over axes, as SVG that can be read on light and on dark pages.

mod axis;

use std::fmt::Write as _;

use self::axis::Ruler;
pub use self::axis::{Axis, Scale, grouped};

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 300.0;
/// What is left around the lines of a panel.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 48.0;

/// Colours follow the reader's scheme; the ground is drawn, because the page around it may follow another. Lines differ in
/// their form as well, for who does not see colours.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}\
.title{font-weight:600;font-size:13px}\
.faint{fill:#59636e}\
.ground{fill:#ffffff}\
.grid{stroke:#d1d9e0;stroke-width:1}\
.line{fill:none;stroke-width:2}\
.l0{stroke:#0a5fc2}.l1{stroke:#b4470f}.l2{stroke:#1a7f37}\
.p0{fill:#0a5fc2}.p1{fill:#b4470f}.p2{fill:#1a7f37}\
.l1{stroke-dasharray:6 3}.l2{stroke-dasharray:2 3}\
@media(prefers-color-scheme:dark){\
text{fill:#e6edf3}.faint{fill:#9198a1}.ground{fill:#0d1117}.grid{stroke:#3d444d}\
.l0{stroke:#6cb0ff}.l1{stroke:#f0a070}.l2{stroke:#6fd08c}\
.p0{fill:#6cb0ff}.p1{fill:#f0a070}.p2{fill:#6fd08c}}";

/// Panels beside each other.
pub struct Plot {
    /// What there is to see, for who does not see it.
    pub title: &'static str,
    pub panels: Vec<Panel>,
}

/// One pair of axes.
pub struct Panel {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

/// What belongs together. Points without a value are left out.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

impl Plot {
    pub fn to_svg(&self) -> String {
        let width = WIDTH * self.panels.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
             height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">\n<title>{0}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{width}\" height=\"{HEIGHT}\"/>\n",
            escaped(self.title),
        );
        for (number, panel) in self.panels.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<g transform=\"translate({} 0)\">",
                WIDTH * number as f64
            );
            panel.draw(&mut svg);
            svg.push_str("</g>\n");
        }
        svg + "</svg>\n"
    }
}

impl Panel {
    fn draw(&self, svg: &mut String) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let seen = || points().filter(|(x, y)| x.is_finite() && y.is_finite());
        let x = Ruler::new(&self.x, seen().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Ruler::new(&self.y, seen().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        text(svg, LEFT, 22.0, "title", "start", self.title);
        self.legend(svg);
        for (value, label) in y.ticks() {
            let at = y.place(value);
            grid(svg, [LEFT, at, WIDTH - RIGHT, at]);
            text(svg, LEFT - 8.0, at + 4.0, "faint", "end", &label);
        }
        for (value, label) in x.ticks() {
            let at = x.place(value);
            grid(svg, [at, TOP, at, HEIGHT - BOTTOM]);
            text(svg, at, HEIGHT - BOTTOM + 18.0, "faint", "middle", &label);
        }
        text(svg, WIDTH - RIGHT, HEIGHT - 10.0, "", "end", self.x.title);
        text(svg, LEFT, TOP - 10.0, "faint", "start", self.y.title);
        for (number, line) in self.lines.iter().enumerate() {
            let places = line
                .points
                .iter()
                .map(|point| (x.place(point.0), y.place(point.1)));
            let places: Vec<_> = places
                .filter(|place| place.0.is_finite() && place.1.is_finite())
                .collect();
            let path: Vec<_> = places
                .iter()
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline class=\"line l{number}\" points=\"{}\"/>",
                path.join(" ")
            );
            for (x, y) in places {
                let _ = writeln!(
                    svg,
                    "<circle class=\"p{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"
                );
            }
        }
    }

    fn legend(&self, svg: &mut String) {
        let mut at = LEFT;
        for (number, line) in self.lines.iter().enumerate() {
            let end = at + 22.0;
            let _ = writeln!(svg, "<path class=\"line l{number}\" d=\"M{at} 40H{end}\"/>");
            text(svg, end + 5.0, 44.0, "", "start", line.name);
            // Letters are about so wide.
            at = end + 19.0 + 6.4 * line.name.chars().count() as f64;
        }
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn grid(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        svg,
        "<path class=\"grid\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>"
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
