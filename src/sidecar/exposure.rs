//! Who can reach the gate, and whether anybody who can may spend or read: what `serve` and `check` say of it.

use super::config::{Config, ConfigError, Secret};
use crate::upstream::Target;

/// Refuses a config that lets in anybody who comes by, unless it says `open = true`: then it tells in words what is open.
pub fn check(config: &Config, target: &Target) -> Result<Vec<String>, ConfigError> {
    if config.admin_token.as_ref().is_some_and(Secret::is_empty) {
        let what = "is empty: set it to something that is hard to guess, or leave it out";
        return Err(ConfigError { place: "admin_token".into(), what: what.into() });
    }
    let mut open = Vec::new();
    let spends = target.has_token() || target.has_gateway_token();
    if !config.listen.ip().is_loopback() && spends && !asks_for_keys(config)? && !config.tls.knows_clients() {
        let what = "anybody who reaches this address can spend the account's money, for the gate has a token of its own and \
                    asks for no keys";
        let mend = "add [[keys]] (`tollgate keys new NAME`), set [tls] client_ca, or listen on a loopback address";
        open.push(("listen", config.listen, what, mend));
    }
    if !config.admin.ip().is_loopback() && config.admin_token.is_none() && !config.admin_tls.knows_clients() {
        let what = "anybody who reaches this address can read the log and empty the cache";
        let mend = "set admin_token (TOLLGATE_ADMIN_TOKEN) or a loopback address";
        open.push(("admin", config.admin, what, mend));
    }
    match open.first() {
        Some((place, address, what, mend)) if !config.open => Err(ConfigError {
            place: (*place).into(),
            what: format!("{address}: {what}; {mend}, or say open = true (TOLLGATE_OPEN) if that is meant"),
        }),
        _ => Ok(open.iter().map(|(place, address, what, mend)| format!("{place} {address}: {what}; {mend}")).collect()),
    }
}

/// The config has keys, or one was made while a gate of it ran.
fn asks_for_keys(config: &Config) -> Result<bool, ConfigError> {
    Ok(!config.keys.is_empty() || super::key_store::is_any_made(config).map_err(super::spending::wrong_store)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TLS: &str = "cert = \"a\"\nkey = \"b\"\n";
    const KEY: &str = "[[keys]]\nname = \"a\"\nsha256 = \"\"\n";

    fn said(text: &str, has_token: bool) -> Result<usize, String> {
        let config = Config::parse(text, "t").unwrap();
        let target = if has_token { Target::default().with_token("t").unwrap() } else { Target::default() };
        check(&config, &target).map(|warnings| warnings.len()).map_err(|error| error.place)
    }

    #[test]
    fn an_open_relay_has_to_be_meant() {
        for (text, has_token, result) in [
            ("", true, Ok(0)),
            ("listen = \"0.0.0.0:1\"", false, Ok(0)),
            ("listen = \"0.0.0.0:1\"", true, Err("listen".to_owned())),
            ("listen = \"[::]:1\"", true, Err("listen".to_owned())),
            ("listen = \"192.168.1.2:1\"", true, Err("listen".to_owned())),
            ("listen = \"[::1]:1\"", true, Ok(0)),
            ("listen = \"0.0.0.0:1\"\nopen = true", true, Ok(1)),
            ("admin = \"0.0.0.0:1\"", false, Err("admin".to_owned())),
            ("admin = \"0.0.0.0:1\"\nadmin_token = \"s\"", false, Ok(0)),
            ("admin = \"0.0.0.0:1\"\nlisten = \"0.0.0.0:2\"\nopen = true", true, Ok(2)),
            (&*format!("listen = \"0.0.0.0:1\"\n[tls]\n{TLS}"), true, Err("listen".to_owned())),
            (&*format!("listen = \"0.0.0.0:1\"\n[tls]\n{TLS}client_ca = \"c\""), true, Ok(0)),
            (&*format!("admin = \"0.0.0.0:1\"\n[admin_tls]\n{TLS}client_ca = \"c\""), true, Ok(0)),
            ("admin_token = \"\"", false, Err("admin_token".to_owned())),
            ("admin_token = \"  \"\nopen = true", false, Err("admin_token".to_owned())),
        ] {
            assert_eq!(said(text, has_token), result, "{text}, {has_token}");
        }
        assert_eq!(said(&format!("listen = \"0.0.0.0:1\"\n{KEY}"), true), Ok(0));
    }
}
