//! A generated week with planted wastes, and a clean one.

use rusqlite::{Connection, params};

use super::{Advice, Known, advice};
use crate::catalogue::Catalogue;
use crate::neurons::Neurons;
use crate::readers::records::{Archive, BLOCK_TOKENS, Evidence, Records, Settings};
use crate::usage::Usage;

const CLEAN: &str = "@cf/meta/llama-3.2-1b-instruct";
const GEMMA: &str = "@cf/google/gemma-4-26b-a4b-it";
const DEAR_TWIN: &str = "@cf/meta/llama-3.1-8b-instruct";
const REPEATED: &str = "@cf/meta/llama-3.2-3b-instruct";
const LEFT: &str = "@cf/mistralai/mistral-small-3.1-24b-instruct";
const RETRIED: &str = "@cf/openai/gpt-oss-20b";
const ROOMY: &str = "@cf/qwen/qwen3-30b-a3b-fp8";
const MISPRICED: &str = "@cf/openai/gpt-oss-120b";
const START_MS: i64 = 1_795_000_000_000;
const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

struct Week {
    connection: Connection,
    catalogue: Catalogue,
    count: i64,
}

/// A call of the week; what is left out is as in any other.
struct Call<'a> {
    model: &'a str,
    outcome: &'a str,
    usage: Usage,
    attempts: i64,
    max_tokens: Option<i64>,
    digest: Option<i64>,
    beginning: Option<i64>,
    at_ms: i64,
    waited_ms: i64,
    /// What the vendor says that it cost, in percent of the table's price.
    reported: Option<u64>,
}

impl Week {
    fn new(place: &std::path::Path) -> Self {
        let path = place.join("tollgate.db");
        let mut settings = Settings::default();
        settings.path = path.clone();
        Records::open(settings).unwrap().close();
        Self { connection: Connection::open(path).unwrap(), catalogue: Catalogue::default(), count: 0 }
    }

    fn call(&self, model: &'static str) -> Call<'static> {
        let n = self.count;
        // No two calls of the week are the same, nor begin in the same way.
        let usage = Usage::tokens(300 + n as u64 % 50, 0, 120 + n as u64 % 40);
        let at_ms = START_MS + n * 7919 * 37 % WEEK_MS;
        let (digest, beginning) = (Some(10_000_000 + n), Some(20_000_000 + n));
        let (waited_ms, reported) = (0, None);
        Call {
            waited_ms,
            reported,
            model,
            outcome: "ok",
            usage,
            attempts: 1,
            max_tokens: Some(256),
            digest,
            beginning,
            at_ms,
        }
    }

    fn add(&mut self, call: Call<'_>) -> Neurons {
        self.count += 1;
        let table = self.catalogue.get(call.model).unwrap().prices.cost(&call.usage);
        let neurons = Neurons::from_micro(table.micro() * call.reported.unwrap_or(100) / 100);
        let id = (u128::from(call.at_ms.unsigned_abs()) << 64 | u128::from(self.count.unsigned_abs())).to_be_bytes();
        let sql = "INSERT INTO records (refused, id, received_ms, key, account, asked, model, stream, status, outcome, input_tokens, \
            cached_input_tokens, output_tokens, neurons, source, cache, saved, attempts, step, waited_us, upstream_us, duration_us, \
            reply_bytes, max_tokens, digest, beginning) \
            VALUES (?15,?1,?2,'team','acc',?3,?3,0,200,?4,?5,?6,?7,?8,?13,'MISS',0,?9,0,?14,0,0,0,?10,?11,?12)";
        let usage = &call.usage;
        let tokens = [usage.input_tokens, usage.cached_input_tokens, usage.output_tokens].map(u64::cast_signed);
        let values = params![
            id,
            call.at_ms,
            call.model,
            call.outcome,
            tokens[0],
            tokens[1],
            tokens[2],
            neurons.micro().cast_signed(),
            call.attempts,
            call.max_tokens,
            call.digest,
            call.beginning,
            if call.reported.is_some() { "reported" } else { "computed" },
            call.waited_ms * 1000,
            (call.outcome == "rate_limited").then_some("rate_limited"),
        ];
        self.connection.execute(sql, values).unwrap();
        neurons
    }

    /// Traffic with nothing to mend: also calls that fail, clients that leave and retries that mend, now and then.
    fn clean(&mut self) {
        for n in 0..4000 {
            let model = if n % 3 == 0 { GEMMA } else { CLEAN };
            let mut call = self.call(model);
            if n % 1000 == 7 {
                call.outcome = "aborted";
            }
            if n % 100 == 9 {
                call.attempts = 2;
            }
            self.add(call);
        }
    }

    fn evidence(&self, place: &std::path::Path) -> Evidence {
        let archive = Archive::open(&place.join("tollgate.db")).unwrap();
        archive.evidence(START_MS.unsigned_abs(), (START_MS + WEEK_MS).unsigned_abs()).unwrap()
    }

    fn advice(&self, place: &std::path::Path, keys: &[&str]) -> Vec<Advice> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis((START_MS + WEEK_MS).unsigned_abs());
        advice(&self.evidence(place), &Known { catalogue: &self.catalogue, keys, priced: vec![MISPRICED.into()], now })
    }
}

