//! What every page of HTML begins with.

use maud::{DOCTYPE, Markup, html};

/// A whole document; `head` is what its head has besides.
pub(crate) fn document(title: &str, head: &Markup, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                (head)
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// What the admin port's pages have in their heads, with the style at this address.
pub(super) fn styled(style: &str) -> Markup {
    html! {
        meta name="color-scheme" content="light dark";
        link rel="icon" href="data:,";
        link rel="stylesheet" href=(style);
    }
}
