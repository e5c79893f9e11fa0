//! Cursors of lists as text.

use data_encoding::BASE64URL_NOPAD;

use crate::domain::SegmentName;
use crate::estimator::{ListCursor, Order};

/// Encodes a cursor for a URL: the order as a letter, the rank and the name, in base64url.
pub fn encode(order: Order, ListCursor { segment, rank }: &ListCursor) -> String {
    let order = match order {
        Order::Name => 'n',
        Order::Count => 'c',
        Order::Growth => 'g',
        Order::Decline => 'd',
        Order::Newest => 'w',
    };
    let rank = rank.map(|rank| rank.to_string()).unwrap_or_default();
    BASE64URL_NOPAD.encode(format!("{order}{rank}:{segment}").as_bytes())
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
        "g" => Order::Growth,
        "d" => Order::Decline,
        "w" => Order::Newest,
        _ => return None,
    };
    let (rank, name) = rest.split_once(':')?;
    let rank = if rank.is_empty() { None } else { Some(rank.parse().ok()?) };
    Some((order, ListCursor { segment: SegmentName::parse(name.to_owned()).ok()?, rank }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_reads_what_encode_writes() {
        let most = Some(u64::MAX.into());
        for (order, rank) in
            [(Order::Name, most), (Order::Count, Some(0)), (Order::Count, None), (Order::Growth, Some(-7))]
        {
            let cursor = ListCursor { segment: SegmentName::parse("größe: 5/7?").unwrap(), rank };
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
