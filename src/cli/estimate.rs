//! `tollgate estimate`

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::settings::{Settings, variables};
use super::{Failure, print};
use crate::call::Endpoint;
use crate::catalogue::Task;
use crate::layers::identify::measure;
use crate::neurons::Neurons;
use crate::receipt;

#[derive(Args, Debug)]
pub(super) struct Estimate {
    #[command(flatten)]
    settings: Settings,
    /// The model, such as @cf/meta/llama-3.2-1b-instruct
    #[arg(long, value_name = "M")]
    model: String,
    /// The request's body; - is standard input
    #[arg(value_name = "BODY", default_value = "-")]
    body: PathBuf,
    /// The body's type, where it is not JSON
    #[arg(long, value_name = "TYPE", default_value = "")]
    content_type: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Estimate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load(&variables())?;
        let catalogue = self.settings.catalogue(&config);
        let Some(model) = catalogue.get(&self.model) else {
            return Err(Failure::Usage(format!(
                "no model {:?} in the catalogue; `tollgate models` lists them",
                self.model
            )));
        };
        let body = self.read()?;
        let ask =
            measure(&body, &self.content_type, Endpoint::Run).map_err(|error| Failure::Usage(error.to_string()))?;
        let estimate = receipt::Estimate::new(&ask, &model);
        if self.json {
            return print(&format!("{:#}\n", to_json(&self.model, &estimate)));
        }
        print(&in_words(&self.model, &estimate, model.task, model.prices.is_empty()))
    }

    fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let read = if self.body.as_os_str() == "-" {
            std::io::stdin().lock().read_to_end(&mut body).map(|_| body)
        } else {
            std::fs::read(&self.body)
        };
        read.map_err(|error| Failure::Usage(format!("{}: {error}", self.body.display())))
    }
}

fn to_json(model: &str, estimate: &receipt::Estimate) -> serde_json::Value {
    let cost = |neurons: Neurons| json!({"neurons": neurons.as_f64(), "usd": neurons.usd()});
    json!({
        "model": model,
        "input_tokens": estimate.input_tokens,
        "likely": cost(estimate.likely),
        "at_most": estimate.upper.map(cost),
    })
}

fn in_words(model: &str, estimate: &receipt::Estimate, task: Task, no_price: bool) -> String {
    let mut text = format!("{model} ({})\n", task.label());
    if no_price {
        return text + "no published price: it costs what the vendor reports\n";
    }
    if estimate.input_tokens > 0 {
        text += &format!("input    about {} tokens\n", estimate.input_tokens);
    }
    let cost = |neurons: Neurons| format!("{neurons} neurons, ${:.9}", neurons.usd());
    let at_most = estimate.upper.map_or_else(|| "nothing bounds it".to_owned(), cost);
    text + &format!("likely   {}\nat most  {at_most}\n", cost(estimate.likely))
}
