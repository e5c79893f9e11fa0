//! Cursors of lists as text.

use data_encoding::BASE64URL_NOPAD;

use crate::domain::SegmentName;
use crate::estimator::{ListCursor, Order};

/// Encodes a cursor for a URL: the order as a letter, the count and the name, in base64url.
pub fn encode(order: Order, ListCursor { segment, count }: &ListCursor) -> String {
    let order = match order {
        Order::Name => 'n',
        Order::Count => 'c',
    };
    let count = count.map(|count| count.to_string()).unwrap_or_default();
    BASE64URL_NOPAD.encode(format!("{order}{count}:{segment}").as_bytes())
}

/// Decodes the cursor of a list with this order and prefix.
///
/// # Errors
///
/// A predicate if `text` is not a cursor, or belongs to another list.
pub fn decode(text: &str, order: Order, prefix: &str) -> Result<ListCursor, String> {
    match decode_any(text) {
        None => Err("is not the next_cursor of a page".to_owned()),
        Some((of, cursor)) if of == order && cursor.segment.as_str().starts_with(prefix) => Ok(cursor),
        Some(_) => Err("belongs to a list with another prefix or sort; start the new list without a cursor".to_owned()),
    }
}

fn decode_any(text: &str) -> Option<(Order, ListCursor)> {
    let text = String::from_utf8(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()?;
    let (order, rest) = text.split_at_checked(1)?;
    let order = match order {
        "n" => Order::Name,
        "c" => Order::Count,
        _ => return None,
    };
    let (count, name) = rest.split_once(':')?;
    let count = if count.is_empty() { None } else { Some(count.parse().ok()?) };
    Some((order, ListCursor { segment: SegmentName::parse(name.to_owned()).ok()?, count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_reads_what_encode_writes() {
        for (order, count) in [(Order::Name, Some(u64::MAX)), (Order::Count, Some(0)), (Order::Count, None)] {
            let cursor = ListCursor { segment: SegmentName::parse("größe: 5/7?").unwrap(), count };
            assert_eq!(decode(&encode(order, &cursor), order, "grö"), Ok(cursor.clone()));
            assert!(decode(&encode(order, &cursor), order, "x").is_err());
        }
    }

    #[test]
    fn decode_refuses_other_texts() {
        for text in ["", "n", "!", "bg", "eDE6c3BvcnRz", "Y3Nwb3J0cw", "bjE6", "_w"] {
            assert_eq!(decode_any(text), None, "{text}");
        }
    }
}
