/**
 * What supervisor and worker tell each other over the IPC channel of the fork. Secrets travel here
 * and not in arguments or the environment, where other processes could read them.
 */

import type { MetricReport } from '../base/tally.ts'

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
  /** The supervisor's own. */
  http?: readonly string[]
}

/** How to end. */
export interface DrainOrder {
  /** For so long open connections may go on by themselves. */
  patienceMs: number
  /** Then they are told, and destroyed after this. */
  graceMs: number
}

export type ToWorker =
  | {
      kind: 'start'
      nodeId: string
      version: string
      /** Texts of all settings but the secrets, as the supervisor has them; .env may differ. */
      settings: Readonly<Record<string, string>>
      databaseUrl: string
      secretKeysHex: readonly string[] | undefined
      /** For session tickets where there is no secret key: the same in all workers. */
      ticketKeysHex: string
      /** The certificate for clients that ask for no other host. */
      tlsFiles: TlsFiles | undefined
    }
  /** A second one hurries. */
  | ({ kind: 'drain' } & DrainOrder)
  /** Answered by a report under the same number. */
  | { kind: 'report'; number: number }

export type FromWorker =
  /** Ready to be told what to serve. */
  | { kind: 'hello' }
  | { kind: 'serving'; addresses: ServingAddresses }
  /** It was declared dead and goes on under another id. */
  | { kind: 'node'; nodeId: string }
  /** It cannot listen: the reason, one line for the operator. */
  | { kind: 'refused'; reason: string }
  /** A sign of life, each second. */
  | { kind: 'pulse'; isServing: boolean; hasDatabase: boolean }
  | { kind: 'report'; number: number; metrics: readonly MetricReport[] }
