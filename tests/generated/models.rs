//! Which models are asked, by what they do.

use tollgate::catalogue::{Catalogue, Task};

/// The models that are asked for a kind of request, those that the vendor has switched off left out.
pub fn of(tasks: &[Task]) -> Vec<String> {
    let catalogue = Catalogue::default();
    let models = catalogue.models();
    let asked = models.iter().filter(|model| tasks.contains(&model.task) && model.deprecated.is_none());
    asked.map(|model| model.id.to_string()).collect()
}
