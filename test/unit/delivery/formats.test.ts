import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MailPath } from '../../../src/cli/formats/mail-path.ts'
import { measureSources, readSources, type SourceFormat } from '../../../src/cli/formats/sources.ts'

let directory: string

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'popgres-formats-'))
})

afterAll(async () => {
  await rm(directory, { recursive: true })
})

async function write(name: string, content: string): Promise<string> {
  const path = join(directory, name)
  await mkdir(join(path, '..'), { recursive: true })
  await writeFile(path, content, 'latin1')
  return path
}

/** Contents of the messages, or the refusal in brackets. */
async function read(paths: string[], format?: SourceFormat): Promise<string[]> {
  const texts: string[] = []
  for await (const item of readSources(MailPath.given(paths), format)) {
    if ('refusal' in item) texts.push(`[${item.refusal}]`)
    else texts.push(await textOf(item.open()))
  }
  return texts
}

async function textOf(content: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of content) chunks.push(chunk)
  return Buffer.concat(chunks).toString('latin1')
}

async function datesOf(path: string): Promise<(string | undefined)[]> {
  const dates: (string | undefined)[] = []
  for await (const item of readSources(MailPath.given([path])))
    dates.push('refusal' in item ? item.refusal : item.receivedAt?.toISOString())
  return dates
}

const FROM = 'From bob@sender.example Thu Nov 13 20:26:07 2025\n'

describe('mbox', () => {
  test('messages lie between separators, the blank line before one belongs to the mbox', async () => {
    const path = await write('plain', `${FROM}Subject: 1\n\none\n\n${FROM}Subject: 2\n\ntwo\n\n`)
    expect(await read([path])).toEqual(['Subject: 1\n\none\n', 'Subject: 2\n\ntwo\n'])
  })

  test('with CRLF line ends, and without a blank line at the end', async () => {
    const from = FROM.replace('\n', '\r\n')
    const path = await write('crlf', `${from}A: 1\r\n\r\none\r\n\r\n${from}A: 2\r\n\r\ntwo`)
    expect(await read([path])).toEqual(['A: 1\r\n\r\none\r\n', 'A: 2\r\n\r\ntwo'])
  })

  test('mboxrd: one ">" goes from each quoted From, no other ">" does', async () => {
    const body = '>From here\n>>From there\n> From x\n>Fromage\nx >From y\n'
    const path = await write('quoted', `${FROM}\n${body}\n`)
    expect(await read([path])).toEqual([
      '\nFrom here\n>From there\n> From x\n>Fromage\nx >From y\n',
    ])
  })

  test('a paragraph that begins with From does not split a message', async () => {
    const message = 'A: 1\n\nHello\n\nFrom 10:30 on we meet.\n\nFrom here\nto there: x\n'
    const path = await write('prose', `${FROM}${message}\n${FROM}A: 2\n\n`)
    expect(await read([path])).toEqual([message, 'A: 2\n'])
  })

  test('separators without a date, and without a blank line before a dated one', async () => {
    const path = await write(
      'bare',
      `From - \nA: 1\n\none\n\nFrom 18443@xxx\nA: 2\n\ntwo\n${FROM}A: 3\n`,
    )
    expect(await read([path])).toEqual(['A: 1\n\none\n', 'A: 2\n\ntwo\n', 'A: 3\n'])
  })

  test('the day of receipt is in the separator', async () => {
    const lines = [
      'From a@b Thu Nov 13 20:26:07 2025',
      'From a@b Thu Nov 13 20:26 2025',
      'From a@b Thu Nov 13 20:26:07 +0130 2025',
      'From a@b Thu Nov 13 20:26:07 2025 -0800',
      'From a@b Thu Nov 13 20:26:07 CET 2025 remote from x',
    ]
    const path = await write('dates', lines.map((line) => `${line}\nA: 1\n\n`).join(''))
    expect(await datesOf(path)).toEqual([
      '2025-11-13T20:26:07.000Z',
      '2025-11-13T20:26:00.000Z',
      '2025-11-13T18:56:07.000Z',
      '2025-11-14T04:26:07.000Z',
      '2025-11-13T20:26:07.000Z',
    ])
  })

  test('wherever a read of the file ends, messages and quotes come out the same', async () => {
    const readOctets = 65_536
    const head = `${FROM}A: 1\n\n`
    const tail = `>>From x\n\n${FROM}A: 2\n\n>From y\n\n`
    for (let before = -FROM.length - 2; before < tail.length + 2; before++) {
      const padding = `${'x'.repeat(readOctets - head.length - before - 1)}\n`
      const path = await write('seam', `${head}${padding}${tail}`)
      const [first, second] = await read([path])
      expect(first?.slice(-9), `seam ${before}`).toBe('\n>From x\n')
      expect(first?.length).toBe('A: 1\n\n'.length + padding.length + '>From x\n'.length)
      expect(second).toBe('A: 2\n\nFrom y\n')
    }
  })

  test('text before the first separator is told', async () => {
    const long = `From ${'x'.repeat(2_000)}\n\n`
    const path = await write('long', `${long}${FROM}A: 1\n\n`)
    expect(await read([path])).toEqual(['[text before the first "From " line]', 'A: 1\n'])
  })

  test('the parts add up to the file', async () => {
    const path = await write('sum', `${FROM}A: 1\n\none\n\n${FROM}A: 2\n\n>From two\n\n`)
    let octets = 0
    for await (const item of readSources(MailPath.given([path]))) octets += item.sourceOctets
    expect(octets).toBe(await measureSources(MailPath.given([path])))
  })
})

