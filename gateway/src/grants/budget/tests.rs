//! Gateways that share a ledger, crash, lose answers, and are settled from the record.

use proptest::prelude::*;
use shared::budget_ledger::LedgerRun;
use uuid::Uuid;

use super::*;

/// A gateway with its present run: the counter, and the reservations and costs of its running calls.
#[derive(Default)]
struct Simulated {
    run: u128,
    counter: BudgetCounter,
    open: Vec<(u64, u64)>,
}

/// A call that the record has or will have: the run, and the cost once the call has ended.
type Recorded = Vec<(Uuid, u64)>;

#[derive(Clone, Debug)]
enum Step {
    /// A call begins at a gateway: its reservation, and the cost that it will have, as a part in 8 of the reservation.
    Begin(usize, u64, u64),
    /// The oldest call of a gateway ends.
    End(usize),
    /// A gateway gives unused money back.
    Tidy(usize),
    /// A gateway without running calls drops its counter.
    Forget(usize),
    /// A gateway dies and is started again. Its running calls cost nothing.
    Crash(usize),
    /// A gateway's change of the entry is made, and the answer is lost.
    LostAnswer(usize, u64),
    /// A recorder settles the runs that are over.
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gateway = 0..3_usize;
    let step = prop_oneof![
        12 => (gateway.clone(), 1..60_u64, 0..9_u64).prop_map(|(gateway, money, cost)| Step::Begin(gateway, money, cost)),
        10 => gateway.clone().prop_map(Step::End),
        3 => gateway.clone().prop_map(Step::Tidy),
        1 => gateway.clone().prop_map(Step::Forget),
        1 => gateway.clone().prop_map(Step::Crash),
        1 => (gateway, 1..60_u64).prop_map(|(gateway, money)| Step::LostAnswer(gateway, money)),
        2 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..400)
}

impl Simulated {
    fn claim(&self) -> LedgerClaim<'static> {
        LedgerClaim { run: Uuid::from_u128(self.run), gateway: "gateway", since: 0 }
    }

    /// Reserves money as the meter does: from the part that is held, or after asking.
    fn begin(&mut self, entry: &mut LedgerEntry, amount: u64, money: u64) -> bool {
        if self.counter.take(amount, money) {
            return true;
        }
        let claim = self.claim();
        let granted = self.counter.ask(entry, claim, amount, money);
        self.counter.note(entry, claim);
        granted.is_some() && self.counter.take(amount, money)
    }

    fn tidy(&mut self, entry: &mut LedgerEntry) {
        let claim = self.claim();
        self.counter.give_back(entry, claim);
        self.counter.note(entry, claim);
    }
}

/// Replaces the parts of runs that are over by the costs on the record.
fn settle(entry: &mut LedgerEntry, gateways: &[Simulated], record: &Recorded) {
    entry.runs.retain(|run, _: &mut LedgerRun| gateways.iter().any(|gateway| gateway.claim().run == *run));
    entry.recorded = record.iter().filter(|(run, _)| !entry.runs.contains_key(run)).map(|(_, cost)| cost).sum();
}

