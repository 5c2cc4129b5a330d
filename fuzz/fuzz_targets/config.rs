//! Configs. What is taken can be shown, and what is shown is taken.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::sidecar::config::Config;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text, "fuzz")
        && let Ok(shown) = config.show()
    {
        if let Err(error) = Config::parse(&shown, "shown") {
            panic!("{error}: {shown}");
        }
    }
});
