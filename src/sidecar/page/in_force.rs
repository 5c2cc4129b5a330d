//! The config in force, and what a reload would change.

use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::still::still;
use crate::sidecar::admin_state::Admin;

/// Secrets are hidden as `check` hides them; what a file would change is named by setting, and its values are not shown.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let reloads = admin.reloads.clone();
    let seen = tokio::task::spawn_blocking(move || (reloads.config().show(), reloads.preview())).await;
    let Ok((config, preview)) = seen else {
        return still("Config", "", html! { section { p.notice { "It cannot be shown; the log says why." } } });
    };
    let config = config.unwrap_or_else(|error| error.to_string());
    let main = html! {
        section aria-labelledby="reload-title" {
            h2 #reload-title { "What a reload would change" }
            @match &preview {
                Ok(reloaded) => {
                    p #reload { (reloaded) }
                    @if !reloaded.is_empty() {
                        p.quiet { code { "tollgate reload" } ", SIGHUP or POST /reload put it in force." }
                    }
                }
                Err(error) => p.notice #reload { (error) },
            }
        }
        section aria-labelledby="config-title" {
            h2 #config-title { "In force" }
            pre.scroll #config tabindex="0" role="group" aria-labelledby="config-title" { (config) }
        }
    };
    still("Config", "", main)
}
