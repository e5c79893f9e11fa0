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

/// Renders links to the first page in each order.
pub fn orders(list: &List<'_>) -> Markup {
    const ORDERS: [(Order, &str); 5] = [
        (Order::Count, "Largest"),
        (Order::Growth, "Largest gain"),
        (Order::Decline, "Largest loss"),
        (Order::Newest, "Newest"),
        (Order::Name, "Name"),
    ];
    html! {
        nav .choice #orders aria-label="Order" {
            span aria-hidden="true" { "Order" }
            ul .choices {
                @for (order, label) in ORDERS {
                    li {
                        a href=(link(&list.first_page(order), None)) aria-current=[(order == list.order).then_some("true")] { (label) }
                    }
                }
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
            a href=(link(&list.first_page(order), None)) { "7-day change" span aria-hidden="true" { (arrow) } }
        }
    }
}
