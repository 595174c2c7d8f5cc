/**
 * What supervisor and worker tell each other over the IPC channel of the fork. Secrets travel here
 * and not in arguments or the environment, where other processes could read them.
 */

/** PEM files. */
export interface TlsFiles {
  certFile: string
  keyFile: string
}

/** As bound, in the form of the settings. */
export interface ServingAddresses {
  pop3: readonly string[]
  /** POP3S; there may be no certificate yet. */
  pop3s: readonly string[]
  lmtp: readonly string[]
}

export type ToWorker =
  | {
      kind: 'start'
      nodeId: string
      version: string
      databaseUrl: string
      secretKeysHex: readonly string[] | undefined
      /** For session tickets where there is no secret key: the same in all workers. */
      ticketKeysHex: string
      /** The certificate for clients that ask for no other host. */
      tlsFiles: TlsFiles | undefined
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
