//! Budgets of a whole account, which others spend from, too.

use super::*;

fn account_rule(limit: Neurons) -> Rule {
    Rule { scope: Scope::Account, ..everyone(limit) }
}

#[tokio::test]
async fn an_accounts_budget_counts_what_others_spent_and_what_was_spent_here_since() {
    let budgets = budgets(vec![account_rule(times(upper(), 10))], |_| {});
    for _ in 0..3 {
        ask(&budgets, call(LLAMA, "{}")).await.unwrap();
    }
    // The vendor's books had five when two of these three were spent: three were others'.
    let then = Standing { spent: times(upper(), 2), ..budgets.of_account("acc").remove(0) };
    budgets.book("acc", &then, times(upper(), 5));
    let status = budgets.status().remove(0);
    assert_eq!(
        (status.spent, status.elsewhere, status.left),
        (times(upper(), 3), times(upper(), 3), times(upper(), 4))
    );
    for _ in 0..4 {
        ask(&budgets, call(LLAMA, "{}")).await.unwrap();
    }
    ask(&budgets, call(LLAMA, "{}")).await.unwrap_err();
    // Another account has all of it.
    let other = Call { account: "other".into(), ..call(LLAMA, "{}") };
    ask(&budgets, other).await.unwrap();
    // What was charged too high here is put right, too.
    let then = budgets.of_account("acc").remove(0);
    budgets.book("acc", &then, times(upper(), 9));
    ask(&budgets, call(LLAMA, "{}")).await.unwrap();
}

#[tokio::test]
async fn the_vendors_books_of_yesterday_count_no_more() {
    let clock = watch();
    let budgets = budgets(vec![account_rule(upper())], |settings| settings.clock = clock.clone());
    let then = budgets.of_account("acc").remove(0);
    budgets.book("acc", &then, upper());
    ask(&budgets, call(LLAMA, "{}")).await.unwrap_err();
    clock.0.fetch_add(DAY_MS, Ordering::SeqCst);
    budgets.book("acc", &then, upper());
    ask(&budgets, call(LLAMA, "{}")).await.unwrap();
}

#[test]
fn a_budget_that_the_vendor_cannot_tell_is_refused() {
    for wrong in [
        Rule { keys: vec!["k".into()], ..account_rule(upper()) },
        Rule { split_by: vec![Split::Model], ..account_rule(upper()) },
        Rule { sliding: true, ..account_rule(upper()) },
        Rule { window: Period::Hour, ..account_rule(upper()) },
    ] {
        let error = Budgets::new(Settings { rules: vec![wrong], ..Settings::default() }, Catalogue::default());
        assert!(error.unwrap_err().to_string().contains("scope = \"account\""));
    }
}

/// Half of the account's spending passes elsewhere, a hundredth of the limit a second; the books lag, and are looked at now and
/// then. Returns what was spent when the gate first refused, beyond the limit, in seconds of the others' spending.
fn overshoot(lag: u64, every: u64) -> f64 {
    const DECIMALS: f64 = 1e6;
    let (limit, second) = (times(upper(), 2_000), times(upper(), 10));
    let budgets = budgets(vec![account_rule(limit)], |_| {});
    // By the second: what both had spent by then, and the gate's own standing.
    let mut spent: Vec<(Neurons, Standing)> = Vec::new();
    let mut elsewhere = Neurons::ZERO;
    let usual = call(LLAMA, "{}");
    for now in 0..1_000 {
        let standing = budgets.of_account("acc").remove(0);
        spent.push((elsewhere + standing.spent, standing));
        if now % every == 0 && now >= lag {
            let (booked, then) = &spent[(now - lag) as usize];
            budgets.book("acc", then, *booked);
        }
        for _ in 0..10 {
            let receipt = Receipt::open(Arc::new([]), usual.model.clone());
            let call = Call { receipt, ..usual.clone() };
            let Some(Ok(_)) = budgets.reserve_now(&call) else {
                let all = spent.last().unwrap().0;
                let over = all.saturating_sub(limit).as_f64() / second.as_f64();
                return (over * DECIMALS).round() / DECIMALS;
            };
            charge(&call, upper());
        }
        elsewhere += second;
    }
    panic!("the gate never refused");
}

#[test]
fn the_limit_is_overshot_by_what_others_spend_during_lag_and_interval_and_no_more() {
    for (lag, every) in [(1, 1), (10, 5), (30, 5), (30, 60), (90, 30)] {
        let seconds = overshoot(lag, every);
        println!("lag {lag} s, a look every {every} s: overshot by {seconds:.1} s of the others' spending");
        assert!(seconds <= (lag + every) as f64, "{seconds} s at a lag of {lag} s and a look every {every} s");
    }
}
