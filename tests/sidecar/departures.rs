//! What has not left costs nothing, over real sockets: connections that never stand, and requests that were written.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tollgate::body::Body;
use tollgate::layers::budget::{self, Budgets, Period, Rule};
use tollgate::neurons::Neurons;
use tower::ServiceExt;

use crate::support::{LLAMA, ask, client, config, start};

/// Takes connections, and answers nobody: a TLS handshake with it never ends. `greeted` hears of each connection whose first
/// bytes are here.
async fn silent() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (greets, greeted) = tokio::sync::mpsc::unbounded_channel();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let greets = greets.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {
                    let _ = greets.send(());
                }
            });
        }
    });
    (address, greeted)
}

async fn spent(admin: &str) -> (f64, f64) {
    let reply = client().get(format!("{admin}/budgets")).send().await.unwrap().text().await.unwrap();
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    let row = reply["budgets"].as_array().unwrap().iter().find(|row| row["name"] == "everyone").unwrap();
    (row["spent_neurons"].as_f64().unwrap(), row["reserved_neurons"].as_f64().unwrap())
}

#[tokio::test]
async fn calls_given_up_before_a_connection_stood_cost_nothing_and_written_ones_what_was_reserved() {
    for (scheme, costs) in [("https", false), ("http", true)] {
        let (upstream, mut greeted) = silent().await;
        let mut config = config(&format!("{scheme}://{upstream}"));
        config.upstream.connect_timeout = Duration::from_secs(60);
        config.budgets.push(Rule::new("everyone", Neurons::from_whole(100_000), Period::Month));
        let (sidecar, receipts) = start(config);
        let url = format!("http://{}/run/{LLAMA}", sidecar.listen());
        let body = json!({"prompt": "x", "max_tokens": 1000});
        // One whose client leaves while it is under way, and one whose own deadline ends it there.
        let leaving = ask(&client(), &url, &body).send();
        tokio::select! {
            _ = leaving => panic!("nobody answers"),
            _ = greeted.recv() => {}
        }
        receipts.after(1).await;
        let late = ask(&client(), &url, &body).header("cf-aig-request-timeout", "300").send().await.unwrap();
        assert_eq!(late.status(), 504);
        receipts.after(2).await;
        let (spent, reserved) = spent(&format!("http://{}", sidecar.admin())).await;
        assert_eq!((spent > 36.0, reserved), (costs, 0.0), "{scheme}: {spent} neurons");
        assert!(costs || spent == 0.0, "{scheme}: {spent} neurons");
    }
}

#[tokio::test]
async fn a_deadline_of_nothing_costs_nothing() {
    let (upstream, _greeted) = silent().await;
    let mut config = config(&format!("https://{upstream}"));
    config.budgets.push(Rule::new("everyone", Neurons::from_whole(100_000), Period::Month));
    let (sidecar, receipts) = start(config);
    let url = format!("http://{}/run/{LLAMA}", sidecar.listen());
    for _ in 0..5 {
        let late = ask(&client(), &url, &json!({"prompt": "x"})).header("cf-aig-request-timeout", "0").send().await;
        assert_eq!(late.unwrap().status(), 504);
    }
    receipts.after(5).await;
    assert_eq!(spent(&format!("http://{}", sidecar.admin())).await, (0.0, 0.0));
}

#[tokio::test]
async fn the_librarys_client_tells_the_same() {
    for (scheme, costs) in [("https", false), ("http", true)] {
        let (upstream, mut greeted) = silent().await;
        let mut settings = budget::Settings::default();
        settings.rules.push(Rule::new("everyone", Neurons::from_whole(100_000), Period::Month));
        let budgets = std::sync::Arc::new(Budgets::new(settings, tollgate::catalogue::Catalogue::default()).unwrap());
        let target = tollgate::upstream::Target::new(&format!("{scheme}://{upstream}")).unwrap();
        let client = tollgate::upstream::Client::new().unwrap();
        let stack = tower::ServiceBuilder::new()
            .layer(tollgate::layers::identify::IdentifyLayer::new(
                door(),
                tollgate::upstream::Upstream::new(client.clone(), target.clone()),
            ))
            .layer(budget::BudgetLayer::new(budgets.clone()))
            .layer(tollgate::layers::meter::MeterLayer::default())
            .service(tollgate::upstream::Upstream::new(client, target));
        let request = http::Request::post(format!("/run/{LLAMA}")).body(Body::from(r#"{"prompt":"x"}"#)).unwrap();
        let leaving = stack.oneshot(request);
        tokio::select! {
            _ = leaving => panic!("nobody answers"),
            _ = greeted.recv() => {}
        }
        let status = &budgets.status()[0];
        assert_eq!((!status.spent.is_zero(), status.reserved), (costs, Neurons::ZERO), "{scheme}: {status:?}");
    }
}

fn door() -> tollgate::layers::identify::Settings {
    let mut door = tollgate::layers::identify::Settings::default();
    (door.account, door.has_token) = (Some("acc".into()), true);
    door
}
