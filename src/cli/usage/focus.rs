//! The FinOps Foundation's cost and usage columns, FOCUS 1.2, as cost tools ingest them.
//!
//! A row is a day (UTC, as the vendor bills), an account, a model and a client's key, whose labels are `Tags`. Costs are at the vendor's list price
//! ($0.011 per 1,000 neurons, pricing page of 2026-08-28) before its free allocation, which belongs to no call. Columns that
//! do not apply are empty: there are no regions, commitments, capacity reservations or contracts. `Provider`, `Publisher`,
//! `InvoiceIssuer` and `ResourceID` are 1.0's names for the same columns, which its validator still asks for; what begins
//! with `x_` is ours.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::files::failed;
use super::format::Kind::{self, Count, Decimal, Moment, Text};
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

/// The labels of keys, by their names.
type Labels = BTreeMap<String, BTreeMap<String, String>>;
type Cell = fn(&Charge<'_>) -> String;

/// Every column and what stands in it.
const COLUMNS: [(&str, Kind, Cell); 66] = [
    ("AvailabilityZone", Text, empty),
    ("BilledCost", Decimal, cost),
    ("BillingAccountId", Text, |charge| charge.account.to_owned()),
    ("BillingAccountName", Text, empty),
    ("BillingAccountType", Text, |_| "Cloudflare account".into()),
    ("BillingCurrency", Text, dollars),
    ("BillingPeriodEnd", Moment, |charge| charge.month_end.clone()),
    ("BillingPeriodStart", Moment, |charge| charge.month_start.clone()),
    ("CapacityReservationId", Text, empty),
    ("CapacityReservationStatus", Text, empty),
    ("ChargeCategory", Text, |_| "Usage".into()),
    ("ChargeClass", Text, empty),
    ("ChargeDescription", Text, |charge| format!("{SERVICE} {}", charge.model)),
    ("ChargeFrequency", Text, |_| "Usage-Based".into()),
    ("ChargePeriodEnd", Moment, |charge| charge.day_end.clone()),
    ("ChargePeriodStart", Moment, |charge| charge.day_start.clone()),
    ("CommitmentDiscountCategory", Text, empty),
    ("CommitmentDiscountId", Text, empty),
    ("CommitmentDiscountName", Text, empty),
    ("CommitmentDiscountQuantity", Decimal, empty),
    ("CommitmentDiscountStatus", Text, empty),
    ("CommitmentDiscountType", Text, empty),
    ("CommitmentDiscountUnit", Text, empty),
    ("ConsumedQuantity", Decimal, |charge| charge.line.neurons.decimal()),
    ("ConsumedUnit", Text, |_| "Neurons".into()),
    ("ContractedCost", Decimal, cost),
    ("ContractedUnitPrice", Decimal, unit_price),
    ("EffectiveCost", Decimal, cost),
    ("InvoiceId", Text, empty),
    ("InvoiceIssuer", Text, vendor),
    ("InvoiceIssuerName", Text, vendor),
    ("ListCost", Decimal, cost),
    ("ListUnitPrice", Decimal, unit_price),
    ("PricingCategory", Text, |_| "Standard".into()),
    ("PricingCurrency", Text, dollars),
    ("PricingCurrencyContractedUnitPrice", Decimal, unit_price),
    ("PricingCurrencyEffectiveCost", Decimal, cost),
    ("PricingCurrencyListUnitPrice", Decimal, unit_price),
    ("PricingQuantity", Decimal, |charge| thousands(charge.line.neurons)),
    ("PricingUnit", Text, |_| PRICING_UNIT.into()),
    ("Provider", Text, vendor),
    ("ProviderName", Text, vendor),
    ("Publisher", Text, vendor),
    ("PublisherName", Text, vendor),
    ("RegionId", Text, empty),
    ("RegionName", Text, empty),
    ("ResourceID", Text, model),
    ("ResourceId", Text, model),
    ("ResourceName", Text, model),
    ("ResourceType", Text, |_| "Model".into()),
    ("ServiceCategory", Text, |_| "AI and Machine Learning".into()),
    ("ServiceName", Text, |_| SERVICE.into()),
    ("ServiceSubcategory", Text, |_| "Generative AI".into()),
    ("SkuId", Text, model),
    ("SkuMeter", Text, |_| "Neurons".into()),
    ("SkuPriceDetails", Text, empty),
    ("SkuPriceId", Text, model),
    ("SubAccountId", Text, |charge| charge.key.to_owned()),
    ("SubAccountName", Text, |charge| charge.key.to_owned()),
    ("SubAccountType", Text, |charge| if charge.key.is_empty() { String::new() } else { "Tollgate key".into() }),
    ("Tags", Text, tags),
    ("x_CachedInputTokens", Count, |charge| charge.line.cached_input_tokens.to_string()),
    ("x_Calls", Count, |charge| charge.line.calls.to_string()),
    ("x_InputTokens", Count, |charge| charge.line.input_tokens.to_string()),
    ("x_OutputTokens", Count, |charge| charge.line.output_tokens.to_string()),
    ("x_SavedNeurons", Decimal, |charge| charge.line.saved.decimal()),
];

/// One row, before it is written.
struct Charge<'a> {
    line: &'a Line,
    account: &'a str,
    model: &'a str,
    key: &'a str,
    /// Those of the key, as it has them now.
    labels: Option<&'a BTreeMap<String, String>>,
    day_start: String,
    day_end: String,
    month_start: String,
    month_end: String,
}

/// The rows of a span, with their head.
pub(super) fn csv(archive: &Archive, span: &Span, labels: &Labels) -> Result<String, Failure> {
    let head = COLUMNS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    rows_as_csv(std::iter::once(head).chain(rows(archive, span, labels)?))
}

/// The same rows, column by column, with the type of each.
#[cfg(feature = "parquet")]
pub(super) fn parquet(archive: &Archive, span: &Span, labels: &Labels) -> Result<Vec<u8>, Failure> {
    let columns: Vec<_> = COLUMNS.iter().map(|(name, kind, _)| (*name, *kind)).collect();
    let written = super::parquet::write("focus", &columns, &rows(archive, span, labels)?);
    written.map_err(|why| Failure::Failed(format!("the table cannot be written: {why}")))
}

fn rows(archive: &Archive, span: &Span, labels: &Labels) -> Result<Vec<Vec<String>>, Failure> {
    if span.zone != TimeZone::UTC {
        return Err(Failure::Usage(
            "--format focus has days of UTC, as the vendor bills: leave out --time-zone".into(),
        ));
    }
    let by = [Group::Day, Group::Account, Group::Model, Group::Key];
    let lines = archive.usage(span.from_ms, span.until_ms, &by, &span.zone).map_err(failed)?;
    let row = |charge: Charge<'_>| COLUMNS.iter().map(|(.., cell)| cell(&charge)).collect();
    Ok(lines.iter().filter_map(|line| Charge::of(line, labels)).map(row).collect())
}

impl<'a> Charge<'a> {
    fn of(line: &'a Line, labels: &'a Labels) -> Option<Self> {
        let [day, account, model, key] = line.names.as_slice() else { return None };
        let day: Date = day.parse().ok()?;
        let month = day.first_of_month();
        Some(Self {
            line,
            account,
            model,
            key,
            labels: labels.get(key),
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

/// The key by its name, and its labels.
fn tags(charge: &Charge<'_>) -> String {
    let own = charge.labels.into_iter().flatten().map(|(name, value)| (name.clone(), json!(value)));
    let key = Some(("key".to_owned(), json!(charge.key))).filter(|_| !charge.key.is_empty());
    Value::Object(own.chain(key).collect()).to_string()
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
