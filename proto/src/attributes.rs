//! The names of attributes on records, spans and metrics.
//!
//! OpenTelemetry semantic conventions (v1.44) where they have a name, `tollgate.` where they do not.

/// The `event_name` of the one record that every request leaves at every reporter.
pub const ACCESS_EVENT: &str = "tollgate.access";

// The reporter, as OTLP resource attributes.
/// `service.name`
pub const SERVICE_NAME: &str = "service.name";
/// `service.namespace`
pub const SERVICE_NAMESPACE: &str = "service.namespace";
/// `service.version`
pub const SERVICE_VERSION: &str = "service.version";
/// `service.instance.id`
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";

// Which record this is.
/// `tollgate.reporter`
pub const TOLLGATE_REPORTER: &str = "tollgate.reporter";
/// `tollgate.direction`
pub const TOLLGATE_DIRECTION: &str = "tollgate.direction";
/// `tollgate.request.id`
pub const TOLLGATE_REQUEST_ID: &str = "tollgate.request.id";
/// `tollgate.reason`
pub const TOLLGATE_REASON: &str = "tollgate.reason";

// The two ends.
/// `tollgate.source.workload`
pub const TOLLGATE_SOURCE_WORKLOAD: &str = "tollgate.source.workload";
/// `tollgate.source.namespace`
pub const TOLLGATE_SOURCE_NAMESPACE: &str = "tollgate.source.namespace";
/// `tollgate.source.principal`
pub const TOLLGATE_SOURCE_PRINCIPAL: &str = "tollgate.source.principal";
/// `tollgate.destination.workload`
pub const TOLLGATE_DESTINATION_WORKLOAD: &str = "tollgate.destination.workload";
/// `tollgate.destination.namespace`
pub const TOLLGATE_DESTINATION_NAMESPACE: &str = "tollgate.destination.namespace";
/// `tollgate.destination.principal`
pub const TOLLGATE_DESTINATION_PRINCIPAL: &str = "tollgate.destination.principal";
/// `tollgate.destination.version`
pub const TOLLGATE_DESTINATION_VERSION: &str = "tollgate.destination.version";
/// `tollgate.connection_security_policy`
pub const TOLLGATE_CONNECTION_SECURITY_POLICY: &str = "tollgate.connection_security_policy";

// The request.
/// `http.request.method`
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// `http.request.method_original`
pub const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
/// `url.scheme`
pub const URL_SCHEME: &str = "url.scheme";
/// `url.path`
pub const URL_PATH: &str = "url.path";
/// `url.query`
pub const URL_QUERY: &str = "url.query";
/// `http.route`
pub const HTTP_ROUTE: &str = "http.route";
/// `server.address`
pub const SERVER_ADDRESS: &str = "server.address";
/// `server.port`
pub const SERVER_PORT: &str = "server.port";
/// `network.protocol.name`
pub const NETWORK_PROTOCOL_NAME: &str = "network.protocol.name";
/// `network.protocol.version`
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// `user_agent.original`
pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";
/// `client.address`
pub const CLIENT_ADDRESS: &str = "client.address";
/// `client.port`
pub const CLIENT_PORT: &str = "client.port";
/// `http.request.size`
pub const HTTP_REQUEST_SIZE: &str = "http.request.size";

// The answer.
/// `http.response.status_code`
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// `http.response.size`
pub const HTTP_RESPONSE_SIZE: &str = "http.response.size";
/// `error.type`
pub const ERROR_TYPE: &str = "error.type";
/// `rpc.system.name`
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// `rpc.method`
pub const RPC_METHOD: &str = "rpc.method";
/// `rpc.status_code`
pub const RPC_STATUS_CODE: &str = "rpc.status_code";
/// `tollgate.response.flags`
pub const TOLLGATE_RESPONSE_FLAGS: &str = "tollgate.response.flags";
/// `tollgate.response.details`
pub const TOLLGATE_RESPONSE_DETAILS: &str = "tollgate.response.details";

// Connections of bytes.
/// `tollgate.connection.received`: bytes from the client
pub const TOLLGATE_CONNECTION_RECEIVED: &str = "tollgate.connection.received";
/// `tollgate.connection.sent`: bytes to the client
pub const TOLLGATE_CONNECTION_SENT: &str = "tollgate.connection.sent";

