use proptest::prelude::*;

use super::*;

const START: u64 = 1 << 50;
const MINUTE: u64 = 60_000_000_000;

/// Everything that passes while it is asked at each of these times, in nanoseconds from the start.
fn flood(rate: Rate, times: impl Iterator<Item = (u64, u32)>) -> Vec<u64> {
    let mut window = Window::new(rate, START);
    let mut passed = Vec::new();
    for (at, asks) in times {
        window.advance(rate, rate.units, START + at);
        for _ in 0..asks {
            match take(&mut window, rate, 1) {
                Some(_) => passed.push(at),
                None => break,
            }
        }
    }
    passed
}

fn take(window: &mut Window, rate: Rate, units: u32) -> Option<Taken> {
    window.is_open(rate, rate.units, units).then(|| window.charge(units.min(rate.units)))
}

fn most_in_a_window(times: &[u64], per: u64) -> usize {
    let mut from = 0;
    let count = |(to, at): (usize, &u64)| {
        while at - times[from] >= per {
            from += 1;
        }
        to - from + 1
    };
    times.iter().enumerate().map(count).max().unwrap_or(0)
}

#[test]
fn a_flood_uses_each_window_and_overshoots_none() {
    for limit in [20, 50, 150, 300, 400, 720, 1500, 2000, 3000] {
        let rate = Rate::new(limit, Duration::from_secs(60));
        let passed = flood(rate, (0..MINUTE * 10).step_by(5_000_000).map(|at| (at, u32::MAX)));
        let at_once = passed.iter().filter(|at| **at == 0).count();
        assert!(at_once >= limit as usize / 2, "{limit}: only {at_once} at once");
        let most = most_in_a_window(&passed, MINUTE);
        assert!(most <= limit as usize, "{limit}: {most} in one window");
        let used: Vec<_> = (0..10)
            .map(|window| passed.iter().filter(|at| **at / MINUTE == window).count() as f64 / f64::from(limit))
            .collect();
        assert!(used[..3].iter().all(|used| *used >= 0.97), "{limit}: {used:?}");
        assert!(used.iter().all(|used| *used >= 0.95), "{limit}: {used:?}");
        let longest = passed.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(
            longest as f64 <= 2.6 * MINUTE as f64 / f64::from(limit) + 2.0e9,
            "{limit}: {longest} ns without a turn"
        );
    }
}

proptest! {
    #[test]
    fn no_window_is_ever_overshot(
        limit in 1_u32..400,
        seconds in 1_u64..100,
        asks in prop::collection::vec((0_u64..20_000, 0_u32..300), 1..200),
    ) {
        let rate = Rate::new(limit, Duration::from_secs(seconds));
        let mut at = 0;
        let times = asks.into_iter().map(|(pause, asks)| { at += pause * 1_000_000; (at, asks) });
        let passed = flood(rate, times.collect::<Vec<_>>().into_iter());
        let per = seconds * 1_000_000_000;
        // The margin counts as well: what takes 1% longer on its way does no harm.
        prop_assert!(most_in_a_window(&passed, per + per / MARGIN) <= limit as usize);
    }

    #[test]
    fn weights_never_overshoot(limit in 100_000_u32..20_000_000, weights in prop::collection::vec(0_u32..200_000, 1..300)) {
        let rate = Rate::new(limit, Duration::from_secs(60));
        let mut window = Window::new(rate, START);
        let (mut passed, mut at) = (Vec::new(), START);
        for weight in weights {
            at += 700_000_000;
            window.advance(rate, limit, at);
            if take(&mut window, rate, weight).is_some() {
                passed.push((at, u64::from(weight.min(limit))));
            }
        }
        for (end, _) in &passed {
            let sum: u64 = passed.iter().filter(|(at, _)| at <= end && end - at < MINUTE).map(|(_, w)| w).sum();
            prop_assert!(sum <= u64::from(limit));
        }
    }
}

/// When each of so many is taken by those who ask all the time, every so many nanoseconds.
fn turns(mut window: Window, rate: Rate, units: u32, calls: usize, from: u64, step: u64) -> Vec<u64> {
    let (mut turns, mut at) = (Vec::new(), from);
    while turns.len() < calls {
        window.advance(rate, rate.units, at);
        while turns.len() < calls && take(&mut window, rate, units).is_some() {
            turns.push(at);
        }
        at += step;
    }
    turns
}

