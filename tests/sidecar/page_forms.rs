//! Keys and budgets on the page: forms of its own alone, each of which counts once.

use serde_json::Value;
use tollgate::layers::budget::{Period, Rule, Split};
use tollgate::neurons::Neurons;
use tollgate::sidecar::Sidecar;

use crate::support::{LLAMA, ask, browse, client, config, vendor};

/// A gate with an admin token, a file of keys and two budgets.
struct Operated {
    sidecar: Sidecar,
    vendor: tollgate::simulator::Running,
    _place: tempfile::TempDir,
}

impl Operated {
    fn start() -> Self {
        let (vendor, place) = (vendor(), tempfile::tempdir().unwrap());
        let mut config = config(&vendor.base_url());
        config.records.path = Some(place.path().join("t.db"));
        config.keys_path = Some(place.path().join("keys.db"));
        config.admin_token = Some("open sesame".to_owned().into());
        let mut teams = Rule::new("each team's", Neurons::from_whole(1_000), Period::Day);
        teams.split_by = vec![Split::Metadata("team".into())];
        config.budgets = vec![teams, Rule::new("all of us", Neurons::from_whole(5_000), Period::Month)];
        let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "the-vendors-token".to_owned())];
        let sidecar = Sidecar::start(config, &variables, Vec::new()).unwrap();
        Self { sidecar, vendor, _place: place }
    }

    async fn spend(&self, team: &str) {
        let url = format!("http://{}/run/{LLAMA}", self.sidecar.listen());
        let body = serde_json::json!({"prompt": "x", "max_tokens": 50});
        let metadata = format!("{{\"team\":\"{team}\"}}");
        let reply = ask(&client(), &url, &body).header("cf-aig-metadata", metadata).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        reply.bytes().await.unwrap();
    }

    /// As a browser sends it from a page of the gate's own, or of this origin.
    async fn submit(&self, page: &str, origin: Option<&str>, fields: &[(&str, &str)]) -> (u16, String) {
        let own = format!("http://{}", self.sidecar.admin());
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = client.post(format!("{own}/page/{page}")).basic_auth("maria", Some("open sesame"));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(fields.join("&"));
        let request = match origin {
            Some("own") => request.header("origin", &own),
            Some(other) => request.header("origin", other),
            None => request,
        };
        let reply = request.send().await.unwrap();
        let to = reply.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        (reply.status().as_u16(), to.unwrap_or(reply.text().await.unwrap()))
    }

    async fn get(&self, path: &str) -> String {
        let url = format!("http://{}/{path}", self.sidecar.admin());
        client().get(url).bearer_auth("open sesame").send().await.unwrap().text().await.unwrap()
    }

    async fn key(&self, name: &str) -> Value {
        serde_json::from_str(&self.get(&format!("keys/{name}")).await).unwrap()
    }

    async fn opens(&self, key: &str) -> bool {
        let url = format!("http://{}/run/{LLAMA}", self.sidecar.listen());
        let body = r#"{"prompt":"x","max_tokens":1}"#;
        client().post(url).bearer_auth(key).body(body).send().await.unwrap().status() == 200
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split(after).next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_makes_rotates_and_revokes_keys_and_raises_and_resets_budgets() {
    let gate = Operated::start();
    for _ in 0..3 {
        gate.spend("search").await;
    }
    let (listen, admin) = (format!("http://{}", gate.sidecar.listen()), format!("http://{}", gate.sidecar.admin()));
    tokio::task::spawn_blocking(move || browse("operate.mjs", &[&listen, &admin, LLAMA])).await.unwrap();
    assert!(gate.vendor.seen().len() >= 3);
}

#[tokio::test]
async fn a_form_counts_where_a_page_of_the_gates_own_sent_it() {
    let gate = Operated::start();
    let new = [("name", "search")];
    for (origin, status) in [(None, 403), (Some("http://evil.example"), 403), (Some("null"), 403), (Some("own"), 201)] {
        let (got, said) = gate.submit("keys", origin, &new).await;
        assert_eq!(got, status, "{origin:?}: {said}");
    }
    let raise = [("name", "all of us"), ("what", "raise"), ("to", "9000 neurons")];
    assert_eq!(gate.submit("budget", None, &raise).await.0, 403);
    let nobody = client().post(format!("http://{}/page/keys", gate.sidecar.admin()));
    let nobody = nobody.header("origin", format!("http://{}", gate.sidecar.admin()));
    assert_eq!(nobody.body("name=x").send().await.unwrap().status(), 401, "without the token");
}

#[tokio::test]
async fn a_form_that_is_sent_twice_or_late_changes_nothing() {
    let gate = Operated::start();
    let name = "<b>a/../b?&é";
    let (status, page) = gate.submit("keys", Some("own"), &[("name", name), ("models", LLAMA)]).await;
    assert_eq!(status, 201, "{page}");
    assert!(!page.contains("<b>a"), "a name became markup: {page}");
    let first = between(&page, "id=\"made\" readonly value=\"", "\"").to_owned();
    assert!(gate.opens(&first).await);
    let page = gate.get(&format!("page/key?name={}", encoded(name))).await;
    let seen = between(&page, "name=\"seen\" value=\"", "\"").to_owned();
    let rotate = [("name", name), ("what", "rotate"), ("seen", &*seen), ("grace", "1h")];
    let (status, page) = gate.submit("key", Some("own"), &rotate).await;
    assert_eq!(status, 200, "{page}");
    let second = between(&page, "id=\"made\" readonly value=\"", "\"").to_owned();
    let (status, page) = gate.submit("key", Some("own"), &rotate).await;
    assert!(status == 400 && page.contains("nothing was done"), "{page}");
    assert!(gate.opens(&first).await && gate.opens(&second).await, "the second time took the first key away");
    let seen = between(&page, "name=\"seen\" value=\"", "\"").to_owned();
    let change = [("name", name), ("what", "change"), ("seen", &*seen), ("owner", "ops"), ("models", "")];
    assert_eq!(gate.submit("key", Some("own"), &change).await.0, 303);
    let key = gate.key(&encoded(name)).await;
    assert_eq!((&key["owner"], key["models"].as_array().unwrap().len()), (&"ops".into(), 0), "{key}");
    let revoke = [("name", name), ("what", "revoke"), ("seen", &*seen)];
    assert_eq!(gate.submit("key", Some("own"), &revoke).await.0, 400, "it was changed since");
    for (fields, word) in [
        (&[("name", "x"), ("labels", "team")][..], "no label"),
        (&[("name", "x"), ("requests_per_minute", "many")], "whole number"),
        (&[("name", "x"), ("expires_at", "soon")], "no moment"),
        (&[("name", "")], "a key's name"),
    ] {
        let (status, page) = gate.submit("keys", Some("own"), fields).await;
        assert!(status == 400 && page.contains(word) && page.contains("role=\"alert\""), "{fields:?}: {page}");
    }
}

#[tokio::test]
async fn a_bucket_is_raised_and_begun_anew_by_forms_which_say_why_not() {
    let gate = Operated::start();
    gate.spend("search").await;
    let teams = "each team's";
    let raise = [("name", teams), ("what", "raise"), ("bucket", "[\"search\"]"), ("to", "20 USD")];
    let (status, to) = gate.submit("budget", Some("own"), &raise).await;
    assert_eq!(status, 303, "{to}");
    assert!(gate.get(&format!("page/{to}")).await.contains("It is raised"));
    let buckets = gate.get("budgets/each%20team's").await;
    assert!(buckets.contains("1818181.8"), "{buckets}");
    let reset = |bucket, reason| [("name", teams), ("what", "reset"), ("bucket", bucket), ("reason", reason)];
    assert_eq!(gate.submit("budget", Some("own"), &reset("[\"search\"]", "a test ran wild")).await.0, 303);
    assert!(gate.get("budgets/each%20team's").await.contains("\"spent_neurons\":0.0"));
    for (fields, status) in [
        (reset("[\"search\"]", " "), 400),
        (reset("", "all of them"), 400),
        (reset("search", "no array"), 400),
        (reset("[\"nobody\"]", "x"), 404),
        ([("name", "nobody's"), ("what", "raise"), ("to", "1 USD"), ("until", "")], 404),
    ] {
        let (got, page) = gate.submit("budget", Some("own"), &fields).await;
        assert!(got == status && page.contains("role=\"alert\""), "{fields:?}: {got} {page}");
    }
}