// The upstream.
/// `tollgate.upstream.cluster`
pub const TOLLGATE_UPSTREAM_CLUSTER: &str = "tollgate.upstream.cluster";
/// `network.local.address`: where a connection was going that was redirected.
pub const NETWORK_LOCAL_ADDRESS: &str = "network.local.address";
/// `network.local.port`
pub const NETWORK_LOCAL_PORT: &str = "network.local.port";
/// `network.peer.address`
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
/// `network.peer.port`
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
/// `http.request.resend_count`
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// `tollgate.circuit.state`
pub const TOLLGATE_CIRCUIT_STATE: &str = "tollgate.circuit.state";
/// `tollgate.ejected`
pub const TOLLGATE_EJECTED: &str = "tollgate.ejected";
/// `tollgate.mirror`
pub const TOLLGATE_MIRROR: &str = "tollgate.mirror";
/// `tollgate.subset`
pub const TOLLGATE_SUBSET: &str = "tollgate.subset";

// Where the time went, in microseconds.
/// `tollgate.duration_us`
pub const TOLLGATE_DURATION_US: &str = "tollgate.duration_us";
/// `tollgate.ttfb_us`
pub const TOLLGATE_TTFB_US: &str = "tollgate.ttfb_us";
/// `tollgate.accept_us`
pub const TOLLGATE_ACCEPT_US: &str = "tollgate.accept_us";
/// `tollgate.route_us`
pub const TOLLGATE_ROUTE_US: &str = "tollgate.route_us";
/// `tollgate.authz_us`
pub const TOLLGATE_AUTHZ_US: &str = "tollgate.authz_us";
/// `tollgate.ratelimit_us`
pub const TOLLGATE_RATELIMIT_US: &str = "tollgate.ratelimit_us";
/// `tollgate.upstream_us`
pub const TOLLGATE_UPSTREAM_US: &str = "tollgate.upstream_us";

// TLS.
/// `tls.protocol.version`
pub const TLS_PROTOCOL_VERSION: &str = "tls.protocol.version";
/// `tls.cipher`
pub const TLS_CIPHER: &str = "tls.cipher";
/// `tls.curve`
pub const TLS_CURVE: &str = "tls.curve";
/// `tls.resumed`
pub const TLS_RESUMED: &str = "tls.resumed";
/// `tls.client.subject`
pub const TLS_CLIENT_SUBJECT: &str = "tls.client.subject";
/// `tls.client.issuer`
pub const TLS_CLIENT_ISSUER: &str = "tls.client.issuer";
/// `tls.client.hash.sha256`
pub const TLS_CLIENT_HASH_SHA256: &str = "tls.client.hash.sha256";
/// `tls.client.not_after`
pub const TLS_CLIENT_NOT_AFTER: &str = "tls.client.not_after";

// The end user and the token.
/// `enduser.id`
pub const ENDUSER_ID: &str = "enduser.id";
/// `enduser.pseudo.id`
pub const ENDUSER_PSEUDO_ID: &str = "enduser.pseudo.id";
/// `user.roles`
pub const USER_ROLES: &str = "user.roles";
/// `tollgate.token.state`
pub const TOLLGATE_TOKEN_STATE: &str = "tollgate.token.state";
/// `tollgate.token.issuer`
pub const TOLLGATE_TOKEN_ISSUER: &str = "tollgate.token.issuer";
/// `tollgate.token.audience`
pub const TOLLGATE_TOKEN_AUDIENCE: &str = "tollgate.token.audience";
/// `tollgate.token.client_id`
pub const TOLLGATE_TOKEN_CLIENT_ID: &str = "tollgate.token.client_id";
/// `tollgate.token.scopes`
pub const TOLLGATE_TOKEN_SCOPES: &str = "tollgate.token.scopes";
/// `tollgate.token.groups`
pub const TOLLGATE_TOKEN_GROUPS: &str = "tollgate.token.groups";
/// `tollgate.token.jti`
pub const TOLLGATE_TOKEN_JTI: &str = "tollgate.token.jti";
/// `tollgate.token.kid`
pub const TOLLGATE_TOKEN_KID: &str = "tollgate.token.kid";
/// `tollgate.token.alg`
pub const TOLLGATE_TOKEN_ALG: &str = "tollgate.token.alg";
/// `tollgate.token.expires_at`
pub const TOLLGATE_TOKEN_EXPIRES_AT: &str = "tollgate.token.expires_at";
/// `tollgate.token.age_s`
pub const TOLLGATE_TOKEN_AGE_S: &str = "tollgate.token.age_s";

