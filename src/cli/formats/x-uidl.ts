/**
 * The header field X-UIDL, in which some servers (qpopper) and programs keep a message's unique-id.
 * It is read where it is asked for only: anybody can write one into a message.
 */
import type { ImportItem } from '../../admin/transfer/import-messages.ts'

/** LIMIT: as much of a message is looked at. */
const HEADER_MAX_OCTETS = 262_144

export async function* withXUidl(items: AsyncIterable<ImportItem>): AsyncGenerator<ImportItem> {
  for await (const item of items)
    if ('refusal' in item) yield item
    else yield { ...item, uniqueId: parseXUidl(await readHeader(item.open())) }
}

/** @param header as latin1; what follows the empty line does not count */
export function parseXUidl(header: string): string | undefined {
  const end = /^\r?\n|\n\r?\n/.exec(header)?.index
  const fields = end === undefined ? header : header.slice(0, end + 1)
  return /(?:^|\n)X-UIDL[ \t]*:[ \t]*(?:\r?\n[ \t]+)?([^\r\n]*?)[ \t]*(?:\r?\n|$)/i.exec(
    fields,
  )?.[1]
}

async function readHeader(content: AsyncIterable<Buffer>): Promise<string> {
  let header = ''
  for await (const chunk of content) {
    header += chunk.toString('latin1')
    if (/^\r?\n|\n\r?\n/.test(header) || header.length > HEADER_MAX_OCTETS) break
  }
  return header
}
