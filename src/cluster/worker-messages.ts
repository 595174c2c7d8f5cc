/**
 * What supervisor and worker tell each other over the IPC channel of the fork. Secrets travel here
 * and not in arguments or the environment, where other processes could read them.
 */

/** As bound, in the form of the settings. */
export interface ServingAddresses {
  pop3: readonly string[]
  lmtp: readonly string[]
}

export type ToWorker =
  | {
      kind: 'start'
      nodeId: string
      version: string
      databaseUrl: string
      secretKeyHex: string | undefined
    }
  | { kind: 'drain'; graceMs: number }

export type FromWorker =
  /** Ready to be told what to serve. */
  | { kind: 'hello' }
  | { kind: 'serving'; addresses: ServingAddresses }
  /** It was declared dead and goes on under another id. */
  | { kind: 'node'; nodeId: string }
  /** It cannot listen: the reason, one line for the operator. */
  | { kind: 'refused'; reason: string }
