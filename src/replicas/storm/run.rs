//! One run of several gates over the model of their store, event by event on a clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::fault::Fault;
use crate::layers::budget::by_hand::SharedBucket;
use crate::layers::budget::{Period, Register, Registrant, Rule};
use crate::layers::rate_limit::by_hand::SharedLane;
use crate::layers::rate_limit::{Answered, Word};
use crate::neurons::Neurons;
use crate::replicas::clock::FleetClock;
use crate::replicas::local::Memory;
use crate::replicas::{Answer, Exchange};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call(usize),
    /// A gate looks whether there is something to do.
    Look(usize),
    Arrive(usize),
    Answer(usize),
    /// A message's answer is waited for no longer.
    Late(usize),
    Strike(usize),
}

struct Message {
    gate: usize,
    sent: u64,
    life: u32,
    exchange: Exchange,
    answer: Option<Answer>,
    is_done: bool,
}

struct Gate {
    life: u32,
    id: Arc<str>,
    who: Arc<str>,
    fleet: Arc<str>,
    lane: SharedLane,
    bucket: SharedBucket,
    clock: FleetClock,
    /// How far its clocks are ahead, in nanoseconds.
    ahead: u64,
    sent: u64,
    answered: Option<u64>,
    next: Option<u64>,
    news_at: u64,
    look_at: u64,
    number: u64,
    in_flight: usize,
    is_ending: bool,
}

struct Plan {
    limit: u32,
    window: u64,
    keep_for: u64,
    max_wait: u64,
    budget: u64,
}

pub(super) struct Run {
    rng: Rng,
    plan: Plan,
    faults: Vec<Fault>,
    struck: Vec<(u64, Fault)>,
    victim: usize,
    away: Vec<(usize, u64, u64)>,
    gates: Vec<Gate>,
    messages: Vec<Message>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    memory: Memory,
    /// What a copy of the store has: up to a second less.
    older: Memory,
    kept_at: u64,
    server: u64,
    off_ms: i64,
    /// Calls that came for the limit.
    asked: usize,
    /// When each call reached upstream.
    calls: Vec<u64>,
    /// When, in milliseconds by the true wall clock, and what it cost.
    costs: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) limit: (usize, usize),
    pub(super) budget: (u64, u64),
    /// Of what was asked for and there was.
    pub(super) used: f64,
    pub(super) spent: f64,
    pub(super) steps: usize,
}

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;
const LATE: u64 = 250 * MILLI;
const BEAT: u64 = SECOND;
const AGAIN: u64 = 250 * MILLI;
const UNTIL: u64 = 20 * SECOND;
const START: u64 = 1 << 52;
/// A minute ends, and with it the budget, in the midst of a run.
const BEGAN_MS: u64 = 1_700_000_000_000 / 3_600_000 * 3_600_000 + 1_848_000;
const CALL: u64 = 1000;

impl Gate {
    fn new(number: usize, life: u32, ahead: u64, plan: &Plan, t: u64) -> Self {
        let [window, keep_for, max_wait] = [plan.window, plan.keep_for, plan.max_wait].map(Duration::from_nanos);
        let rule = Rule::new("all", Neurons::from_micro(plan.budget), Period::Minute);
        Self {
            life,
            id: format!("gate-{number}#{life}").into(),
            who: format!("gate-{number}").into(),
            fleet: "".into(),
            lane: SharedLane::new(plan.limit, window, keep_for, max_wait, START + t + ahead),
            bucket: SharedBucket::new(rule, BEGAN_MS + (t + ahead) / MILLI),
            clock: FleetClock::default(),
            ahead,
            sent: t,
            answered: None,
            next: None,
            news_at: t,
            look_at: u64::MAX,
            number: 0,
            in_flight: 0,
            is_ending: false,
        }
    }

    fn now(&self, t: u64) -> u64 {
        START + t + self.ahead
    }

