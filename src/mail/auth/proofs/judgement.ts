/** What the judges of the single mechanisms say, for the log to tell and for the door to act on. */
import type { LoginAccount } from '../../../storage/accounts.ts'
import type { BearerReason } from '../bearer/claims.ts'
import type { LoginName } from '../login-name.ts'
import type { PasswordReason } from '../password-check.ts'

/** Only `verified` and `suspended` mean that the proof was right. */
export type LoginReason =
  | 'verified'
  | 'suspended'
  | 'throttled'
  | 'implausible name'
  | 'no domain'
  | 'unknown domain'
  | 'unknown user'
  | PasswordReason
  | 'no secret key'
  | 'no APOP secret'
  | 'APOP secret of another key'
  | 'damaged APOP secret'
  | 'wrong APOP digest'
  | 'no SCRAM keys'
  | 'wrong SCRAM proof'
  | BearerReason
  | 'token of another user'
  | 'no client certificate'
  | 'unknown client certificate'
  | 'client certificate of several users'
  | MoveReason

/**
 * Of users who have not moved here yet (mail/moving): what their old server said, or that the right
 * password came and the mail is still on its way.
 */
type MoveReason =
  | 'refused by the old server'
  | 'in use on the old server'
  | 'put off by the old server'
  | 'being moved'
  | 'in use'

/** An app password or certificate that proved who it is. */
interface UsedCredential {
  credentialId: string
  /** its use need not be written down again */
  isUseRecorded: boolean
}

export interface Judgement {
  reason: LoginReason
  account: LoginAccount | undefined
  credential?: UsedCredential | undefined
  /** of a password that was verified before: all that follows a first success has followed */
  isRecalled?: boolean
  /** SCRAM only */
  serverSignature?: Buffer | undefined
}

/** For who is not there. */
export function unknownUser(name: LoginName | undefined): Judgement {
  const reason = name === undefined ? 'implausible name' : 'unknown user'
  return { reason, account: undefined }
}
