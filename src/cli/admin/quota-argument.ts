/** A quota on the command line: `500M`, `1.5G`, octets or `none`; a count of messages or `none`. */
import { InvalidArgumentError } from 'commander'
import { formatOctets, parseOctets } from '../../admin/octets.ts'
import { formatCount } from '../output.ts'

/** Wrapped, because commander takes an undefined value for an argument that is missing. */
export interface QuotaArgument {
  /** undefined: no limit */
  octets: number | undefined
}

export interface MessagesArgument {
  /** undefined: no limit */
  messages: number | undefined
}

/** @throws {InvalidArgumentError} which commander tells as wrong usage */
export function parseQuotaArgument(text: string): QuotaArgument {
  if (text.toLowerCase() === 'none') return { octets: undefined }
  const octets = parseOctets(text)
  if (octets === undefined) throw new InvalidArgumentError('It is written 500M, 1.5G, or none.')
  return { octets }
}

/** @throws {InvalidArgumentError} which commander tells as wrong usage */
export function parseMessagesArgument(text: string): MessagesArgument {
  if (text.toLowerCase() === 'none') return { messages: undefined }
  if (!/^\d{1,9}$/.test(text))
    throw new InvalidArgumentError('It is a number of messages, or none.')
  return { messages: Number(text) }
}

/** For example `2.0 GiB, 1000 messages`. */
export function formatQuota(quota: {
  quotaOctets: number | null
  quotaMessages: number | null
}): string {
  const { quotaOctets: octets, quotaMessages: messages } = quota
  const parts = [
    ...(octets === null ? [] : [formatOctets(octets)]),
    ...(messages === null ? [] : [formatCount(messages, 'message')]),
  ]
  return parts.length > 0 ? parts.join(', ') : 'none'
}

/** What can be undone, apart from what is held. */
export function formatTrash(usage: { trashCount: number; trashOctets: number }): string {
  return `${formatCount(usage.trashCount, 'message')} (${formatOctets(usage.trashOctets)})`
}
