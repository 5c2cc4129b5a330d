//! Figures where a number belongs: numbers, and what clients write instead of them.

use proptest::prelude::*;

use crate::json::Json;

/// A limit of tokens, a count of answers, a picture's side or steps.
pub fn figure(usual: std::ops::Range<u32>) -> BoxedStrategy<Json> {
    let number = usual.clone().prop_map(|number| number.to_string());
    let written = usual.clone().prop_flat_map(|number| {
        prop_oneof![
            Just(format!("\"{number}\"")),
            Just(format!("\" {number} \"")),
            Just(format!("\"{number}.0\"")),
            Just(format!("\"{number}px\"")),
            Just(format!("\"{number:#x}\"")),
            Just(format!("{number}.0")),
            Just(format!("{number}.9")),
            Just(format!("{number}e0")),
            Just(format!("[{number}]")),
            Just(format!("-{number}")),
            Just(format!("\"1e{}\"", number % 7)),
        ]
    });
    prop_oneof![12 => number, 4 => written, 3 => prop::sample::select(&ODD[..]).prop_map(str::to_owned)]
        .prop_map(Json::raw)
        .boxed()
}

const ODD: [&str; 17] = [
    "null",
    "0",
    "-0",
    "-1",
    "1e21",
    "1e999",
    "-1e999",
    "0.5",
    "\"\"",
    "\"many\"",
    "true",
    "false",
    "[]",
    "{}",
    "[1,2]",
    "4294967296",
    "9007199254740993",
];

/// The same in a form, where all is text.
pub fn in_form(usual: std::ops::Range<u32>) -> BoxedStrategy<String> {
    let number = usual.prop_map(|number| number.to_string());
    prop_oneof![
        8 => number.clone(),
        2 => number.clone().prop_map(|text| format!(" {text}\r\n")),
        1 => number.prop_map(|text| format!("{text}.5")),
        1 => prop::sample::select(vec!["", "0", "-1", "1e3", "0x200", "Infinity", "x", "null"]).prop_map(str::to_owned),
    ]
    .boxed()
}