    /// By the clock that the machine has.
    fn wall_ms(&self, t: u64) -> u64 {
        BEGAN_MS + (t + self.ahead) / MILLI
    }
}

impl Run {
    pub(super) fn new(seed: u64, faults: &[Fault]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let gates = rng.usize(1..=3);
        let plan = Plan {
            limit: [1, 2, 5, 20][rng.usize(..4)],
            window: [2, 5, 10][rng.usize(..3)] * SECOND,
            keep_for: [1, 5, 30][rng.usize(..3)] * SECOND,
            max_wait: [0, 3 * SECOND][rng.usize(..2)],
            budget: CALL * [2, 6, 20][rng.usize(..3)],
        };
        let victim = rng.usize(..gates);
        let at = |rng: &mut Rng| rng.u64(4 * SECOND..14 * SECOND);
        let fault_at = at(&mut rng);
        let ends = fault_at + [SECOND / 3, 2 * SECOND, 5 * SECOND, 9 * SECOND][rng.usize(..4)];
        let (mut struck, mut away) = (Vec::new(), Vec::new());
        for fault in faults {
            match fault {
                Fault::Outage => {
                    away.extend((0..gates).map(|gate| (gate, fault_at, ends + rng.u64(..3 * SECOND / 2))));
                }
                Fault::Cut => away.push((victim, fault_at, ends)),
                Fault::Failover => struck.push((fault_at, *fault)),
                Fault::Clock => struck.extend((0..3).map(|_| (at(&mut rng), *fault))),
                Fault::Kill | Fault::Restart | Fault::Flush => struck.push((at(&mut rng), *fault)),
                Fault::Network | Fault::GateClock => {}
            }
        }
        let ahead = |n: usize| if faults.contains(&Fault::GateClock) && n == victim { 3600 * SECOND } else { 0 };
        let all = (0..gates).map(|n| Gate::new(n, 0, ahead(n), &plan, 0)).collect();
        let mut run = Self {
            rng,
            plan,
            faults: faults.to_vec(),
            struck,
            victim,
            away,
            gates: all,
            messages: Vec::new(),
            events: BinaryHeap::new(),
            order: 0,
            memory: Memory::default(),
            older: Memory::default(),
            kept_at: 0,
            server: 0,
            off_ms: 0,
            asked: 0,
            calls: Vec::new(),
            costs: Vec::new(),
        };
        for n in 0..run.struck.len() {
            run.push(run.struck[n].0, Event::Strike(n));
        }
        let wanted = [0.6, 1.5, 4.0][run.rng.usize(..3)];
        let a_second = (f64::from(run.plan.limit) / (run.plan.window as f64 / 1e9) * wanted).clamp(0.5, 2.5) * 2.0;
        let mut t = 0;
        while t < UNTIL {
            t += (-(1.0 - run.rng.f64()).ln() / a_second * 1e9) as u64;
            // Most come to the first one.
            let gate = run.rng.usize(..gates).min(run.rng.usize(..gates));
            run.push(t, Event::Call(gate));
        }
        (0..gates).for_each(|gate| run.say(gate, 0, Vec::new(), Vec::new(), false));
        run
    }

    fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    pub(super) async fn go(mut self) -> Outcome {
        let (mut steps, mut last) = (0, 0);
        while let Some(Reverse((t, _, event))) = self.events.pop()
            && t < UNTIL
        {
            steps += 1;
            // What looks at the clock itself.
            tokio::time::advance(Duration::from_nanos(t - last)).await;
            last = t;
            match event {
                Event::Call(gate) => self.call(gate, t),
                Event::Look(gate) if self.gates[gate].look_at == t => self.look(gate, t),
                Event::Look(_) => {}
                Event::Arrive(n) => self.arrive(n, t),
                Event::Answer(n) => self.answer(n, t, false),
                Event::Late(n) => self.answer(n, t, true),
                Event::Strike(n) => self.strike(n, t),
            }
        }
        self.outcome(steps)
    }