describe('Maildir', () => {
  test('new and cur, oldest first; no tmp, no dot files, no folders', async () => {
    await write('Maildir/new/1763065569.M2P7.host', 'third\n')
    await write('Maildir/cur/1763065567.M1P7.host:2,S', 'first\n')
    await write('Maildir/cur/1763065568.M1P7.host:2,', 'second\n')
    await write('Maildir/cur/.hidden', 'no\n')
    await write('Maildir/tmp/1763065560.M1P7.host', 'no\n')
    await write('Maildir/.Sent/cur/1763065561.M1P7.host', 'no\n')
    const path = join(directory, 'Maildir')
    expect(await read([path])).toEqual(['first\n', 'second\n', 'third\n'])
    expect(await datesOf(path)).toEqual([
      '2025-11-13T20:26:07.000Z',
      '2025-11-13T20:26:08.000Z',
      '2025-11-13T20:26:09.000Z',
    ])
    expect(await measureSources(MailPath.given([path]))).toBe(19)
  })

  test('without a time in its name a file has its own', async () => {
    const path = await write('Dated/cur/message', 'x\n')
    await utimes(path, 1_000_000_000, 1_000_000_000)
    expect(await datesOf(join(directory, 'Dated'))).toEqual(['2001-09-09T01:46:40.000Z'])
  })
})

describe('which format a path has', () => {
  test('a file in .eml is one message whatever it begins with, others go by their start', async () => {
    const content = `${FROM}A: 1\n\n`
    expect(await read([await write('one.eml', content)])).toEqual([content])
    expect(await read([await write('one.msg', content)])).toEqual(['A: 1\n'])
    expect(await read([await write('two.msg', 'A: 1\n\n')])).toEqual(['A: 1\n\n'])
    expect(await read([join(directory, 'one.msg')], 'eml')).toEqual([content])
  })

  const REFUSED = '[does not look like a message: use --format eml to import it anyway]'

  test.each([
    ['one word', 'mail.example\n'],
    ['accounts', 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n'],
    ['prose with a field far below', `${'Hello\n'.repeat(20)}Subject: x\n`],
    ['prose with a field in the second paragraph', 'Hello\n\nSubject: x\n'],
    ['a picture with a field in it', '\xff\xd8\xff\xe0\0\x10JFIF\nComment: x\n'],
    ['octets of all kinds', String.fromCharCode(...Array.from({ length: 256 }, (_, i) => 255 - i))],
  ])('%s is no message, but with --format eml and as .eml it is one', async (_, content) => {
    const path = await write('photo.jpg', content)
    expect(await read([path])).toEqual([REFUSED])
    expect(await read([path], 'eml')).toEqual([content])
    expect(await read([await write('photo.EML', content)])).toEqual([content])
  })

  test.each([
    ['a field without a value', 'Subject:\r\nFrom: x\r\n\r\n'],
    ['a BOM and blank lines first', '\xef\xbb\xbf\n\nSubject: x\n\n'],
    ['a line of another program first', '>From a@b\nSubject: x\n\n'],
    ['NUL in the body', 'Subject: x\n\n\0\0\n'],
    ['a header longer than what is looked at', `To: ${'x'.repeat(10_000)}\n\n`],
    ['nothing', ''],
  ])('%s: goes as a message', async (_, content) => {
    expect(await read([await write('some.msg', content)])).toEqual([content])
  })

  test('a file that is refused counts as done', async () => {
    const path = await write('counted', 'no message\n')
    for await (const item of readSources(MailPath.given([path]))) expect(item.sourceOctets).toBe(11)
  })

  test('a directory of .eml files says how to name them', async () => {
    const file = await write('saved/one.eml', 'A: 1\n')
    const saved = join(directory, 'saved')
    expect(await read([saved])).toEqual([
      `[is a directory without new and cur, so no Maildir: name ${saved}/*.eml instead]`,
    ])
    expect(await read([saved], 'eml')).toEqual([
      `[is a directory, not eml: name ${saved}/*.eml instead]`,
    ])
    expect(await read([join(file, 'below')])).toEqual(['[there is no such file]'])
  })

  test('what is no source is told, and the others are read', async () => {
    await mkdir(join(directory, 'empty'))
    const good = await write('good.eml', 'A: 1\n')
    const paths = [join(directory, 'empty'), join(directory, 'missing'), '/dev/null', good]
    expect(await read(paths)).toEqual([
      '[is a directory without new and cur, so no Maildir]',
      '[there is no such file]',
      '[is no file]',
      'A: 1\n',
    ])
    expect(await read([good], 'mbox')).toEqual(['[does not begin with a "From " line]'])
    expect(await read([good], 'maildir')).toEqual(['[is no directory, so no Maildir]'])
  })
})