#[test]
fn planted_wastes_are_all_named_in_the_order_of_money_and_to_the_neuron() {
    let place = tempfile::tempdir().unwrap();
    let mut week = Week::new(place.path());
    week.clean();
    let mut planted: Vec<(&str, String, Neurons)> = Vec::new();
    // A dearer twin of the same weights.
    let twin = week.catalogue.get("@cf/meta/llama-3.1-8b-instruct-fp8-fast").unwrap();
    let mut saved = Neurons::ZERO;
    let mut sum = Usage::tokens(0, 0, 0);
    for _ in 0..2000 {
        let call = week.call(DEAR_TWIN);
        sum.input_tokens += call.usage.input_tokens;
        sum.output_tokens += call.usage.output_tokens;
        saved += week.add(call);
    }
    planted.push(("cheaper_twin", DEAR_TWIN.into(), saved.saturating_sub(twin.prices.cost(&sum))));
    // Twenty questions, each asked fifty times an hour apart.
    let mut saved = Neurons::ZERO;
    for n in 0..1000i64 {
        let mut call = week.call(REPEATED);
        call.digest = Some(n % 20);
        call.at_ms = START_MS + n / 20 * 3_600_000 + n % 20;
        let cost = week.add(call);
        saved += if n < 20 { Neurons::ZERO } else { cost };
    }
    planted.push(("repeats", REPEATED.into(), saved));
    // One long beginning, read again and again.
    let mut tokens = 0;
    for n in 0..1500 {
        let mut call = week.call(GEMMA);
        call.beginning = Some(7);
        week.add(call);
        tokens += if n == 0 { 0 } else { BLOCK_TOKENS };
    }
    let gemma = week.catalogue.get(GEMMA).unwrap().prices.clone();
    let cost = |cached| gemma.cost(&Usage::tokens(tokens, cached, 0));
    planted.push(("prefix_cache", GEMMA.into(), cost(0).saturating_sub(cost(tokens))));
    for (waste, model, calls) in [("unread_answers", LEFT, 150), ("vain_retries", RETRIED, 90)] {
        let mut saved = Neurons::ZERO;
        for _ in 0..calls {
            let mut call = week.call(model);
            (call.outcome, call.attempts) = if waste == "vain_retries" { ("timeout", 4) } else { ("aborted", 1) };
            saved += week.add(call);
        }
        planted.push((waste, model.into(), saved));
    }
    for _ in 0..100 {
        let mut call = week.call(ROOMY);
        call.max_tokens = Some(8000);
        week.add(call);
    }
    for n in 0..130 {
        let mut call = week.call(CLEAN);
        (call.waited_ms, call.outcome) = (2000, if n % 5 == 0 { "rate_limited" } else { "ok" });
        week.add(call);
    }
    for _ in 0..120 {
        let mut call = week.call(MISPRICED);
        call.reported = Some(130);
        week.add(call);
    }
    // By the table that model leaves, too.
    planted.push(("leaving_model", DEAR_TWIN.into(), Neurons::ZERO));
    planted.push(("batchable", CLEAN.into(), Neurons::ZERO));
    planted.push(("wrong_price", MISPRICED.into(), Neurons::ZERO));
    planted.push(("roomy_max_tokens", ROOMY.into(), Neurons::ZERO));
    planted.push(("unused_key", "forgotten".into(), Neurons::ZERO));

    let found = week.advice(place.path(), &["team", "forgotten"]);
    let told: Vec<_> = found.iter().map(|advice| (advice.waste, advice.of.clone(), advice.saved)).collect();
    println!("{told:#?}");
    planted.sort_by_key(|(_, _, saved)| std::cmp::Reverse(*saved));
    assert_eq!(
        told.iter().map(|(waste, of, _)| (*waste, of)).collect::<Vec<_>>(),
        planted.iter().map(|(waste, of, _)| (*waste, of)).collect::<Vec<_>>()
    );
    for ((waste, _, told), (_, _, planted)) in told.iter().zip(&planted) {
        assert!(told.micro().abs_diff(planted.micro()) * 100 <= planted.micro(), "{waste}: {told}, planted {planted}");
    }
}

#[test]
fn a_clean_week_brings_no_advice() {
    let place = tempfile::tempdir().unwrap();
    let mut week = Week::new(place.path());
    week.clean();
    assert_eq!(week.advice(place.path(), &["team"]), []);
}
