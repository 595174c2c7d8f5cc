/** The end state of the database as the checker wants it; final-state.ts reads it. */

export interface FinalMessage {
  maildrop: string
  uid: number
  uniqueId: string
  place: 'maildrop' | 'trash'
  /** What LIST says. */
  octets: number
  /** What is really there: prefix and body. */
  storedOctets: number
  token: string
  /** Of the body. */
  digest: string
  /** Users whom the prefix names. */
  names: readonly string[]
  /** As the server names its sessions; for who looks into a violation. */
  deletedBy?: string | undefined
}

export interface FinalState {
  messages: FinalMessage[]
  counters: { maildrop: string; count: number; octets: number; nextUid: number }[]
  /** Of `popgres check`, before and after the sweep. */
  findings: string[]
  /** Bodies that no row names, and pieces that no body names; rows of trash that were not purged. */
  orphans: { beforePurge: number; afterPurge: number; trash: number }
  /** The maildrops again, after all trash has been purged. */
  afterSweep: { maildrop: string; uniqueId: string; digest: string }[]
}
