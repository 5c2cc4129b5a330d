//! Which server a store is now: the one that its URL names, the primary that Sentinels name, or the node of a cluster that has the keys.

use std::time::Duration;

use parking_lot::Mutex;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult,
};
use tokio::time::timeout;

use super::store::Away;

/// A store's URL cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(pub(super) String);

/// The way to a store.
pub(super) struct Route {
    /// With Sentinels the first of them stands for the server that they name.
    info: ConnectionInfo,
    sentinels: Option<Sentinels>,
    /// A node of a cluster has said that the keys are at this one.
    moved: Mutex<Option<ConnectionAddr>>,
}

/// Who is asked which server is the primary.
struct Sentinels {
    hosts: Vec<(String, u16)>,
    primary: String,
}

const SENTINEL_PORT: u16 = 26_379;
/// A connection that nothing is heard of is given up by the system, too.
const UNHEARD: Duration = Duration::from_secs(2);

// === impl Route ===

impl Route {
    /// By a URL such as `redis://:password@host:6379/0`, or `redis+sentinel://:password@host:26379,other:26379/primary/0`; with `valkey`
    /// and `rediss`, too.
    pub(super) fn new(url: &str) -> Result<Self, LinkError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let plain = match scheme.trim_end_matches("+sentinel") {
            "valkey" => "redis",
            "valkeys" => "rediss",
            other => other,
        };
        let (sentinels, url) = if scheme.ends_with("+sentinel") {
            let (sentinels, rest) = Sentinels::of(rest)?;
            (Some(sentinels), format!("{plain}://{rest}"))
        } else if scheme.is_empty() {
            (None, url.to_owned())
        } else {
            (None, format!("{plain}://{rest}"))
        };
        // The error must not repeat the URL, which may hold a password.
        let wrong = |error: RedisError| LinkError(format!("is no URL of a store: {}", error.category()));
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(UNHEARD);
        let info = url.as_str().into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
        // What is wrong with it is told at once.
        Client::open(info.clone()).map_err(wrong)?;
        Ok(Self { info, sentinels, moved: Mutex::new(None) })
    }

    pub(super) fn address(&self) -> &ConnectionAddr {
        self.info.addr()
    }

    /// The server that is to be asked now.
    pub(super) async fn client(&self, within: Duration) -> Result<Client, Away> {
        // A node that the keys have left is not asked for ever: the next try goes by the URL again.
        let moved = self.moved.lock().take();
        let info = match (moved, &self.sentinels) {
            (Some(moved), _) => self.info.clone().set_addr(moved),
            (None, Some(sentinels)) => self.at(&sentinels.ask(&self.info, within).await?),
            (None, None) => self.info.clone(),
        };
        Client::open(info).map_err(|error| Away(error.to_string()))
    }

    /// Looks at an error, whether it says that the keys are elsewhere.
    pub(super) fn note(&self, error: &RedisError) -> bool {
        let Some((host, port)) = error.redirect_node().and_then(|(node, _)| node.rsplit_once(':')) else {
            return false;
        };
        let Ok(port) = port.parse() else { return false };
        // A node that does not know its own address leaves it out.
        let host = match (host, self.info.addr()) {
            ("", ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) => host,
            (host, _) => host,
        };
        *self.moved.lock() = Some(addressed(self.info.addr(), host, port));
        true
    }

    fn at(&self, (host, port): &(String, u16)) -> ConnectionInfo {
        self.info.clone().set_addr(addressed(self.info.addr(), host, *port))
    }
}

/// Another host, with TLS as before.
fn addressed(as_before: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    match as_before {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host.into(), port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host.into(), port),
    }
}

// === impl Sentinels ===

impl Sentinels {
    /// Of `user:password@host:26379,other/primary/0`, and what of it is a server's URL.
    fn of(rest: &str) -> Result<(Self, String), LinkError> {
        let wrong = |what: &str| {
            LinkError(format!("{what}; with Sentinels it is like redis+sentinel://host:26379,other:26379/mymaster/0"))
        };
        let (user, places) = rest.rsplit_once('@').map_or(("", rest), |(user, places)| (user, places));
        let (hosts, path) = places.split_once('/').unwrap_or((places, ""));
        let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
        if primary.is_empty() {
            return Err(wrong("does not say which primary the Sentinels know"));
        }
        let host = |host: &str| match host.rsplit_once(':') {
            Some((host, port)) => port.parse().ok().map(|port| (host.to_owned(), port)),
            None => Some((host.to_owned(), SENTINEL_PORT)),
        };
        let hosts: Option<Vec<_>> =
            hosts.split(',').map(|one| host(one).filter(|(host, _)| !host.is_empty())).collect();
        let hosts = hosts.ok_or_else(|| wrong("has a Sentinel whose address cannot be"))?;
        let first = hosts.first().map(|(host, port)| format!("{host}:{port}")).unwrap_or_default();
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let primary = primary.to_owned();
        Ok((Self { hosts, primary }, format!("{user}{first}/{database}")))
    }

    /// The primary, as the first Sentinel that answers knows it.
    async fn ask(&self, server: &ConnectionInfo, within: Duration) -> Result<(String, u16), Away> {
        let mut why = Vec::new();
        for (host, port) in &self.hosts {
            let sentinel = server.clone().set_addr(addressed(server.addr(), host, *port));
            let open = sentinel.clone().set_redis_settings(RedisConnectionInfo::default());
            let asked = async {
                let told = match self.ask_one(open, within).await {
                    // Some have the servers' password, and others none.
                    Err(error) if error.code() == Some("NOAUTH") => self.ask_one(sentinel, within).await,
                    told => told,
                };
                told.map_err(|error| error.to_string())
            };
            match timeout(within * 4, asked).await.unwrap_or_else(|_| Err(format!("no answer within {:?}", within * 4)))
            {
                Ok(Some(primary)) => return Ok(primary),
                Ok(None) => why.push(format!("{host}:{port} knows no primary {:?}", self.primary)),
                Err(error) => why.push(format!("{host}:{port}: {error}")),
            }
        }
        Err(Away(format!("no Sentinel says where the primary is: {}", why.join(", "))))
    }

    async fn ask_one(&self, sentinel: ConnectionInfo, within: Duration) -> RedisResult<Option<(String, u16)>> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(within * 4)).set_response_timeout(Some(within));
        let mut connection = Client::open(sentinel)?.get_multiplexed_async_connection_with_config(&config).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(&self.primary);
        command.query_async(&mut connection).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_or_sentinels() {
        let address =
            |url: &str| Route::new(url).map(|route| route.address().to_string()).map_err(|error| error.to_string());
        assert_eq!(address("valkey://:secret@one:7000/2").unwrap(), "one:7000");
        let route = Route::new("rediss+sentinel://user:pa@ss@one,two:7/mymaster/3").unwrap();
        let sentinels = route.sentinels.as_ref().unwrap();
        assert_eq!(sentinels.hosts, [("one".to_owned(), SENTINEL_PORT), ("two".to_owned(), 7)]);
        assert_eq!(sentinels.primary, "mymaster");
        assert_eq!((route.info.redis_settings().db(), route.info.redis_settings().username()), (3, Some("user")));
        let at = route.at(&("primary".into(), 6379));
        assert!(matches!(at.addr(), ConnectionAddr::TcpTls { host, port: 6379, .. } if host == "primary"));
        for (url, what) in [
            ("redis+sentinel://:secret@one:26379", "which primary"),
            ("redis+sentinel://one:port/mymaster", "whose address cannot be"),
            ("http://one", "is no URL of a store"),
        ] {
            let error = address(url).unwrap_err();
            assert!(error.contains(what) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