    fn tell_time(&mut self, gate: usize, t: u64) {
        let gate = &self.gates[gate];
        gate.bucket.set_clock(gate.clock.by(gate.wall_ms(t)), t / MILLI);
    }

    fn call(&mut self, n: usize, t: u64) {
        self.tell_time(n, t);
        if self.gates[n].is_ending {
            return;
        }
        if self.rng.bool() {
            let now = self.gates[n].now(t);
            self.asked += 1;
            if self.gates[n].lane.call(now) {
                self.passes(t);
            }
        } else {
            let (cost, until) = (self.rng.u64(CALL / 10..=CALL), (t + self.rng.u64(..3 * SECOND)) / MILLI);
            let [needed, neurons] = [CALL, cost].map(Neurons::from_micro);
            if self.gates[n].bucket.call(needed, neurons, until) {
                self.costs.push((BEGAN_MS + t / MILLI, cost));
            }
        }
        self.settle(n, t);
    }

    /// Upstream sees it a little later.
    fn passes(&mut self, t: u64) {
        self.calls.push(t + self.rng.u64(..self.plan.window / 105));
    }

    /// Who waits may have a turn, and what is to be said is said.
    fn settle(&mut self, n: usize, t: u64) {
        let gate = &mut self.gates[n];
        let now = gate.now(t);
        let (passed, look_at) = gate.lane.look(now);
        let rng = &mut self.rng;
        let fate = |_| (Neurons::from_micro(rng.u64(CALL / 10..=CALL)), (t + rng.u64(..3 * SECOND)) / MILLI);
        for cost in gate.bucket.look(fate) {
            self.costs.push((BEGAN_MS + t / MILLI, cost.micro()));
        }
        let (mut words, mut registers) = (Vec::new(), Vec::new());
        let is_away = gate.lane.is_away();
        if gate.lane.is_wanting() && !is_away {
            match gate.lane.word(false, now) {
                Ok(word) => words.push(word),
                Err(at) => gate.next = sooner(gate.next, at.map(|at| at - START - gate.ahead)),
            }
        }
        if gate.bucket.is_wanting() {
            if is_away {
                gate.bucket.bucket.unreached();
            } else {
                registers.extend(gate.bucket.bucket.register());
            }
        }
        let look_at = look_at.map(|at| at - START - gate.ahead);
        (0..passed).for_each(|_| self.passes(t));
        if !words.is_empty() || !registers.is_empty() {
            self.say(n, t, words, registers, false);
        }
        let gate = &mut self.gates[n];
        let timer = match gate.lane.is_away() {
            true => gate.sent + AGAIN,
            false => sooner(gate.next, Some((gate.sent + BEAT).min(gate.news_at))).unwrap_or(u64::MAX),
        };
        let at = sooner(look_at, Some(timer)).unwrap_or(timer).max(t + 100 * MILLI);
        if at != gate.look_at {
            gate.look_at = at;
            self.push(at, Event::Look(n));
        }
    }

    fn look(&mut self, n: usize, t: u64) {
        self.tell_time(n, t);
        let gate = &mut self.gates[n];
        gate.look_at = u64::MAX;
        let (now, is_away) = (gate.now(t), gate.lane.is_away());
        let (mut words, mut registers) = (Vec::new(), Vec::new());
        if !is_away {
            if gate.next.is_some_and(|next| next <= t) {
                gate.next = None;
                match gate.lane.word(true, now) {
                    Ok(word) => words.push(word),
                    Err(at) => gate.next = at.map(|at| at - START - gate.ahead),
                }
            }
            if t >= gate.news_at {
                gate.news_at = t + BEAT;
                registers.extend(gate.bucket.bucket.register());
            }
        }
        let is_due = t >= gate.sent + if is_away { AGAIN } else { BEAT };
        if !words.is_empty() || !registers.is_empty() || is_due {
            self.say(n, t, words, registers, false);
        }
        self.settle(n, t);
    }

