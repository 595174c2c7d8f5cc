/** A quota on the command line: `500M`, `1.5G`, octets, or `none`. */
import { InvalidArgumentError } from 'commander'
import { parseOctets } from '../../admin/octets.ts'

/** Wrapped, because commander takes an undefined value for an argument that is missing. */
export interface QuotaArgument {
  /** undefined: no limit */
  octets: number | undefined
}

/** @throws {InvalidArgumentError} which commander tells as wrong usage */
export function parseQuotaArgument(text: string): QuotaArgument {
  if (text.toLowerCase() === 'none') return { octets: undefined }
  const octets = parseOctets(text)
  if (octets === undefined) throw new InvalidArgumentError('It is written 500M, 1.5G, or none.')
  return { octets }
}