// The decision.
/// `tollgate.authz.decision`
pub const TOLLGATE_AUTHZ_DECISION: &str = "tollgate.authz.decision";
/// `tollgate.authz.reason`
pub const TOLLGATE_AUTHZ_REASON: &str = "tollgate.authz.reason";
/// `tollgate.authz.decision_id`
pub const TOLLGATE_AUTHZ_DECISION_ID: &str = "tollgate.authz.decision_id";
/// `tollgate.authz.epoch`
pub const TOLLGATE_AUTHZ_EPOCH: &str = "tollgate.authz.epoch";
/// `tollgate.authz.cached`
pub const TOLLGATE_AUTHZ_CACHED: &str = "tollgate.authz.cached";
/// `tollgate.authz.failure_mode`
pub const TOLLGATE_AUTHZ_FAILURE_MODE: &str = "tollgate.authz.failure_mode";
/// `tollgate.authz.missing`
pub const TOLLGATE_AUTHZ_MISSING: &str = "tollgate.authz.missing";
/// `tollgate.authz.explanation`: why it was refused, in one line for an operator.
pub const TOLLGATE_AUTHZ_EXPLANATION: &str = "tollgate.authz.explanation";
/// `tollgate.authz.shadow.decision`
pub const TOLLGATE_AUTHZ_SHADOW_DECISION: &str = "tollgate.authz.shadow.decision";
/// `tollgate.authz.shadow.rule`
pub const TOLLGATE_AUTHZ_SHADOW_RULE: &str = "tollgate.authz.shadow.rule";
/// `tollgate.watch.epoch`
pub const TOLLGATE_WATCH_EPOCH: &str = "tollgate.watch.epoch";
/// `security_rule.uuid`
pub const SECURITY_RULE_UUID: &str = "security_rule.uuid";
/// `security_rule.name`
pub const SECURITY_RULE_NAME: &str = "security_rule.name";
/// `security_rule.version`
pub const SECURITY_RULE_VERSION: &str = "security_rule.version";
/// `security_rule.ruleset.name`
pub const SECURITY_RULE_RULESET_NAME: &str = "security_rule.ruleset.name";

// The limits.
/// `tollgate.ratelimit.decision`
pub const TOLLGATE_RATELIMIT_DECISION: &str = "tollgate.ratelimit.decision";
/// `tollgate.ratelimit.domain`
pub const TOLLGATE_RATELIMIT_DOMAIN: &str = "tollgate.ratelimit.domain";
/// `tollgate.ratelimit.rule`
pub const TOLLGATE_RATELIMIT_RULE: &str = "tollgate.ratelimit.rule";
/// `tollgate.ratelimit.descriptor`
pub const TOLLGATE_RATELIMIT_DESCRIPTOR: &str = "tollgate.ratelimit.descriptor";
/// `tollgate.ratelimit.limit`
pub const TOLLGATE_RATELIMIT_LIMIT: &str = "tollgate.ratelimit.limit";
/// `tollgate.ratelimit.remaining`
pub const TOLLGATE_RATELIMIT_REMAINING: &str = "tollgate.ratelimit.remaining";
/// `tollgate.ratelimit.reset_s`
pub const TOLLGATE_RATELIMIT_RESET_S: &str = "tollgate.ratelimit.reset_s";
/// `tollgate.ratelimit.failure_mode`
pub const TOLLGATE_RATELIMIT_FAILURE_MODE: &str = "tollgate.ratelimit.failure_mode";

// Stamped by the receiver.
/// `tollgate.exporter.identity`
pub const TOLLGATE_EXPORTER_IDENTITY: &str = "tollgate.exporter.identity";