    fn say(&mut self, n: usize, t: u64, words: Vec<Word>, registers: Vec<Register>, is_leaving: bool) {
        let gate = &mut self.gates[n];
        gate.sent = t;
        let mut numbered = |register| {
            gate.number += 1;
            (gate.number, register)
        };
        let registers = registers.into_iter().map(&mut numbered).collect();
        let exchange = Exchange {
            id: gate.id.clone(),
            who: gate.who.clone(),
            keep_ms: self.plan.keep_for / MILLI,
            fleet: gate.fleet.clone(),
            since_ms: gate.answered.map_or(0, |sent| ((t - sent) / MILLI).max(1)),
            is_leaving,
            words,
            registers,
        };
        gate.in_flight += 1;
        let message = self.messages.len();
        self.messages.push(Message { gate: n, sent: t, life: gate.life, exchange, answer: None, is_done: false });
        let is_lost = self.away.iter().any(|(who, from, to)| *who == n && *from <= t && t < *to);
        let is_bad = self.faults.contains(&Fault::Network);
        let mut there = self.rng.u64(100_000..2_500_000);
        if is_bad && self.rng.u8(..20) == 0 {
            there += self.rng.u64(50 * MILLI..3 * SECOND);
        }
        if !(is_lost || is_bad && self.rng.u8(..50) == 0) {
            self.push(t + there, Event::Arrive(message));
        }
        self.push(t + LATE, Event::Late(message));
    }

    fn arrive(&mut self, n: usize, t: u64) {
        if self.faults.contains(&Fault::Failover) && t > self.kept_at + SECOND {
            (self.older, self.kept_at) = (self.memory.clone(), t);
        }
        let now = (BEGAN_MS as i64 + (t / MILLI) as i64 + self.off_ms) as u64;
        let server = format!("{:08}", self.server);
        let message = &mut self.messages[n];
        message.answer = Some(self.memory.step(&message.exchange, now, &server));
        let is_bad = self.faults.contains(&Fault::Network);
        if is_bad && self.rng.u8(..20) == 0 {
            self.memory.step(&message.exchange, now, &server);
        }
        let mut back = self.rng.u64(100_000..2_500_000);
        if is_bad && self.rng.u8(..20) == 0 {
            back += self.rng.u64(50 * MILLI..3 * SECOND);
        }
        self.push(t + back, Event::Answer(n));
    }

    fn answer(&mut self, m: usize, t: u64, is_late: bool) {
        let message = &mut self.messages[m];
        let (n, sent) = (message.gate, message.sent);
        if std::mem::replace(&mut message.is_done, true) || self.gates[n].life != message.life {
            return;
        }
        let answer = message.answer.take().filter(|_| !is_late);
        let (words, registers) =
            (std::mem::take(&mut message.exchange.words), std::mem::take(&mut message.exchange.registers));
        self.tell_time(n, t);
        let gate = &mut self.gates[n];
        gate.in_flight -= 1;
        let now = gate.now(t);
        let mut said = (Vec::new(), Vec::new());
        match answer {
            Some(answer) => {
                gate.answered = gate.answered.max(Some(sent));
                gate.clock.hear(answer.now_ms, gate.wall_ms(t));
                gate.bucket.set_clock(gate.clock.by(gate.wall_ms(t)), t / MILLI);
                let is_back = gate.lane.set_away(false, now);
                let tells_all = *gate.fleet != *answer.fleet || is_back;
                gate.fleet = answer.fleet;
                for (word, heard) in words.iter().zip(answer.heard) {
                    let answered = heard.map_or(Answered::Lost, Answered::Heard);
                    let next = gate.lane.heard(word, &answered, now).map(|at| at - START - gate.ahead);
                    gate.next = sooner(gate.next, next);
                }
                for ((_, register), grant) in registers.iter().zip(answer.grants) {
                    gate.bucket.bucket.granted(register, grant);
                }
                if is_back {
                    said.0.extend(gate.lane.word(true, now).ok());
                }
                if tells_all {
                    said.1.extend(gate.bucket.bucket.register());
                }
            }
            None => {
                let is_news = gate.lane.set_away(true, now);
                registers.iter().for_each(|(_, register)| gate.bucket.bucket.granted(register, None));
                for word in &words {
                    gate.lane.heard(word, &Answered::Lost, now);
                }
                if is_news {
                    gate.next = None;
                }
            }
        }
        if !said.0.is_empty() || !said.1.is_empty() {
            self.say(n, t, said.0, said.1, false);
        }
        if self.gates[n].is_ending && self.gates[n].in_flight == 0 {
            self.end(n, t);
        }
        self.settle(n, t);
    }

