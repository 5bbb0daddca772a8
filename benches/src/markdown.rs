//! Tables and numbers for people.

use comfy_table::{CellAlignment, ColumnConstraint, Table};

/// A table as Markdown knows it, numbers to the right.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// Two digits behind the point.
pub fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// Three significant digits.
pub fn number(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [123.4, 12.34, 1.234, 0.1234].map(number),
            ["123", "12.3", "1.23", "0.123"]
        );
    }
}