proptest! {
    /// Costs are at most their reservations, as with the policy `strict`: nothing is spent beyond the amount, and a call is refused only
    /// if its reservation does not fit beside what is spent, reserved, held unused or held by runs that are not settled yet.
    #[test]
    fn gateways_never_spend_more_than_the_amount_and_refuse_nothing_below_it(amount in 1..20_000_u64, steps in steps()) {
        let mut gateways: Vec<Simulated> = (1..=3).map(|run| Simulated { run, ..Simulated::default() }).collect();
        let (mut entry, mut record, mut runs) = (LedgerEntry::default(), Recorded::new(), 3);
        for step in steps {
            match step {
                Step::Begin(gateway, money, cost) => {
                    let is_admitted = gateways[gateway].begin(&mut entry, amount, money);
                    if is_admitted {
                        gateways[gateway].open.push((money, money * cost / 8));
                    } else {
                        let own = gateways[gateway].counter.used();
                        let free = amount.saturating_sub(entry.of_others(gateways[gateway].claim().run));
                        prop_assert!(own + money > free, "{own} used and {free} free, {money} refused");
                    }
                }
                Step::End(gateway) => {
                    let simulated = &mut gateways[gateway];
                    if !simulated.open.is_empty() {
                        let (money, cost) = simulated.open.remove(0);
                        simulated.counter.settle(money, cost, 0);
                        record.push((simulated.claim().run, cost));
                        if simulated.counter.is_excessive(amount) {
                            simulated.tidy(&mut entry);
                        }
                    }
                }
                Step::Tidy(gateway) => {
                    if gateways[gateway].counter.is_idle() {
                        gateways[gateway].tidy(&mut entry);
                    }
                }
                Step::Forget(gateway) => {
                    if gateways[gateway].counter.is_void() {
                        gateways[gateway].counter = BudgetCounter::default();
                    }
                }
                Step::Crash(gateway) => {
                    runs += 1;
                    gateways[gateway] = Simulated { run: runs, ..Simulated::default() };
                }
                Step::LostAnswer(gateway, money) => {
                    let simulated = &mut gateways[gateway];
                    let claim = simulated.claim();
                    let _ = simulated.counter.ask(&mut entry, claim, amount, money);
                    // The meter writes an uncertain entry again.
                    simulated.tidy(&mut entry);
                }
                Step::Settle => settle(&mut entry, &gateways, &record),
            }
            let spent: u64 = record.iter().map(|(_, cost)| cost).sum();
            let reserved: u64 = gateways.iter().flat_map(|gateway| &gateway.open).map(|(money, _)| money).sum();
            prop_assert!(entry.of_others(Uuid::nil()) <= amount, "{entry:?} of {amount}");
            prop_assert!(spent + reserved <= amount, "{spent} spent and {reserved} reserved of {amount}");
            for gateway in &gateways {
                let counter = &gateway.counter;
                let unused = counter.granted.saturating_sub(counter.used());
                prop_assert!(unused <= amount / SLICE_DIVISOR, "{unused} unused of {amount}");
            }
        }
        // When all have ended and are settled, the ledger is the record, to the nano-dollar.
        for gateway in &mut gateways {
            runs += 1;
            *gateway = Simulated { run: runs, ..Simulated::default() };
        }
        settle(&mut entry, &gateways, &record);
        prop_assert_eq!(entry.recorded, record.iter().map(|(_, cost)| cost).sum::<u64>());
        prop_assert!(entry.runs.is_empty());
    }

    /// Costs are up to eight times their reservations, as with the policy `finish`: each gateway goes beyond the amount by at most the
    /// excess of the calls that run when its part is used up.
    #[test]
    fn the_excess_is_that_of_calls_that_run(amount in 1..20_000_u64, steps in steps()) {
        let mut gateways: Vec<Simulated> = (1..=3).map(|run| Simulated { run, ..Simulated::default() }).collect();
        let (mut entry, mut spent, mut most_open) = (LedgerEntry::default(), 0, [0_u64; 3]);
        for step in steps {
            match step {
                Step::Begin(gateway, money, cost) => {
                    let simulated = &mut gateways[gateway];
                    let is_admitted = simulated.begin(&mut entry, amount, money);
                    simulated.open.extend(is_admitted.then_some((money, money * (cost + 1) / 2)));
                    most_open[gateway] = most_open[gateway].max(simulated.open.len() as u64);
                }
                Step::End(gateway) if !gateways[gateway].open.is_empty() => {
                    let (money, cost) = gateways[gateway].open.remove(0);
                    gateways[gateway].counter.settle(money, cost, 0);
                    spent += cost;
                }
                Step::Tidy(gateway) => gateways[gateway].tidy(&mut entry),
                _ => {}
            }
            // The greatest reservation is 59, and the greatest cost 265.
            let bound = amount + most_open.iter().sum::<u64>() * (265 - 1);
            prop_assert!(spent <= bound, "{spent} spent of {amount}, bound {bound}");
        }
    }
}