    /// Says goodbye, and starts again.
    fn end(&mut self, n: usize, t: u64) {
        let gate = &mut self.gates[n];
        let now = gate.now(t);
        gate.lane.leave(now);
        gate.bucket.leave();
        if !gate.lane.is_away() {
            let registers = gate.bucket.bucket.register().into_iter().collect();
            let word = gate.lane.word(true, now).ok().map(|mut word| {
                (word.ask, word.waiting) = (0, 0);
                word
            });
            self.say(n, t, Vec::new(), registers, false);
            self.say(n, t, word.into_iter().collect(), Vec::new(), true);
        }
        let gate = &self.gates[n];
        self.gates[n] = Gate::new(n, gate.life + 1, gate.ahead, &self.plan, t);
        self.say(n, t + 5 * MILLI, Vec::new(), Vec::new(), false);
    }

    fn strike(&mut self, which: usize, t: u64) {
        let victim = self.victim;
        match self.struck[which].1 {
            Fault::Flush => self.memory = Memory::default(),
            Fault::Failover => {
                self.memory = self.older.clone();
                self.server += 1;
            }
            Fault::Clock if self.off_ms != 0 => self.off_ms = 0,
            Fault::Clock => self.off_ms = if self.rng.bool() { 10_000 } else { -10_000 },
            Fault::Kill => {
                let gate = &self.gates[victim];
                self.gates[victim] = Gate::new(victim, gate.life + 1, gate.ahead, &self.plan, t);
                self.say(victim, t, Vec::new(), Vec::new(), false);
                self.settle(victim, t);
            }
            Fault::Restart => {
                self.gates[victim].is_ending = true;
                if self.gates[victim].in_flight == 0 {
                    self.end(victim, t);
                    self.settle(victim, t);
                }
            }
            Fault::Outage | Fault::Cut | Fault::Network | Fault::GateClock => {}
        }
    }

    fn outcome(mut self, steps: usize) -> Outcome {
        for gate in &mut self.gates {
            gate.bucket.leave();
            assert_eq!(gate.bucket.reserved(), Neurons::ZERO);
        }
        let Self { mut calls, costs, plan, asked, .. } = self;
        calls.sort_unstable();
        let in_window = |n: usize| calls.partition_point(|at| *at < calls[n] + plan.window) - n;
        let worst = (0..calls.len()).map(in_window).max().unwrap_or(0);
        let mut windows = BTreeMap::<u64, u64>::new();
        // A clock that is put right by an answer is right to its way.
        let slack = if self.faults.contains(&Fault::GateClock) { 500 } else { 0 };
        for (at, cost) in &costs {
            if (slack..60_000 - slack).contains(&(at % 60_000)) || slack == 0 {
                *windows.entry(at / 60_000).or_default() += cost;
            }
        }
        let spent = windows.values().copied().max().unwrap_or(0);
        let whole = ((UNTIL / plan.window) as f64 * f64::from(plan.limit)).min(asked as f64);
        Outcome {
            limit: (worst, plan.limit as usize),
            budget: (spent, plan.budget),
            used: calls.len() as f64 / whole,
            spent: spent as f64 / plan.budget as f64,
            steps,
        }
    }
}

fn sooner(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}
