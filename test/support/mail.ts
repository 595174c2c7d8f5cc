/** Puts mail into a maildrop as a delivery does, without the LMTP dialogue around it. */
import { randomUUID } from 'node:crypto'
import { insertBody, insertStretch, STRETCH_OCTETS } from '../../src/storage/bodies.ts'
import { deliver } from '../../src/storage/deliveries.ts'
import type { Database } from '../../src/storage/postgres/database.ts'

/** @param content the message as stored: CRLF lines; the same body for all users */
export async function putMessage(
  db: Database,
  domainId: number,
  userIds: readonly number[],
  content: Buffer | string,
): Promise<{ bodyId: string; uids: number[] }> {
  const body = Buffer.from(content as string, 'latin1')
  const bodyId = randomUUID()
  const isSmall = body.length <= STRETCH_OCTETS
  if (!isSmall) {
    await insertBody(db, domainId, bodyId)
    for (let nth = 0; nth * STRETCH_OCTETS < body.length; nth++) {
      const stretch = body.subarray(nth * STRETCH_OCTETS, (nth + 1) * STRETCH_OCTETS)
      await insertStretch(db, domainId, bodyId, nth, stretch)
    }
  }
  const results = await deliver(db, {
    domainId,
    bodyId,
    bodyOctets: body.length,
    content: isSmall ? body : undefined,
    recipients: userIds.map((userId) => ({ userId, prefix: Buffer.alloc(0) })),
  })
  return {
    bodyId,
    uids: userIds.map((userId) => {
      const uid = results.get(userId)?.uid
      if (uid === undefined) throw new Error(`not delivered: ${results.get(userId)?.status}`)
      return uid
    }),
  }
}

/** Lines of numbered text, some of them beginning with a dot, of at least `octets`. */
export function longMessage(octets: number): Buffer {
  const line = (i: number) => `${i % 7 === 0 ? '.' : ''}line ${i} ${'x'.repeat(60)}\r\n`
  const lines = ['Subject: long\r\n\r\n']
  for (let i = 0, size = 17; size < octets; i++) {
    lines.push(line(i))
    size += lines[lines.length - 1]?.length ?? 0
  }
  return Buffer.from(lines.join(''), 'latin1')
}
