//! Forecasts of months that were generated, beside how these ended.

use std::collections::BTreeMap;

use jiff::civil::{Date, date};

use super::{Known, Outlook, unusual};
use crate::neurons::Neurons;

const FIRST: Date = date(2026, 10, 1);

/// A month and the days before it: a level that drifts, with or without weekends, and days that differ from it by more or less.
fn month(seed: u64, days_before: i64) -> Vec<(Date, Neurons)> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let week = if seed.is_multiple_of(2) { [1.0; 7] } else { [1.0, 1.05, 1.1, 1.0, 0.95, 0.4, 0.3] };
    let (drift, noise) = ((dice.f64() - 0.5) * 0.02, 0.05 + dice.f64() * 0.35);
    // The sum of twelve dice is as good as normal.
    let mut normal = move || (0..12).map(|_| dice.f64()).sum::<f64>() - 6.0;
    let (mut level, mut days) = (1000.0, Vec::new());
    let mut day = FIRST.checked_sub(jiff::ToSpan::days(days_before)).unwrap();
    while day < date(2026, 11, 1) {
        let weekday = week[usize::try_from(day.weekday().to_monday_zero_offset()).unwrap()];
        days.push((day, Neurons::from_f64(level * weekday * f64::max(0.0, 1.0 + normal() * noise))));
        level *= 1.0 + drift + normal() * 0.01;
        day = day.tomorrow().unwrap();
    }
    days
}

fn foreseen(days: &[(Date, Neurons)], today: Date) -> Outlook {
    let place = days.iter().position(|(day, _)| *day == today).unwrap();
    // At noon half of the day is spent.
    let spent_today = Neurons::from_micro(days[place].1.micro() / 2);
    Outlook::of(&Known { days: days[..place].to_vec(), today, spent_today, part: 0.5 }).unwrap()
}

#[test]
fn generated_months_end_where_they_were_foreseen_to() {
    const MONTHS: u64 = 300;
    let mut all = 0;
    for days_before in [0, 20, 60] {
        for day in [5, 10, 15, 20, 25] {
            let (mut errors, mut held) = (Vec::new(), 0);
            for seed in 0..MONTHS {
                let days = month(seed, days_before);
                let end: Neurons = days.iter().filter(|(day, _)| *day >= FIRST).map(|(_, cost)| *cost).sum();
                let Outlook { low, likely, high, spent } = foreseen(&days, date(2026, 10, day));
                assert!(spent <= likely && low <= likely && likely <= high);
                errors.push((likely.as_f64() / end.as_f64() - 1.0).abs());
                held += usize::from((low..=high).contains(&end));
            }
            errors.sort_by(f64::total_cmp);
            let (median, worst) = (errors[errors.len() / 2], errors[errors.len() * 9 / 10]);
            let held_part = held as f64 / MONTHS as f64;
            println!(
                "{days_before:2} days of records before the month, on its day {day:2}: off by {:.1}% (median), {:.1}% (nine of \
                 ten); within the band {:.0}%",
                median * 100.0,
                worst * 100.0,
                held_part * 100.0
            );
            assert!(median < [0.2, 0.1, 0.08, 0.05, 0.03][usize::try_from(day).unwrap() / 5 - 1], "{median}");
            assert!(held_part > 0.65, "{held_part}");
            all += held;
        }
    }
    let all = all as f64 / (15 * MONTHS) as f64;
    println!("within the band: {:.1}% of all", all * 100.0);
    assert!((0.75..0.92).contains(&all), "{all}");
}

#[test]
fn nothing_is_foreseen_of_days_without_a_call_or_too_few() {
    let days =
        |count: i8, cost| (1..=count).map(|day| (date(2026, 10, day), Neurons::from_whole(cost))).collect::<Vec<_>>();
    let known = |days| Known { days, today: date(2026, 10, 10), spent_today: Neurons::ZERO, part: 0.5 };
    assert_eq!(Outlook::of(&known(days(2, 5))), None);
    assert_eq!(Outlook::of(&known(days(9, 0))), None);
    let outlook = Outlook::of(&known(days(9, 100))).unwrap();
    // Nine days are over, and twenty-one and a half to come.
    assert_eq!((outlook.spent, outlook.likely), (Neurons::from_whole(900), Neurons::from_whole(3050)));
}

#[test]
fn who_spends_far_over_a_habit_is_named_and_nobody_else() {
    let habit = |cost: f64| (0..14).map(|day| cost * (1.0 + f64::from(day % 3) * 0.1)).collect::<Vec<_>>();
    let days = BTreeMap::from([
        ("steady".to_owned(), habit(100.0)),
        ("wild".to_owned(), (0..14).map(|day| f64::from(day % 5) * 60.0).collect()),
        ("runaway".to_owned(), habit(80.0)),
        ("tiny".to_owned(), habit(0.1)),
        ("new".to_owned(), vec![1.0; 3]),
    ]);
    let today = |costs: &[(&str, u64)]| {
        costs.iter().map(|(name, cost)| ((*name).to_owned(), Neurons::from_whole(*cost))).collect::<BTreeMap<_, _>>()
    };
    let costs = today(&[("steady", 150), ("wild", 300), ("runaway", 300), ("tiny", 2), ("new", 500), ("unknown", 500)]);
    let named: Vec<_> = unusual("key", &days, &costs).into_iter().map(|one| (one.what, one.name)).collect();
    assert_eq!(named, [("key".to_owned(), "runaway".to_owned())]);
}
