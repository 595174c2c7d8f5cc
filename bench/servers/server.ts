/** What the bench wants of a server under test, whichever it is. */
export interface Endpoint {
  host: string
  port: number
  tls: boolean
}

export interface BenchServer {
  /** 'popgres', 'dovecot sha512 cache', … */
  readonly name: string
  readonly pop3: Endpoint
  readonly pop3s?: Endpoint
  readonly lmtp?: Endpoint
  /** Workloads by name that it cannot do or that say nothing new about it, and why. */
  readonly cannot: ReadonlyMap<string, string>
  /** False: no login is ever cheaper than the first, so none is warmed up. */
  readonly cachesLogins?: boolean
  /** URL of its PostgreSQL (as owner), for pg_stat_statements and WAL. */
  readonly databaseUrl?: string
  /** All pids of the server's tree now, its database apart. */
  pids(): { server: number[]; database: number[] }
  /** Node servers: memory is then what is in use. */
  collectGarbage?(): void
  /** After a workload that delivers or deletes: mail is again as seeded. */
  reset(workload: string): Promise<void>
  stop(): Promise<void>
}
