//! The FinOps Foundation's cost and usage columns, FOCUS 1.2, as cost tools ingest them.
//!
//! A row is a day (UTC, as the vendor bills), an account, a model and a client's key. Costs are at the vendor's list price
//! ($0.011 per 1,000 neurons, pricing page of 2026-08-28) before its free allocation, which belongs to no call. Columns that
//! do not apply are empty: there are no regions, commitments, capacity reservations or contracts. `Provider`, `Publisher`,
//! `InvoiceIssuer` and `ResourceID` are 1.0's names for the same columns, which its validator still asks for; what begins
//! with `x_` is ours.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;

use super::files::failed;
use super::format::rows_as_csv;
use super::span::Span;
use crate::cli::Failure;
use crate::neurons::Neurons;
use crate::readers::records::{Archive, Group, Usage as Line};

const VENDOR: &str = "Cloudflare";
const SERVICE: &str = "Workers AI";
/// The vendor's own pricing unit and what it costs.
const PRICING_UNIT: &str = "1000 Neurons";
const USD_PER_UNIT: &str = "0.011";

type Cell = fn(&Charge<'_>) -> String;

/// Every column and what stands in it.
const COLUMNS: [(&str, Cell); 66] = [
    ("AvailabilityZone", empty),
    ("BilledCost", cost),
    ("BillingAccountId", |charge| charge.account.to_owned()),
    ("BillingAccountName", empty),
    ("BillingAccountType", |_| "Cloudflare account".into()),
    ("BillingCurrency", dollars),
    ("BillingPeriodEnd", |charge| charge.month_end.clone()),
    ("BillingPeriodStart", |charge| charge.month_start.clone()),
    ("CapacityReservationId", empty),
    ("CapacityReservationStatus", empty),
    ("ChargeCategory", |_| "Usage".into()),
    ("ChargeClass", empty),
    ("ChargeDescription", |charge| format!("{SERVICE} {}", charge.model)),
    ("ChargeFrequency", |_| "Usage-Based".into()),
    ("ChargePeriodEnd", |charge| charge.day_end.clone()),
    ("ChargePeriodStart", |charge| charge.day_start.clone()),
    ("CommitmentDiscountCategory", empty),
    ("CommitmentDiscountId", empty),
    ("CommitmentDiscountName", empty),
    ("CommitmentDiscountQuantity", empty),
    ("CommitmentDiscountStatus", empty),
    ("CommitmentDiscountType", empty),
    ("CommitmentDiscountUnit", empty),
    ("ConsumedQuantity", |charge| charge.line.neurons.decimal()),
    ("ConsumedUnit", |_| "Neurons".into()),
    ("ContractedCost", cost),
    ("ContractedUnitPrice", unit_price),
    ("EffectiveCost", cost),
    ("InvoiceId", empty),
    ("InvoiceIssuer", vendor),
    ("InvoiceIssuerName", vendor),
    ("ListCost", cost),
    ("ListUnitPrice", unit_price),
    ("PricingCategory", |_| "Standard".into()),
    ("PricingCurrency", dollars),
    ("PricingCurrencyContractedUnitPrice", unit_price),
    ("PricingCurrencyEffectiveCost", cost),
    ("PricingCurrencyListUnitPrice", unit_price),
    ("PricingQuantity", |charge| thousands(charge.line.neurons)),
    ("PricingUnit", |_| PRICING_UNIT.into()),
    ("Provider", vendor),
    ("ProviderName", vendor),
    ("Publisher", vendor),
    ("PublisherName", vendor),
    ("RegionId", empty),
    ("RegionName", empty),
    ("ResourceID", model),
    ("ResourceId", model),
    ("ResourceName", model),
    ("ResourceType", |_| "Model".into()),
    ("ServiceCategory", |_| "AI and Machine Learning".into()),
    ("ServiceName", |_| SERVICE.into()),
    ("ServiceSubcategory", |_| "Generative AI".into()),
    ("SkuId", model),
    ("SkuMeter", |_| "Neurons".into()),
    ("SkuPriceDetails", empty),
    ("SkuPriceId", model),
    ("SubAccountId", |charge| charge.key.to_owned()),
    ("SubAccountName", |charge| charge.key.to_owned()),
    ("SubAccountType", |charge| if charge.key.is_empty() { String::new() } else { "Tollgate key".into() }),
    ("Tags", |charge| if charge.key.is_empty() { "{}".into() } else { json!({"key": charge.key}).to_string() }),
    ("x_CachedInputTokens", |charge| charge.line.cached_input_tokens.to_string()),
    ("x_Calls", |charge| charge.line.calls.to_string()),
    ("x_InputTokens", |charge| charge.line.input_tokens.to_string()),
    ("x_OutputTokens", |charge| charge.line.output_tokens.to_string()),
    ("x_SavedNeurons", |charge| charge.line.saved.decimal()),
];

/// One row, before it is written.
struct Charge<'a> {
    line: &'a Line,
    account: &'a str,
    model: &'a str,
    key: &'a str,
    day_start: String,
    day_end: String,
    month_start: String,
    month_end: String,
}

/// The rows of a span, with their head.
pub(super) fn csv(archive: &Archive, span: &Span) -> Result<String, Failure> {
    if span.zone != TimeZone::UTC {
        return Err(Failure::Usage(
            "--format focus has days of UTC, as the vendor bills: leave out --time-zone".into(),
        ));
    }
    let by = [Group::Day, Group::Account, Group::Model, Group::Key];
    let lines = archive.usage(span.from_ms, span.until_ms, &by, &span.zone).map_err(failed)?;
    let head = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let rows =
        lines.iter().filter_map(Charge::of).map(|charge| COLUMNS.iter().map(|(_, cell)| cell(&charge)).collect());
    rows_as_csv(std::iter::once(head).chain(rows))
}

impl<'a> Charge<'a> {
    fn of(line: &'a Line) -> Option<Self> {
        let [day, account, model, key] = line.names.as_slice() else { return None };
        let day: Date = day.parse().ok()?;
        let month = day.first_of_month();
        Some(Self {
            line,
            account,
            model,
            key,
            day_start: midnight(day),
            day_end: midnight(day.tomorrow().ok()?),
            month_start: midnight(month),
            month_end: midnight(month.last_of_month().tomorrow().ok()?),
        })
    }
}

fn midnight(day: Date) -> String {
    format!("{day}T00:00:00Z")
}

fn empty(_: &Charge<'_>) -> String {
    String::new()
}

fn cost(charge: &Charge<'_>) -> String {
    charge.line.neurons.usd_exact()
}

fn dollars(_: &Charge<'_>) -> String {
    "USD".into()
}

fn unit_price(_: &Charge<'_>) -> String {
    USD_PER_UNIT.into()
}

fn vendor(_: &Charge<'_>) -> String {
    VENDOR.into()
}

fn model(charge: &Charge<'_>) -> String {
    charge.model.to_owned()
}

/// In thousands of neurons, exactly.
fn thousands(neurons: Neurons) -> String {
    let (whole, rest) = (neurons.micro() / 1_000_000_000, neurons.micro() % 1_000_000_000);
    format!("{whole}.{rest:09}")
}
