//! Names of tickets, which sort by urgency.

use std::fmt;
use std::str::FromStr;

/// What a ticket is called: `<urgency>-<arrival>-<process>`, all decimal with leading zeros, so that names sort as tickets do.
///
/// The urgency is written as 2³¹ − 1 − priority, the arrival in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId {
    urgency: u32,
    /// When the program asked for a slot first, in nanoseconds since the start of 1970 (UTC). It keeps that place when it has
    /// to wait again.
    pub arrived_ns: u64,
    /// Its process.
    pub process: u32,
}

impl TicketId {
    /// A ticket of this priority: the higher, the more urgent.
    pub fn new(priority: i32, arrived_ns: u64, process: u32) -> Self {
        Self {
            urgency: (i64::from(i32::MAX) - i64::from(priority)) as u32,
            arrived_ns,
            process,
        }
    }

    /// How urgent it is: the higher, the more.
    pub fn priority(&self) -> i32 {
        (i64::from(i32::MAX) - i64::from(self.urgency)) as i32
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            urgency,
            arrived_ns,
            process,
        } = self;
        write!(to, "{urgency:010}-{arrived_ns:020}-{process:010}")
    }
}

/// A text is no name of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a ticket")]
pub struct ParseTicketIdError;

impl FromStr for TicketId {
    type Err = ParseTicketIdError;

    fn from_str(text: &str) -> Result<Self, ParseTicketIdError> {
        let parts: Vec<&str> = text.split('-').collect();
        let [urgency, arrived_ns, process] = parts[..] else {
            return Err(ParseTicketIdError);
        };
        let id = Self {
            urgency: urgency.parse().map_err(|_| ParseTicketIdError)?,
            arrived_ns: arrived_ns.parse().map_err(|_| ParseTicketIdError)?,
            process: process.parse().map_err(|_| ParseTicketIdError)?,
        };
        // One ticket has one name.
        (id.to_string() == text)
            .then_some(id)
            .ok_or(ParseTicketIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_priority_then_by_arrival_as_ids_do() {
        let order = [
            TicketId::new(i32::MAX, 9, 1),
            TicketId::new(7, 1, 1),
            TicketId::new(7, 10, 1),
            TicketId::new(7, 10, 2),
            TicketId::new(0, 0, 1),
            TicketId::new(-1, 0, 1),
            TicketId::new(i32::MIN, 0, 1),
        ];
        let names: Vec<String> = order.iter().map(TicketId::to_string).collect();
        assert!(names.is_sorted() && order.is_sorted(), "{names:?}");
        for (id, name) in order.iter().zip(&names) {
            assert_eq!(name.parse(), Ok(*id));
        }
        assert_eq!(order[6].priority(), i32::MIN);
        assert_eq!(order[0].priority(), i32::MAX);
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "1-2-3",
            "a",
            "0000000000-00000000000000000000-0000000001-",
        ] {
            assert_eq!(text.parse::<TicketId>(), Err(ParseTicketIdError), "{text}");
        }
    }
}
