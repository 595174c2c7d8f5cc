/** Quoting for an mbox, whatever the cuts: the reader takes away what the writer has put there. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MailPath } from '../../../src/cli/formats/mail-path.ts'
import { readMbox } from '../../../src/cli/formats/mbox.ts'
import { openMboxWriter, quoteFrom } from '../../../src/cli/transfer/export/mbox-writer.ts'

const text = fc
  .array(fc.constantFrom('From ', '>', 'From', 'F', 'x', '\r\n', '\n', '\r', ' ', '>>'), {
    maxLength: 40,
  })
  .map((parts) => parts.join(''))
const cuts = fc.array(fc.nat(60), { maxLength: 12 })

async function* cutUp(octets: Buffer, at: readonly number[]): AsyncGenerator<Buffer> {
  let from = 0
  for (const to of [...at].sort((a, b) => a - b)) {
    yield octets.subarray(from, Math.max(from, to))
    from = Math.max(from, to)
  }
  yield octets.subarray(from)
}

async function joined(pieces: AsyncIterable<Buffer>): Promise<string> {
  const all: Buffer[] = []
  for await (const piece of pieces) all.push(piece)
  return Buffer.concat(all).toString('latin1')
}

test('each line of ">"s and "From " gets one ">", wherever the pieces are cut', async () => {
  await fc.assert(
    fc.asyncProperty(text, cuts, async (written, at) => {
      const quoted = await joined(quoteFrom(cutUp(Buffer.from(written), at)))
      // Lines end in LF: a CR alone begins none.
      expect(quoted).toBe(written.replace(/(^|\n)(>*From )/g, '$1>$2'))
    }),
    { numRuns: 2_000 },
  )
})

test('what is written is read again', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'popgres-mbox-'))
  try {
    const messages = fc.sample(text, { numRuns: 200, seed: 7 })
    const writer = await openMboxWriter(join(directory, 'user'))
    const receivedAt = new Date('2025-11-03T20:26:00Z')
    const bodies = messages.map((message) => `A: b\r\n\r\n${message.replace(/\r?\n/g, '\r\n')}\r\n`)
    for (const [index, body] of bodies.entries())
      await writer.write({
        ...{ uid: index + 1, uniqueId: `id.${index}`, receivedAt, octets: body.length },
        pieces: () => cutUp(Buffer.from(body), [3, 11, 12, 13, 20]),
      })
    await writer.finish()
    const read: string[] = []
    for await (const item of readMbox(MailPath.of(join(directory, 'user', 'mbox')))) {
      if ('refusal' in item) throw new Error(item.refusal)
      expect(item.receivedAt).toEqual(receivedAt)
      read.push(await joined(item.open()))
    }
    expect(read).toEqual(bodies.map((body, index) => `X-UIDL: id.${index}\r\n${body}`))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})
