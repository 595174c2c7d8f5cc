/**
 * The GS2 header (RFC 5801 §4) that begins the first message of SCRAM and OAUTHBEARER: what the
 * client thinks of channel binding, and for whom it wants to act.
 */
import { preparedName } from './text.ts'

/** A header and what follows it. */
export interface Gs2Message {
  /** As sent, its last comma included: SCRAM binds these octets. */
  header: string
  /** `n`: cannot bind; `y`: could, but the server seems not to; `p=<type>`: binds. */
  flag: string
  /** Prepared; undefined: none given. */
  authzid: string | undefined
  rest: string
}

const HEADER = /^(n|y|p=[A-Za-z0-9.-]{1,64}),(?:a=([^,]+))?,/

/** @returns undefined for what does not begin with a header, or with a bad name in it */
export function parseGs2(message: string): Gs2Message | undefined {
  const [header, flag, saslName] = HEADER.exec(message) ?? []
  if (header === undefined || flag === undefined) return undefined
  const authzid = saslName && decodeSaslName(saslName)
  if (authzid === undefined && saslName !== undefined) return undefined
  return { header, flag, authzid, rest: message.slice(header.length) }
}

/**
 * RFC 5802 §5.1: in a name, "=2C" stands for "," and "=3D" for "=".
 * @returns the name prepared; undefined for any other "=", or what is no name
 */
export function decodeSaslName(saslName: string): string | undefined {
  if (!/^(?:[^=,]|=2C|=3D)+$/.test(saslName)) return undefined
  return preparedName(saslName.replaceAll('=2C', ',').replaceAll('=3D', '='))
}
