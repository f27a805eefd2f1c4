//! What a part of the benchmark says: one figure, one line of JSON.

use std::time::Duration;

use serde_json::json;

/// Tells a figure, beside what it is compared with.
pub(crate) fn tell(name: &str, value: f64, unit: &str, baseline: Option<f64>, note: &str) {
    println!("{}", json!({"name": name, "value": value, "unit": unit, "baseline": baseline, "note": note}));
}

/// Tells that a figure could not be measured, and why.
pub(crate) fn tell_none(name: &str, unit: &str, why: &str) {
    println!("{}", json!({"name": name, "value": null, "unit": unit, "baseline": null, "note": why}));
}

/// Tells a person what is going on; not a figure.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// Returns a duration in milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Returns the middle one; of an even number, the lower of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
