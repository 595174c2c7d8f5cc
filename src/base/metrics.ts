/**
 * Every metric, once: name, labels and meaning. Whoever counts imports METRICS and adds to a part
 * of it; what is printed is merged over the processes of a node by cluster/node-metrics.ts. What
 * each means to an operator is in docs/monitoring.md; a test compares. Names are
 * `popgres_<area>_<what>_<unit>`; those of `popgres_worker_` are told for each process of the node,
 * all others are sums over it.
 */
import { FAILURE_CODES } from './failure.ts'
import { Distribution, Metric, type MetricReport, readMetrics, Tally } from './tally.ts'

const describe = (
  type: MetricReport['type'],
  name: string,
  help: string,
  labelNames: readonly string[],
  isRead = false,
) => ({ name, help, type, labelNames, isRead })

const makeTally = (): Tally => new Tally()

/** Only grows. */
const counter = (name: string, help: string, ...labelNames: string[]): Metric<Tally> =>
  new Metric(describe('counter', name, help, labelNames), makeTally)

/** Goes up and down. */
const gauge = (name: string, help: string, ...labelNames: string[]): Metric<Tally> =>
  new Metric(describe('gauge', name, help, labelNames), makeTally)

/** Is looked at when it is asked for. */
const readGauge = (name: string, help: string, ...labelNames: string[]): Metric<Tally> =>
  new Metric(describe('gauge', name, help, labelNames, true), makeTally)

const readCounter = (name: string, help: string, ...labelNames: string[]): Metric<Tally> =>
  new Metric(describe('counter', name, help, labelNames, true), makeTally)

/** Seconds, from what memory takes to what a client gives up after. */
const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

const histogram = (name: string, help: string, ...labelNames: string[]): Metric<Distribution> =>
  new Metric(describe('histogram', name, help, labelNames), () => new Distribution(SECONDS))

/** What a run of it is counted under if it fails. */
const BACKGROUND_TASKS = [
  'sweep of nodes',
  'sweep of logins',
  'retention',
  'expiry',
  'session log',
  'leadership',
] as const
export type BackgroundTask = (typeof BACKGROUND_TASKS)[number]

