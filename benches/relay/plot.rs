//! The table as a picture: one small bar chart for each row.

use std::fmt::Write as _;

use super::report::{Row, number};

const WIDTH: f64 = 760.0;
const LABEL: f64 = 150.0;
const BAR: f64 = 18.0;
const VALUE: f64 = 130.0;

/// An SVG document.
pub(crate) fn svg(rows: &[Row<'_>]) -> String {
    let mut body = String::new();
    let mut y = 10.0;
    for row in rows {
        let figures = row.figures();
        let most = figures
            .iter()
            .map(|figure| figure.median)
            .fold(0.0, f64::max);
        y += 20.0;
        let title = format!("{} {}", row.measure.title, row.measure.unit);
        _ = writeln!(
            body,
            "<text x='10' y='{y}' font-weight='bold'>{}</text>",
            title.replace('&', "&amp;")
        );
        y += 8.0;
        for figure in figures {
            let length = (WIDTH - LABEL - VALUE) * figure.median / most.max(f64::MIN_POSITIVE);
            let fill = if figure.peer.is_ours() {
                "#2a6fb0"
            } else {
                "#b5b5b5"
            };
            let (text, end) = (y + BAR - 5.0, LABEL + length + 6.0);
            _ = writeln!(
                body,
                "<text x='10' y='{text}'>{}</text>\
                 <rect x='{LABEL}' y='{y}' width='{length:.1}' height='{}' fill='{fill}'/>\
                 <text x='{end:.1}' y='{text}'>{} (x{:.2})</text>",
                figure.peer.name,
                BAR - 4.0,
                number(figure.median),
                figure.to_first,
            );
            y += BAR;
        }
    }
    let height = y + 20.0;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' \
         font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n{body}</svg>\n"
    )
}
