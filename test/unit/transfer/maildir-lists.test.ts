/** Dovecot's and Courier's lists beside a Maildir: unique-ids and order of what they name. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { ImportItem } from '../../../src/admin/transfer/import-messages.ts'
import { MailPath } from '../../../src/cli/formats/mail-path.ts'
import { type MaildropOptions, readMaildrops } from '../../../src/cli/formats/maildrop.ts'
import { parseUidlFormat } from '../../../src/cli/formats/uidl-format.ts'

let maildir: string

beforeEach(() => {
  maildir = mkdtempSync(join(tmpdir(), 'popgres-maildir-'))
  for (const name of ['new', 'cur', 'tmp']) mkdirSync(join(maildir, name))
})

afterEach(() => rmSync(maildir, { recursive: true }))

function write(name: string, content: string | Buffer = `X: ${name}\n`): void {
  writeFileSync(join(maildir, name), content)
}

async function read(options: Partial<MaildropOptions> = {}): Promise<ImportItem[]> {
  const items: ImportItem[] = []
  const all = { uidl: 'auto', format: parseUidlFormat('%v.%u'), files: 'auto', ...options } as const
  for await (const item of readMaildrops([MailPath.of(maildir)], all)) items.push(item)
  return items
}

/** File and unique-id. */
async function list(options?: Partial<MaildropOptions>): Promise<(string | undefined)[][]> {
  const items = await read(options)
  return items.map((item) => [
    item.source.slice(maildir.length + 1),
    'refusal' in item ? item.refusal : item.uniqueId,
  ])
}

test('a link is no message, wherever it leads', async () => {
  write('cur/1.a')
  symlinkSync('/etc/passwd', join(maildir, 'cur/2.b'))
  expect(await list()).toEqual([
    ['cur/1.a', undefined],
    ['cur/2.b', 'not a file'],
  ])
})

test('a directory that becomes a link after it was listed', async () => {
  write('cur/1.a')
  mkdirSync(join(maildir, 'other'))
  write('other/1.a', 'secret')
  const [item] = await read()
  expect(await octetsOf(item)).toBe('X: cur/1.a\n')
  rmSync(join(maildir, 'cur'), { recursive: true })
  symlinkSync('other', join(maildir, 'cur'))
  await expect(octetsOf(item)).rejects.toThrow(/^ELOOP: .*\/cur$/)
})

describe('dovecot-uidlist', () => {
  test('version 3: saved ones, order, names with flags, files it does not know', async () => {
    for (const name of [
      'cur/5.a:2,S',
      'cur/3.b:2,',
      'new/4.c',
      'cur/9.d:2,',
      'new/8.new',
      'new/2.n',
    ])
      write(name)
    write(
      'dovecot-uidlist',
      '3 V77 N100 Gabc\n1 :3.b\n2 W100 Psaved :4.c\n5 P :5.a:2,\n7 O1 Ps:7 :9.d\n8 :gone\n',
    )
    expect(await list()).toEqual([
      ['cur/9.d:2,', 's:7'],
      ['cur/3.b:2,', '77.1'],
      ['new/4.c', 'saved'],
      ['cur/5.a:2,S', '5.a'],
      ['new/2.n', undefined],
      ['new/8.new', undefined],
    ])
  })

  test('%f and %g: the name, and the GUID where there is one', async () => {
    for (const name of ['cur/1.a,S=5:2,S', 'cur/2.b:2,']) write(name)
    write('dovecot-uidlist', '3 V77 N3\n1 :1.a,S=5\n2 Gguid :2.b\n')
    const ids = async (format: string) =>
      (await list({ format: parseUidlFormat(format) })).map(([, uniqueId]) => uniqueId)
    expect(await ids('%f')).toEqual(['1.a,S=5', '2.b'])
    expect(await ids('%g')).toEqual(['1.a,S=5', 'guid'])
  })

  test('version 1, and in a directory of its own', async () => {
    write('cur/1.a:2,S')
    const control = join(maildir, 'control')
    mkdirSync(control)
    writeFileSync(join(control, 'dovecot-uidlist'), '1 77 9\n8 1.a:2,\n')
    expect(await list({ control: MailPath.of(control) })).toEqual([['cur/1.a:2,S', '77.8']])
  })

  test('a line that is broken refuses the maildrop and names itself', async () => {
    write('dovecot-uidlist', '3 V77 N3\n1 :1.a\nrubbish\n')
    await expect(read()).rejects.toThrow(/dovecot-uidlist line 3 is broken/)
  })

  test('the day of receipt is the time of change; gzip is unpacked, zstd told', async () => {
    write('cur/1600000000.a:2,S', gzipSync('A: 1\n\nx\n'))
    write('cur/1600000001.b:2,S', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0]))
    const day = new Date('2020-01-02T03:04:05Z')
    utimesSync(join(maildir, 'cur/1600000000.a:2,S'), day, day)
    write('dovecot-uidlist', '3 V77 N3\n1 :1600000000.a\n2 :1600000001.b\n')
    const [packed, other] = await read()
    expect(packed).toMatchObject({ receivedAt: day })
    expect(await octetsOf(packed)).toBe('A: 1\n\nx\n')
    await expect(octetsOf(other)).rejects.toThrow('is compressed (zstd)')
  })
})

