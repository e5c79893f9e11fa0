//! Cursors of lists as text.

use std::cmp::Reverse;

use data_encoding::BASE64URL_NOPAD;

use crate::domain::SegmentName;
use crate::estimator::{ListCursor, NameFilter, Order, Position};

/// Encodes a cursor for a URL: the order as a letter, the rank and the name, in base64url. The letter is in upper case
/// if the page ends at the segment.
pub fn encode(order: Order, cursor: &ListCursor) -> String {
    let letter = match order {
        Order::Name => 'n',
        Order::Count => 'c',
        Order::Growth => 'g',
        Order::Decline => 'd',
        Order::Newest => 'w',
    };
    let letter = match cursor {
        ListCursor::After(_) => letter,
        ListCursor::Before(_) => letter.to_ascii_uppercase(),
    };
    let Position { rank: Reverse(rank), segment } = cursor.position();
    let rank = rank.map(|rank| rank.to_string()).unwrap_or_default();
    BASE64URL_NOPAD.encode(format!("{letter}{rank}:{segment}").as_bytes())
}

/// Decodes the cursor of a list with this order and these names.
///
/// # Errors
///
/// A predicate if `text` is not a cursor, or belongs to another list.
pub fn decode(text: &str, order: Order, names: &NameFilter) -> Result<ListCursor, String> {
    match decode_any(text) {
        None => Err("is not the next_cursor or previous_cursor of a page".to_owned()),
        Some((of, cursor)) if of == order && names.matches(&cursor.position().segment) => Ok(cursor),
        Some(_) => {
            Err("belongs to a list with another prefix, contains or sort; start the new list without a cursor"
                .to_owned())
        }
    }
}

fn decode_any(text: &str) -> Option<(Order, ListCursor)> {
    let text = String::from_utf8(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()?;
    let (letter, rest) = text.split_at_checked(1)?;
    let order = match letter.to_ascii_lowercase().as_str() {
        "n" => Order::Name,
        "c" => Order::Count,
        "g" => Order::Growth,
        "d" => Order::Decline,
        "w" => Order::Newest,
        _ => return None,
    };
    let (rank, name) = rest.split_once(':')?;
    let rank = match rank {
        "" => None,
        // The order of names has no ranks.
        _ if order == Order::Name => return None,
        rank => Some(rank.parse().ok()?),
    };
    let position = Position { rank: Reverse(rank), segment: SegmentName::parse(name.to_owned()).ok()? };
    let is_before = letter.chars().all(char::is_uppercase);
    Some((order, if is_before { ListCursor::Before(position) } else { ListCursor::After(position) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_reads_what_encode_writes() {
        let (most, names) = (Some(u64::MAX.into()), NameFilter::new("grö", "SSE"));
        let others = [NameFilter::new("x", ""), NameFilter::new("grö", "x")];
        for (order, rank) in [
            (Order::Name, None),
            (Order::Count, most),
            (Order::Count, Some(0)),
            (Order::Count, None),
            (Order::Growth, Some(-7)),
        ] {
            let segment = SegmentName::parse("grösse: 5/7?").unwrap();
            let position = Position { rank: Reverse(rank), segment };
            for cursor in [ListCursor::After(position.clone()), ListCursor::Before(position)] {
                assert_eq!(decode(&encode(order, &cursor), order, &names), Ok(cursor.clone()));
                for other in &others {
                    assert!(decode(&encode(order, &cursor), order, other).is_err());
                }
            }
        }
    }

    #[test]
    fn decode_refuses_other_texts() {
        for text in ["", "n", "!", "bg", "eDE6c3BvcnRz", "Y3Nwb3J0cw", "bjE6", "bjc6YXJ0", "_w"] {
            assert_eq!(decode_any(text), None, "{text}");
        }
    }
}
