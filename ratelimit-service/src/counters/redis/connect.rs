//! Ways to a Redis server: one server, the master a Sentinel names, or a Cluster; with or without TLS.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionInfo, IntoConnectionInfo as _, RedisError,
    TlsCertificates, TlsMode, Value,
};
use tollgate_runtime::config::Secret;

/// Commands that may be outstanding on one connection.
const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");
/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Which server, and how it is found.
#[derive(Debug, Clone)]
pub struct Target {
    /// `redis://` or `rediss://`; of a Sentinel or a Cluster, one of its nodes.
    pub url: Secret,
    /// Further nodes of it.
    pub nodes: Vec<Secret>,
    /// How the nodes belong together.
    pub topology: Topology,
    /// Certificates, where the system's do not do.
    pub tls: TlsFiles,
}

/// How the nodes belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    #[default]
    Single,
    /// Sentinels that know the master of this name; `password` is the Sentinels' own.
    Sentinel {
        /// The master's name.
        master: String,
        /// The Sentinels' password, if they have one.
        password: Option<Secret>,
    },
    /// A Cluster.
    Cluster,
}

/// Files for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who is trusted, in place of the system's roots.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server, or the way to it, failed.
    #[error("redis cannot be reached")]
    Redis(#[from] RedisError),
    /// A Cluster, some of whose masters do not answer.
    #[error("{answering} of {masters} masters of the cluster answer")]
    Partial { answering: usize, masters: usize },
    /// A certificate file.
    #[error("{file} cannot be read")]
    File { file: PathBuf, source: std::io::Error },
}

/// A connection that carries many commands at once.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_cluster() { "Cluster" } else { "One" })
    }
}

impl Connection {
    pub(super) async fn send(&mut self, cmd: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd).await,
            Self::Cluster(connection) => connection.req_packed_command(cmd).await,
        }
        .and_then(Value::extract_error)
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Whether all masters of a Cluster can be reached.
pub(super) async fn whole(cluster: &mut ClusterConnection) -> Result<(), ConnectError> {
    let ranges: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query_async(cluster).await?;
    // First and last slot, the master, its replicas.
    let masters = ranges.iter().filter_map(|range| range.get(2)).fold(Vec::new(), |mut masters, master| {
        if !masters.contains(&master) {
            masters.push(master);
        }
        masters
    });
    let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    // It asks those it is connected to.
    let answering = match cluster.route_command(redis::cmd("PING"), all).await? {
        Value::Map(answers) => answers.len(),
        _ => 0,
    };
    let masters = masters.len();
    if answering < masters { Err(ConnectError::Partial { answering, masters }) } else { Ok(()) }
}

impl Target {
    /// One server.
    pub fn single(url: Secret) -> Self {
        Self { url, nodes: Vec::new(), topology: Topology::Single, tls: TlsFiles::default() }
    }

    /// Whether the addresses make sense; nothing is connected to.
    pub fn check(&self) -> Result<(), RedisError> {
        self.addresses().map(|_| ())
    }

    fn addresses(&self) -> Result<Vec<ConnectionInfo>, RedisError> {
        std::iter::once(&self.url).chain(&self.nodes).map(|url| url.expose().into_connection_info()).collect()
    }

    fn certificates(&self) -> Result<TlsCertificates, ConnectError> {
        let read = |file: &Path| {
            std::fs::read(file).map_err(|source| ConnectError::File { file: file.to_owned(), source })
        };
        Ok(TlsCertificates {
            client_tls: match &self.tls.client {
                Some((certificate, key)) => {
                    Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
                }
                None => None,
            },
            root_cert: self.tls.ca.as_deref().map(read).transpose()?,
        })
    }

    /// Connects; an answer that takes longer than `timeout` is an error from then on.
    pub(super) async fn connect(&self, timeout: Duration) -> Result<Connection, ConnectError> {
        let addresses = self.addresses()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT))
            .set_concurrency_limit(MAX_IN_FLIGHT.get());
        let secure = self.url.expose().starts_with("rediss://");
        let mut connection = match &self.topology {
            Topology::Single => {
                let client = if secure {
                    Client::build_with_tls(self.url.expose(), self.certificates()?)?
                } else {
                    Client::open(self.url.expose())?
                };
                client.get_multiplexed_async_connection_with_config(&config).await?
            }
            Topology::Sentinel { master, password } => {
                let mut sentinels = self.sentinels(&addresses, master, password.as_ref(), secure)?;
                sentinels.get_async_connection_with_config(&config).await?
            }
            Topology::Cluster => {
                let mut client = ClusterClient::builder(addresses)
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(timeout)
                    .connection_concurrency_limit(MAX_IN_FLIGHT.get())
                    .retries(1);
                if secure {
                    client = client.certs(self.certificates()?);
                }
                return Ok(Connection::Cluster(client.build()?.get_async_connection().await?));
            }
        };
        connection.set_response_timeout(timeout);
        Ok(Connection::One(connection))
    }

    fn sentinels(
        &self,
        addresses: &[ConnectionInfo],
        master: &str,
        password: Option<&Secret>,
        secure: bool,
    ) -> Result<SentinelClient, ConnectError> {
        let nodes = addresses.iter().map(|info| info.addr().clone());
        let mut builder = SentinelClientBuilder::new(nodes, master, SentinelServerType::Master)?;
        // User, password and database of the URL are the server's; the Sentinels have a password of their own.
        if let Some(first) = addresses.first() {
            let server = first.redis_settings();
            builder = builder.set_client_to_redis_db(server.db());
            if let Some(user) = server.username() {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = server.password() {
                builder = builder.set_client_to_redis_password(password);
            }
        }
        if let Some(password) = password {
            builder = builder.set_client_to_sentinel_password(password.expose());
        }
        if secure {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(self.certificates()?)
                .set_client_to_sentinel_certificates(self.certificates()?);
        }
        Ok(builder.build()?)
    }
}