async function octetsOf(item: ImportItem | undefined): Promise<string> {
  if (item === undefined || 'refusal' in item) throw new Error('no message')
  const pieces: Buffer[] = []
  for await (const piece of item.open()) pieces.push(piece)
  return Buffer.concat(pieces).toString('latin1')
}

describe('courierpop3dsizelist', () => {
  beforeEach(() => {
    for (const name of ['cur/10.b:2,S', 'cur/9.a:2,', 'new/10.a', 'new/11.new']) write(name)
  })

  test.each([
    ['without version', '9.a 5\n10.b 5\n10.a 5\n', ['9.a', '10.a', '10.b']],
    ['1', '/1 4\n9.a 5 1\n10.b 5 3\n10.a 5 2\n', ['UID1', 'UID2', 'UID3']],
    ['2', '/2 4 77\n9.a 5 1:77\n10.b 5 3:77\n10.a 5 2:0\n', ['UID1-77', 'UID2', 'UID3-77']],
    ['3', '/3 4 77\n9.a 5 1:77:0\n10.b 5 3:78:1\n10.a 5 0:0:0\n', ['UID1-77', '10.a', 'UID3-78']],
  ])('version %s', async (_, text, [first, second, third]) => {
    write('courierpop3dsizelist', text)
    expect(await list()).toEqual([
      ['cur/9.a:2,', first],
      ['new/10.a', second],
      ['cur/10.b:2,S', third],
      ['new/11.new', undefined],
    ])
  })

  test('a version that is not known refuses the maildrop', async () => {
    write('courierpop3dsizelist', '/9 4 77\n')
    await expect(read()).rejects.toThrow('is of no known version')
  })

  test('beside a list of Dovecot it must be said whose counts', async () => {
    write('courierpop3dsizelist', '/2 4 77\n9.a 5 1:77\n')
    write('dovecot-uidlist', '3 V5 N3\n1 :9.a\n')
    await expect(read()).rejects.toThrow('--uidl dovecot or --uidl courier')
    expect((await list({ uidl: 'courier' }))[0]).toEqual(['cur/9.a:2,', 'UID1-77'])
    expect((await list({ uidl: 'dovecot' }))[0]).toEqual(['cur/9.a:2,', '5.1'])
    expect((await list({ uidl: 'none' }))[0]?.[1]).toBeUndefined()
  })
})

test('X-UIDL is taken from the header where it is asked for', async () => {
  write('cur/1.a', 'A: 1\nX-UIDL: abc \n\nX-UIDL: not this\n')
  write('cur/2.b', 'A: 1\r\nx-uidl:\r\n  folded\r\n\r\n')
  write('cur/3.c', 'A: 1\n\nX-UIDL: no\n')
  await expect(list()).resolves.toEqual(
    ['1.a', '2.b', '3.c'].map((name) => [`cur/${name}`, undefined]),
  )
  const file = join(maildir, 'mbox')
  const messages = [
    'X-UIDL: abc \n\nX-UIDL: not this\n',
    'x-uidl:\n  folded\n\n',
    'A: 1\n\nX-UIDL: no\n',
  ]
  writeFileSync(
    file,
    messages.map((text) => `From a@b Thu Nov 13 20:26:07 2025\n${text}\n`).join(''),
  )
  const all = { uidl: 'x-uidl', format: parseUidlFormat('%u'), files: 'auto' } as const
  const ids: (string | undefined)[] = []
  for await (const item of readMaildrops([MailPath.of(file)], all))
    ids.push('refusal' in item ? item.refusal : item.uniqueId)
  expect(ids).toEqual(['abc', 'folded', undefined])
})
