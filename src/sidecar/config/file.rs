//! All that a config has: each table is a file of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::aliases::AliasTable;
use super::cache::Cache;
use super::catalogue::CatalogueSettings;
use super::compat::Compat;
use super::cors::{Cors, Host};
use super::limits::{Limits, Retry};
use super::log::Log;
use super::otel::Otel;
use super::records::Records;
use super::replicas::Replicas;
use super::reservations::Reservations;
use super::secret::Secret;
use super::sockets::Sockets;
use super::timeouts::Timeouts;
use super::tls::Tls;
use super::upstream::Upstream;
use super::webhook::Webhook;
use crate::catalogue::Entry;
use crate::layers::budget::Rule;
use crate::layers::identify::keys::Key;

/// The whole config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the live page, the log API, `/metrics`, `/healthz` and `/readyz` are: for operators alone.
    pub admin: SocketAddr,
    /// Who looks at the page, the log, the budgets or the cache there must know this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token: Option<Secret>,
    /// Anybody who reaches the gate is meant to use it: needed where it listens beyond loopback with a token of its own and no
    /// `[[keys]]`, or has its admin port there without an `admin_token`.
    pub open: bool,
    /// The names that requests may have as their `Host`, besides loopback's own. Where it is empty and `listen` is no loopback
    /// address, clients may use any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<Host>,
    /// Threads that serve; 0 is one a core.
    pub workers: usize,
    /// The largest request body.
    pub max_body: ByteSize,
    /// What all large bodies (over 64 KiB) may take in memory together: requests, replies that are taken in, and answers on
    /// their way into the cache. An eighth of what the machine or its control group has, where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_memory: Option<ByteSize>,
    /// Connections that are open at once. Where more come, those without a call make room. Held to what the limit of open
    /// files allows.
    pub max_connections: usize,
    /// Connections that one address may have open at once (in IPv6 one /64); 0 sets no bound.
    pub max_connections_per_address: usize,
    /// How long the gate waits for a client.
    pub timeouts: Timeouts,
    /// How long running calls may go on after SIGTERM.
    #[serde(with = "super::duration")]
    pub shutdown_timeout: Duration,
    /// A Unix socket on which the next `tollgate serve` takes this one's ports over, so that no connection finds nobody: the path of a
    /// file that is made. Without it a port is free only once its gate has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover_path: Option<PathBuf>,
    /// The certificates of the clients' port.
    pub tls: Tls,
    /// The certificates of the admin port.
    pub admin_tls: Tls,
    /// Read the file again when it changes, besides SIGHUP, `tollgate reload` and `POST /reload` on the admin port.
    pub watch_config: bool,
    /// Web pages that may call.
    pub cors: Cors,
    /// What is logged, and how.
    pub log: Log,
    /// Where calls go.
    pub upstream: Upstream,
    /// How often models may be called, and how long a call may wait for its turn.
    pub limits: Limits,
    /// How WebSockets are held.
    pub sockets: Sockets,
    /// What is tried again, and how.
    pub retry: Retry,
    /// What OpenAI's clients get.
    pub compat: Compat,
    /// What repeats are answered from.
    pub cache: Cache,
    /// What the account pays for.
    pub account: Account,
    /// What all budgets have in common.
    pub reservations: Reservations,
    /// What is kept of each call.
    pub records: Records,
    /// Other gates before the same account.
    pub replicas: Replicas,
    /// Clients' own keys; without any, no key is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// A file for keys that are made while the gate runs, by `tollgate keys` and `/keys` on the admin port; an empty one is none.
    /// `tollgate serve` keeps `tollgate.keys.db` where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_path: Option<PathBuf>,
    /// What may be spent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Rule>,
    /// Who is told what has happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// Where traces, metrics and the log go besides.
    pub otel: Otel,
    /// Where models and prices come from besides the built-in table.
    pub catalogue: CatalogueSettings,
    /// Models beyond or over the built-in table and the vendor's list, by name.
    pub models: BTreeMap<String, Entry>,
    /// Other names of models on the short routes; one `*` stands for any text, `default` for every unknown name and none.
    #[serde(skip_serializing_if = "AliasTable::is_empty")]
    pub aliases: AliasTable,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9787)),
            admin_token: None,
            open: false,
            allowed_hosts: Vec::new(),
            workers: 0,
            max_body: ByteSize::mib(32),
            max_body_memory: None,
            max_connections: 10_000,
            max_connections_per_address: 0,
            timeouts: Timeouts::default(),
            shutdown_timeout: Duration::from_secs(30),
            handover_path: None,
            tls: Tls::default(),
            admin_tls: Tls::default(),
            watch_config: false,
            cors: Cors::default(),
            log: Log::default(),
            upstream: Upstream::default(),
            limits: Limits::default(),
            sockets: Sockets::default(),
            retry: Retry::default(),
            compat: Compat::default(),
            cache: Cache::default(),
            account: Account::default(),
            reservations: Reservations::default(),
            records: Records::default(),
            replicas: Replicas::default(),
            keys: Vec::new(),
            keys_path: None,
            budgets: Vec::new(),
            webhooks: Vec::new(),
            otel: Otel::default(),
            catalogue: CatalogueSettings::default(),
            models: BTreeMap::new(),
            aliases: AliasTable::default(),
        }
    }
}

impl Config {
    /// Where the next gate takes this one's ports over, if it may.
    pub fn handover_path(&self) -> Option<&Path> {
        self.handover_path.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// Where keys are kept that are made while the gate runs, if they are.
    pub fn keys_path(&self) -> Option<&Path> {
        self.keys_path.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}
