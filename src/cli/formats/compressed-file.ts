/**
 * Files that Dovecot's zlib plugin wrote: gzip is unpacked, the kinds that Node cannot unpack are
 * told, everything else is as it is. No message begins like one of them.
 */
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { UnreadableMessage } from '../../admin/transfer/import-messages.ts'
import type { MailPath } from './mail-path.ts'

const GZIP = Buffer.from([0x1f, 0x8b, 0x08])
const OTHERS: readonly [string, Buffer][] = [
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
  ['lz4', Buffer.from([0x44, 0x6f, 0x76, 0x65, 0x63, 0x6f, 0x74, 0x2d, 0x4c, 0x5a, 0x34])],
  ['bzip2', Buffer.from('BZh91AY&SY', 'latin1')],
]

/** @throws {UnreadableMessage} if it is compressed in another way, or damaged */
export async function* openCompressed(path: MailPath): AsyncGenerator<Buffer> {
  let isFirst = true
  for await (const chunk of path.read()) {
    if (isFirst && startsWith(chunk, GZIP)) return yield* unpack(path)
    const other = isFirst ? OTHERS.find(([, magic]) => startsWith(chunk, magic)) : undefined
    if (other !== undefined)
      throw new UnreadableMessage(`is compressed (${other[0]}): let Dovecot write it plainly`)
    isFirst = false
    yield chunk
  }
}

async function* unpack(path: MailPath): AsyncGenerator<Buffer> {
  const file = Readable.from(path.read(), { objectMode: false })
  const gunzip = createGunzip()
  file.once('error', (error) => gunzip.destroy(error))
  try {
    yield* file.pipe(gunzip) as AsyncIterable<Buffer>
  } catch (error) {
    const isDamaged = /^Z_/.test((error as NodeJS.ErrnoException).code ?? '')
    throw isDamaged ? new UnreadableMessage('is compressed (gzip) and damaged') : error
  } finally {
    file.destroy()
  }
}

function startsWith(chunk: Buffer, magic: Buffer): boolean {
  return chunk.subarray(0, magic.length).equals(magic)
}
