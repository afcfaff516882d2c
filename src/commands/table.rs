//! Aligned tables and lines for people. What submitters wrote is shown with its control characters escaped, so
//! that a job's name cannot move the cursor of whoever looks at it.

use std::fmt::Display;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::print;
use crate::failure::Result;

/// Rows under headers; each column is as wide as its widest cell.
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(headers: &[&'static str]) -> Table {
        Table {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each header.
    pub fn row(&mut self, cells: &[String]) {
        self.rows
            .push(cells.iter().map(|cell| escaped(cell)).collect());
    }

    /// Prints the headers and the rows.
    pub fn print(&self) -> Result<()> {
        let headers: Vec<String> = self
            .headers
            .iter()
            .map(|header| (*header).to_owned())
            .collect();
        for row in std::iter::once(&headers).chain(&self.rows) {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| format!("{cell:<width$}", width = self.width(column)))
                .collect();
            print(cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    fn width(&self, column: usize) -> usize {
        self.rows
            .iter()
            .map(|row| row[column].chars().count())
            .chain([self.headers[column].chars().count()])
            .max()
            .unwrap_or(0)
    }
}

/// Prints `label:  value`, the values of a page under each other.
pub fn line(label: &str, value: impl Display) -> Result<()> {
    let label = format!("{label}:");
    print(format_args!("{label:<16}{}", escaped(&value.to_string())))
}

/// A text of several lines: the first after the label, the others under it.
pub fn lines(label: &str, text: &str) -> Result<()> {
    for (number, part) in text.lines().enumerate() {
        if number == 0 {
            line(label, part)?;
        } else {
            print(format_args!("{:<16}{}", "", escaped(part)))?;
        }
    }
    Ok(())
}

/// The text without anything that a terminal would obey.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        // Beside the control characters: those that turn the direction of the text round.
        if letter.is_control()
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// How long ago, in its largest unit: `40s`, `5m`, `3h`, `2d`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = between(since, now).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// From `since` to `now`; nothing when a clock was set back meanwhile.
pub fn between(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// A time on the clock of whoever looks, with how long ago that is.
pub fn clock(time: Timestamp, now: Timestamp) -> String {
    format!(
        "{} ({} ago)",
        time.to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S"),
        age(time, now)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::spell_duration;

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(
            escaped("a\u{1b}[31mb\nc\u{202e}d é"),
            "a\\u{1b}[31mb\\nc\\u{202e}d é"
        );
    }

    #[test]
    fn ages_and_durations_are_short() {
        let start = Timestamp::UNIX_EPOCH;
        for (seconds, ago, took) in [
            (0, "0s", "0ms"),
            (9, "9s", "9.0s"),
            (59, "59s", "59s"),
            (90, "1m", "1m 30s"),
            (7_500, "2h", "2h 5m"),
            (200_000, "2d", "55h 33m"),
        ] {
            let now = Timestamp::from_second(seconds).expect("a time");
            assert_eq!(age(start, now), ago);
            assert_eq!(spell_duration(between(start, now)), took);
        }
        assert_eq!(
            age(Timestamp::from_second(5).expect("a time"), start),
            "0s",
            "the clock was set back"
        );
    }
}