#[test]
fn a_gateway_that_was_cut_off_spends_its_allowance_and_no_more() {
    let (mut gateway, mut entry) = (Simulated { run: 1, ..Simulated::default() }, LedgerEntry::default());
    assert!(gateway.begin(&mut entry, 1000, 990));
    assert!(gateway.counter.borrow(50, 20) && gateway.counter.borrow(50, 30) && !gateway.counter.borrow(50, 20));
    gateway.tidy(&mut entry);
    assert_eq!(entry.of_others(Uuid::nil()), 1040, "the money that was spent without asking counts");
    assert!(!gateway.begin(&mut entry, 1000, 1));
}

#[test]
fn an_amount_that_is_lowered_counts_at_once() {
    let (mut gateway, mut entry) = (Simulated { run: 1, ..Simulated::default() }, LedgerEntry::default());
    assert!(gateway.begin(&mut entry, 100_000, 10));
    assert!(gateway.counter.granted > 300 && gateway.begin(&mut entry, 100_000, 10));
    assert!(!gateway.begin(&mut entry, 20, 1));
}

#[test]
fn a_call_that_reaches_a_new_counter_out_of_order_counts_once() {
    let mut entry = LedgerEntry::default();
    let claim = |since| LedgerClaim { run: Uuid::from_u128(1), gateway: "gateway", since };
    let mut first = BudgetCounter::new(100);
    assert!(first.ask(&mut entry, claim(100), 1000, 10).is_some());
    first.reserve(10);
    first.settle(10, 7, 100);
    first.give_back(&mut entry, claim(100));
    first.note(&entry, claim(100));
    assert!(first.is_void());
    // A call that started at 205 makes a new counter before a call that started at 200 is admitted.
    let mut second = BudgetCounter::new(205);
    second.reserve(10);
    second.reserve(10);
    second.settle(10, 5, 200);
    assert!(second.ask(&mut entry, claim(205), 1000, 10).is_some());
    second.settle(10, 3, 205);
    second.give_back(&mut entry, claim(205));
    assert_eq!(entry.runs[&Uuid::from_u128(1)], LedgerRun { gateway: "gateway".into(), since: 100, granted: 15 });

    // Without an earlier counter, the record has the calls that started before.
    let mut entry = LedgerEntry::default();
    let mut only = BudgetCounter::new(205);
    only.reserve(20);
    only.settle(10, 5, 200);
    only.settle(10, 3, 205);
    only.give_back(&mut entry, claim(205));
    assert_eq!(entry.runs[&Uuid::from_u128(1)], LedgerRun { gateway: "gateway".into(), since: 205, granted: 3 });
}

#[test]
fn a_run_that_was_settled_by_mistake_counts_from_the_same_time_as_before() {
    let mut entry = LedgerEntry::default();
    let claim = |since| LedgerClaim { run: Uuid::from_u128(1), gateway: "gateway", since };
    let mut dropped = BudgetCounter::new(100);
    assert!(dropped.ask(&mut entry, claim(100), 1000, 10).is_some());
    dropped.reserve(10);
    dropped.settle(10, 7, 100);
    dropped.give_back(&mut entry, claim(100));
    let mut counter = BudgetCounter::new(200);
    assert!(counter.ask(&mut entry, claim(200), 1000, 10).is_some());
    // A recorder takes the gateway for lost: the cost of the first call is on the record.
    entry = LedgerEntry { recorded: 7, is_recorded: true, ..LedgerEntry::default() };
    counter.reserve(10);
    counter.settle(10, 3, 200);
    counter.give_back(&mut entry, claim(200));
    assert_eq!(entry.runs[&Uuid::from_u128(1)], LedgerRun { gateway: "gateway".into(), since: 100, granted: 10 });
}