proptest! {
    #[test]
    fn the_nth_turn_is_told_as_it_comes(
        limit in 1_u32..400,
        seconds in 1_u64..100,
        asks in prop::collection::vec((0_u64..3_000, 0_u32..50), 0..30),
        nth in 1_usize..30,
    ) {
        let rate = Rate::new(limit, Duration::from_secs(seconds));
        let (mut window, mut at) = (Window::new(rate, START), START);
        for (pause, asks) in asks {
            at += pause * 1_000_000;
            window.advance(rate, limit, at);
            for _ in 0..asks {
                take(&mut window, rate, 1);
            }
        }
        window.respread(rate, limit, at);
        let step = rate.nanos() / 20_000;
        let turns = turns(window, rate, 1, nth.min(limit as usize), at, step);
        for (n, turn) in turns.iter().enumerate() {
            let told = window.turn_after(rate, limit, 1, n as u32, at);
            let off = told.abs_diff(*turn);
            // The first to the step, the others to what it matters in which cell they are counted.
            let slack = if n == 0 { 2 * step } else { 2 * rate.cell_nanos() + step };
            prop_assert!(off <= slack, "turn {}: told {} after, came {}", n + 1, told - at, turn - at);
        }
    }
}

proptest! {
    #[test]
    fn a_changed_limit_lets_no_more_through_than_the_wider_of_both(
        limits in prop::collection::vec((1_u32..400, prop::sample::select(vec![10_u64, 60, 60, 60, 3600])), 1..6),
        pauses in prop::collection::vec(0_u64..20_000, 6),
    ) {
        let mut rate = Rate::new(limits[0].0, Duration::from_secs(limits[0].1));
        let (mut window, mut at, mut passed) = (Window::new(rate, START), START, Vec::new());
        for ((limit, seconds), pause) in limits.iter().zip(pauses) {
            let next = Rate::new(*limit, Duration::from_secs(*seconds));
            window.advance(rate, rate.units, at);
            let held = window.held(rate);
            window.change(rate, next, at);
            prop_assert_eq!(window.held(next), held, "what was taken counts");
            rate = next;
            // In no window of the limit that holds now does more pass than it has, of what passes under it.
            passed.clear();
            for step in 0..40 {
                window.advance(rate, rate.units, at);
                while take(&mut window, rate, 1).is_some() {
                    passed.push(at);
                }
                prop_assert!(step > 0 || passed.len() as u32 + held <= rate.units.max(held), "{} and {held}", passed.len());
                at += pause * 1_000_000 / 40;
            }
            prop_assert!(most_in_a_window(&passed, rate.nanos()) <= rate.units as usize);
        }
    }
}

#[test]
fn a_limit_that_is_raised_has_room_at_once() {
    let rates = |units, seconds| Rate::new(units, Duration::from_secs(seconds));
    for (from, to) in
        [(rates(4, 60), rates(400, 60)), (rates(4, 60), rates(100_000, 60)), (rates(4, 60), rates(400, 3600))]
    {
        let mut window = Window::new(from, START);
        while take(&mut window, from, 1).is_some() {}
        window.change(from, to, START);
        let passed = std::iter::from_fn(|| take(&mut window, to, 1)).count();
        assert!(passed as u32 >= to.units / 2 - 2, "{passed} of {to:?}");
    }
}

#[test]
fn a_limit_of_a_few_a_day_fills_however_often_it_is_looked_at() {
    let rate = Rate::new(20, Duration::from_secs(24 * 3600));
    let mut window = Window::new(rate, START);
    while take(&mut window, rate, 1).is_some() {}
    let told = window.turn_after(rate, 20, 1, 0, START);
    // A thousand times a second, for the last seconds before.
    let mut at = told - 5_000_000_000;
    window.advance(rate, 20, at);
    while take(&mut window, rate, 1).is_none() {
        at += 1_000_000;
        window.advance(rate, 20, at);
    }
    assert!(at.abs_diff(told) < 10_000_000, "{} ns off", at.abs_diff(told));
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    let rate = Rate::new(20, Duration::from_secs(60));
    let mut window = Window::new(rate, START);
    let taken: Vec<_> = (0..10).map(|_| take(&mut window, rate, 1).unwrap()).collect();
    assert_eq!(take(&mut window, rate, 1), None);
    window.advance(rate, 20, START + 2_000_000_000);
    taken.into_iter().for_each(|taken| window.give_back(rate, taken));
    assert_eq!(window.held(rate), 0);
    assert_eq!((0..20).filter(|_| take(&mut window, rate, 1).is_some()).count(), 10);
}
