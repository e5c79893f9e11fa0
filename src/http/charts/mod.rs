//! Charts of counts as SVG: `plot` draws bars and lines with the axes of `axis`.

pub mod axis;
pub mod plot;
