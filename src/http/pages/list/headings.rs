//! The headings of the columns, which sort the list.

use maud::{Markup, html};

use super::data::{List, link};
use crate::estimator::Order;

/// Renders the heading of a column, with a link to the first page in its order.
pub fn heading(list: &List<'_>, order: Order, text: &str, direction: &str, class: &str) -> Markup {
    let is_current = list.order == order;
    html! {
        th class=(class) scope="col" aria-sort=[is_current.then_some(direction)] {
            a href=(link(&list.first_page(order), None)) {
                (text)
                @if is_current { span aria-hidden="true" { @if direction == "descending" { " ↓" } @else { " ↑" } } }
            }
        }
    }
}

/// Renders the heading of the changes. In their order, its link reverses it.
pub fn change_heading(list: &List<'_>) -> Markup {
    let (direction, arrow, order) = match list.order {
        Order::Growth => (Some("descending"), " ↓", Order::Decline),
        Order::Decline => (Some("ascending"), " ↑", Order::Growth),
        _ => (None, "", Order::Growth),
    };
    html! {
        th .change scope="col" aria-sort=[direction] {
            a href=(link(&list.first_page(order), None)) { "In 7 days" span aria-hidden="true" { (arrow) } }
        }
    }
}
