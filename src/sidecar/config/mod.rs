//! What an operator sets: one TOML file, `TOLLGATE_…` variables over it, flags over those.
//!
//! Every key may be left out. A key that is not known is an error, and so is a value that cannot be; each is told with file,
//! line, column and the mend. Secrets are not in the file: the config names the variables that hold them.
//!
//! A table of the file is a file here. They are settings alone: what is made of them stands with who makes it.

mod account;
mod aliases;
mod cache;
mod catalogue;
mod compat;
mod cors;
mod duration;
mod error;
mod file;
mod limits;
mod load;
mod log;
mod otel;
mod records;
mod replicas;
mod reservations;
mod secret;
mod sockets;
mod timeouts;
mod tls;
mod upstream;
mod variables;
mod webhook;

pub use self::account::{Account, Billing};
pub use self::aliases::AliasTable;
pub use self::cache::{Cache, ModelCache, SemanticCache};
pub use self::catalogue::CatalogueSettings;
pub use self::compat::{Compat, RefusalStatus};
pub use self::cors::{Cors, Host, HostError, Origin, OriginError};
pub use self::error::ConfigError;
pub use self::file::Config;
pub use self::limits::{Limits, Quota, Retry};
pub use self::load::default_file;
pub use self::log::{Log, LogFormat};
pub use self::otel::Otel;
pub use self::records::Records;
pub(super) use self::replicas::LEAST_SECRET_BYTES;
pub use self::replicas::{Replicas, StoreUrl};
pub use self::reservations::Reservations;
pub use self::secret::Secret;
pub use self::sockets::Sockets;
pub use self::timeouts::Timeouts;
pub use self::tls::Tls;
pub use self::upstream::{BaseUrl, Upstream};
pub use self::variables::Variables;
pub(super) use self::variables::variable;
pub use self::webhook::{Kind, Webhook, WebhookUrl};
