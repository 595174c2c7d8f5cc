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
  /** Written in Node: so many workers, each of which compiles its code only when it has run. */
  readonly nodeWorkers?: number
  /** Process that stands for the network to its database. */
  readonly proxyPid?: number
  /** URL of its PostgreSQL (as owner), for pg_stat_statements and WAL. */
  readonly databaseUrl?: string
  /** All pids of the server's tree now, its database apart. */
  pids(): { server: number[]; database: number[] }
  /** Node servers: memory is then what is in use. @returns it: PSS in KiB, of the server alone */
  collectGarbage?(): Promise<number>
  /** After a workload that delivers or deletes: mail is again as seeded. */
  reset(workload: string): Promise<void>
  stop(): Promise<void>
}