/// Every attribute above, for interfaces that list them.
pub const ALL: &[&str] = &[
    SERVICE_NAME,
    SERVICE_NAMESPACE,
    SERVICE_VERSION,
    SERVICE_INSTANCE_ID,
    TOLLGATE_REPORTER,
    TOLLGATE_DIRECTION,
    TOLLGATE_REQUEST_ID,
    TOLLGATE_REASON,
    TOLLGATE_SOURCE_WORKLOAD,
    TOLLGATE_SOURCE_NAMESPACE,
    TOLLGATE_SOURCE_PRINCIPAL,
    TOLLGATE_DESTINATION_WORKLOAD,
    TOLLGATE_DESTINATION_NAMESPACE,
    TOLLGATE_DESTINATION_PRINCIPAL,
    TOLLGATE_DESTINATION_VERSION,
    TOLLGATE_CONNECTION_SECURITY_POLICY,
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    URL_SCHEME,
    URL_PATH,
    URL_QUERY,
    HTTP_ROUTE,
    SERVER_ADDRESS,
    SERVER_PORT,
    NETWORK_PROTOCOL_NAME,
    NETWORK_PROTOCOL_VERSION,
    USER_AGENT_ORIGINAL,
    CLIENT_ADDRESS,
    CLIENT_PORT,
    HTTP_REQUEST_SIZE,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_RESPONSE_SIZE,
    ERROR_TYPE,
    RPC_SYSTEM_NAME,
    RPC_METHOD,
    RPC_STATUS_CODE,
    TOLLGATE_RESPONSE_FLAGS,
    TOLLGATE_RESPONSE_DETAILS,
    TOLLGATE_UPSTREAM_CLUSTER,
    NETWORK_LOCAL_ADDRESS,
    NETWORK_LOCAL_PORT,
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    HTTP_REQUEST_RESEND_COUNT,
    TOLLGATE_CIRCUIT_STATE,
    TOLLGATE_EJECTED,
    TOLLGATE_MIRROR,
    TOLLGATE_SUBSET,
    TOLLGATE_CONNECTION_RECEIVED,
    TOLLGATE_CONNECTION_SENT,
    TOLLGATE_DURATION_US,
    TOLLGATE_TTFB_US,
    TOLLGATE_ACCEPT_US,
    TOLLGATE_ROUTE_US,
    TOLLGATE_AUTHZ_US,
    TOLLGATE_RATELIMIT_US,
    TOLLGATE_UPSTREAM_US,
    TLS_PROTOCOL_VERSION,
    TLS_CIPHER,
    TLS_CURVE,
    TLS_RESUMED,
    TLS_CLIENT_SUBJECT,
    TLS_CLIENT_ISSUER,
    TLS_CLIENT_HASH_SHA256,
    TLS_CLIENT_NOT_AFTER,
    ENDUSER_ID,
    ENDUSER_PSEUDO_ID,
    USER_ROLES,
    TOLLGATE_TOKEN_STATE,
    TOLLGATE_TOKEN_ISSUER,
    TOLLGATE_TOKEN_AUDIENCE,
    TOLLGATE_TOKEN_CLIENT_ID,
    TOLLGATE_TOKEN_SCOPES,
    TOLLGATE_TOKEN_GROUPS,
    TOLLGATE_TOKEN_JTI,
    TOLLGATE_TOKEN_KID,
    TOLLGATE_TOKEN_ALG,
    TOLLGATE_TOKEN_EXPIRES_AT,
    TOLLGATE_TOKEN_AGE_S,
    TOLLGATE_AUTHZ_DECISION,
    TOLLGATE_AUTHZ_REASON,
    TOLLGATE_AUTHZ_DECISION_ID,
    TOLLGATE_AUTHZ_EPOCH,
    TOLLGATE_AUTHZ_CACHED,
    TOLLGATE_AUTHZ_FAILURE_MODE,
    TOLLGATE_AUTHZ_MISSING,
    TOLLGATE_AUTHZ_EXPLANATION,
    TOLLGATE_AUTHZ_SHADOW_DECISION,
    TOLLGATE_AUTHZ_SHADOW_RULE,
    TOLLGATE_WATCH_EPOCH,
    SECURITY_RULE_UUID,
    SECURITY_RULE_NAME,
    SECURITY_RULE_VERSION,
    SECURITY_RULE_RULESET_NAME,
    TOLLGATE_RATELIMIT_DECISION,
    TOLLGATE_RATELIMIT_DOMAIN,
    TOLLGATE_RATELIMIT_RULE,
    TOLLGATE_RATELIMIT_DESCRIPTOR,
    TOLLGATE_RATELIMIT_LIMIT,
    TOLLGATE_RATELIMIT_REMAINING,
    TOLLGATE_RATELIMIT_RESET_S,
    TOLLGATE_RATELIMIT_FAILURE_MODE,
    TOLLGATE_EXPORTER_IDENTITY,
];
