/** What the checker found against the claim; `rule` is one of the names in docs/reliability.md. */

export type Rule =
  | 'acknowledged message lost'
  | 'message changed'
  | 'acknowledged delete came back'
  | 'deleted without an acknowledged QUIT'
  | 'half a QUIT'
  | 'two sessions at one time'
  | 'overtaken session deleted'
  | 'unique-id reused or changed'
  | 'numbers out of order'
  | 'STAT and LIST differ'
  | 'counters differ from rows'
  | 'orphan bodies'
  | 'popgres check'
  | 'message nobody sent'
  | 'message doubled'
  | "another recipient's lines"
  | 'refused for good'
  | 'not available again'

export interface Violation {
  rule: Rule
  /** Milliseconds of the history; undefined: in the final state. */
  at?: number | undefined
  maildrop?: string
  detail: string
}