export const METRICS = {
  pop3Connections: gauge('popgres_pop3_connections_open', 'POP3 connections that are open'),
  pop3Arrivals: counter(
    'popgres_pop3_connections_total',
    'POP3 connections that came, by what became of them: greeted, or turned away before that',
    'result',
  ),
  pop3Sessions: gauge('popgres_pop3_sessions_open', 'Maildrops that are open'),
  pop3SessionEnds: counter(
    'popgres_pop3_sessions_total',
    'POP3 connections that were greeted and have ended, by reason',
    'reason',
  ),
  pop3OctetsReceived: counter(
    'popgres_pop3_received_octets_total',
    'Octets that POP3 clients sent, TLS taken off',
  ),
  pop3OctetsSent: counter(
    'popgres_pop3_sent_octets_total',
    'Octets that POP3 clients were sent, before TLS',
  ),
  pop3Retrieved: counter('popgres_pop3_retrieved_messages_total', 'Messages sent by RETR or TOP'),
  pop3Deleted: counter('popgres_pop3_deleted_messages_total', 'Messages that a QUIT deleted'),
  pop3Commits: counter(
    'popgres_pop3_commits_total',
    'QUITs after a login, by what became of what was marked',
    'result',
  ),
  loginAttempts: counter(
    'popgres_login_attempts_total',
    'Logins that were tried, by kind of proof and result',
    'mechanism',
    'result',
  ),
  loginSeconds: histogram(
    'popgres_login_duration_seconds',
    'From a proof of identity to an open maildrop; refused logins are not in it, they are delayed',
  ),
  loginCache: counter(
    'popgres_login_cache_total',
    'Passwords looked for among those verified lately: hit or miss',
    'result',
  ),
  hashSeconds: histogram(
    'popgres_hash_duration_seconds',
    'Computing a password hash, by queue: argon2 or slow (old hashes of other servers)',
    'queue',
  ),
  hashWaitSeconds: histogram(
    'popgres_hash_wait_seconds',
    'Waiting for the turn to compute a password hash',
    'queue',
  ),
  hashWaiting: gauge('popgres_hash_waiting', 'Password hashes that wait for their turn', 'queue'),
  hashRefused: counter(
    'popgres_hash_refused_total',
    'Password hashes that got no turn in time: the peer was told to try again later',
    'queue',
  ),
  movesOpen: gauge(
    'popgres_moves_open',
    'Connections to the old servers of domains that are migrating',
  ),
  moves: counter(
    'popgres_moves_total',
    'First logins that were shown to an old server, by what became of them',
    'result',
  ),
  leaseLosses: counter(
    'popgres_lease_losses_total',
    'Open maildrops that lost their lease, by reason',
    'reason',
  ),
  lmtpConnections: gauge('popgres_lmtp_connections_open', 'LMTP connections that are open'),
  deliveryRecipients: counter(
    'popgres_delivery_recipients_total',
    'RCPT commands, by answer',
    'result',
  ),
  deliveryCopies: counter(
    'popgres_delivery_copies_total',
    'Copies of messages after DATA, one a recipient, by what became of them',
    'result',
  ),
  deliveryOctets: counter(
    'popgres_delivery_octets_total',
    'Octets of messages of which a copy was delivered, each counted once',
  ),
  deliverySeconds: histogram(
    'popgres_delivery_duration_seconds',
    'From the end of a message to the replies, waiting for others included',
  ),
  deliveryWaitSeconds: histogram(
    'popgres_delivery_wait_seconds',
    'Waiting in the delivery queue for the commit before',
  ),
  deliveryWaiting: gauge('popgres_delivery_waiting', 'Deliveries that wait for the commit before'),
  statements: counter(
    'popgres_statement_executions_total',
    'Statements sent to PostgreSQL, by name and door: hot (pipelined), bulk or kysely (pooled)',
    'statement',
    'door',
  ),
  statementTime: counter(
    'popgres_statement_seconds_total',
    'Time from sending a statement, or asking for a connection for it, to the end of its answer',
    'statement',
    'door',
  ),
  statementSeconds: histogram(
    'popgres_statement_duration_seconds',
    'The same time of all statements of a door',
    'door',
  ),
  statementFailures: counter(
    'popgres_statement_failures_total',
    'Statements that failed, by door and code of the failure',
    'door',
    'code',
  ),
  statementsPending: gauge(
    'popgres_statement_pending',
    'Statements without an answer yet, those that wait for a connection included',
    'door',
  ),
  databaseConnects: counter(
    'popgres_database_connects_total',
    'Connections to PostgreSQL that were opened: after the start, reconnects',
    'door',
  ),
  databaseBreaks: counter(
    'popgres_database_breaks_total',
    'Connections to PostgreSQL that broke or were given up',
  ),
  databaseFailovers: counter(
    'popgres_database_failovers_total',
    'How often another host of DATABASE_URL came into use; each process of a node counts',
  ),
  poolInUse: readGauge(
    'popgres_database_pool_in_use',
    'Pooled connections to PostgreSQL that carry something out',
    'pool',
  ),
  poolWaiting: readGauge(
    'popgres_database_pool_waiting',
    'Statements that wait for a pooled connection',
    'pool',
  ),
  poolMax: readGauge(
    'popgres_database_pool_max',
    'Pooled connections to PostgreSQL that there may be',
    'pool',
  ),
  backgroundFailures: counter(
    'popgres_background_failures_total',
    'Runs of background work that failed; each is tried again',
    'task',
  ),
  workerUp: readGauge('popgres_worker_up', '1 if the process answered in time when asked for this'),
  workerPid: readGauge('popgres_worker_pid', 'Process id of the worker'),
  workerSilence: readGauge(
    'popgres_worker_silence_seconds',
    'Time since the process last gave a sign of life, which it does each second',
  ),
  workerDatabase: readGauge(
    'popgres_worker_database_up',
    '1 if the last heartbeat of the process reached PostgreSQL',
  ),
  workerMemory: readGauge('popgres_worker_memory_bytes', 'Resident memory of the process'),
  workerHeap: readGauge('popgres_worker_heap_bytes', 'JavaScript heap in use of the process'),
  workerCpu: readCounter('popgres_worker_cpu_seconds_total', 'CPU time of the process'),
  workerLag: readGauge(
    'popgres_worker_event_loop_lag_seconds',
    'How late the event loop came to what was due, over the last 15 to 30 s',
    'quantile',
  ),
  nodeReady: readGauge('popgres_node_ready', '1 if /readyz says that this node serves'),
  nodeWorkers: readGauge('popgres_node_workers', 'Workers of this node that serve'),
  nodeWorkerExits: counter(
    'popgres_node_worker_exits_total',
    'Workers that ended: in order, or otherwise (another is started)',
    'end',
  ),
  nodeStart: readGauge('popgres_node_start_time_seconds', 'When the supervisor began, Unix time'),
  nodeInfo: readGauge(
    'popgres_node_info',
    '1; its labels say which versions of Popgres and Node.js run',
    'version',
    'node_version',
  ),
} as const satisfies Record<string, Metric>

/** Those that rules watch are 0 before they are anything else: a rate needs a first value. */
const KNOWN: readonly (readonly [Metric, readonly string[]])[] = [
  [METRICS.pop3Arrivals, ['greeted', 'refused']],
  [METRICS.pop3Commits, ['committed', 'nothing-deleted', 'lease-lost', 'undecided']],
  [METRICS.loginCache, ['hit', 'miss']],
  [METRICS.hashSeconds, ['argon2', 'slow']],
  [METRICS.hashWaitSeconds, ['argon2', 'slow']],
  [METRICS.hashWaiting, ['argon2', 'slow']],
  [METRICS.hashRefused, ['argon2', 'slow']],
  [METRICS.leaseLosses, ['gone', 'credential', 'heartbeat', 'wanted']],
  [METRICS.deliveryRecipients, ['accepted', 'unknown-user', 'over-quota', 'too-many', 'failed']],
  [METRICS.deliveryCopies, ['delivered', 'over-quota', 'unknown-user', 'too-large', 'failed']],
  [METRICS.nodeWorkerExits, ['in order', 'died']],
  [METRICS.backgroundFailures, BACKGROUND_TASKS],
]
for (const [metric, values] of KNOWN) for (const value of values) metric.of(value)
for (const door of ['hot', 'bulk', 'kysely'])
  for (const code of FAILURE_CODES.filter((one) => one.startsWith('STORAGE_')))
    METRICS.statementFailures.of(door, code)

/** Told for each process; the supervisor adds which. */
export const PER_WORKER = 'popgres_worker_'

/** All metrics as they are in this process now. */
export function reportMetrics(): MetricReport[] {
  return readMetrics(Object.values(METRICS))
}
