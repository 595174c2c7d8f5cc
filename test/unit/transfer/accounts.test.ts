/** Lists of accounts of old servers, and where their mail lies. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { OldAccountItem } from '../../../src/cli/transfer/accounts/old-account.ts'
import { readPasswdFile } from '../../../src/cli/transfer/accounts/passwd-file.ts'
import { readUserFile } from '../../../src/cli/transfer/accounts/user-table.ts'
import { readUserdb } from '../../../src/cli/transfer/accounts/userdb.ts'
import { locateMail } from '../../../src/cli/transfer/mail-location.ts'

let directory: string
let file: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'popgres-accounts-'))
  file = join(directory, 'list')
})

afterEach(() => rmSync(directory, { recursive: true }))

async function read(
  reader: (path: string) => AsyncIterable<OldAccountItem>,
  text: string,
): Promise<OldAccountItem[]> {
  writeFileSync(file, text)
  const accounts: OldAccountItem[] = []
  for await (const account of reader(file)) accounts.push(account)
  return accounts
}

test('a passwd file', async () => {
  const accounts = await read(
    readPasswdFile,
    '# comment\n\na@x.test:{SHA512-CRYPT}$6$s$h:8:8::/home/a::userdb_quota_rule=*:storage=1G nologin\n' +
      'b:{PLAIN}p:::::\nc:*:::::/x:userdb_mail=maildir:/m/c:CONTROL=/c\nnonsense\n',
  )
  expect(accounts).toMatchObject([
    { name: 'a@x.test', hash: '{SHA512-CRYPT}$6$s$h', home: '/home/a', quota: '1G' },
    { name: 'b', hash: '{PLAIN}p', home: undefined, quota: '', isSuspended: false },
    { name: 'c', hash: '', mail: 'maildir:/m/c:CONTROL=/c' },
    { source: `${file} line 6`, refusal: 'is no line of a passwd file (user:password:…)' },
  ])
  expect(accounts[0]).toMatchObject({ isSuspended: true })
})

test("Courier's userdb", async () => {
  const accounts = await read(
    readUserdb,
    'a@x.test\tuid=8|gid=8|home=/home/a|mail=/home/a/M|quota=1000S,5C|systempw={MD5}X03MO1qnZdYdgyfeuILPmQ==\n' +
      'b@x.test\thome=/home/b|systempw=$1$a$b|pop3pw={SHA}abc|options=disablepop3=1\nnonsense\n',
  )
  expect(accounts).toMatchObject([
    {
      name: 'a@x.test',
      hash: '{LDAP-MD5}X03MO1qnZdYdgyfeuILPmQ==',
      quota: '1000',
      mail: '/home/a/M',
    },
    { name: 'b@x.test', hash: '{SHA}abc', home: '/home/b', isSuspended: true },
    { refusal: expect.stringContaining('no line of a userdb') },
  ])
})

describe('a table', () => {
  const hashes = (path: string) => readUserFile(path, { isPasswordHash: true })
  const plain = (path: string) => readUserFile(path, { isPasswordHash: false })

  test('PostfixAdmin, as mysql prints it', async () => {
    const accounts = await read(
      hashes,
      'username\tpassword\tname\tmaildir\tquota\tactive\n' +
        'a@x.test\t{BLF-CRYPT}$2y$x\tA\\tB\tx.test/a/\t0\t1\nb@x.test\t$1$x\tNULL\tx.test/b/\t512000\t0\n',
    )
    expect(accounts).toMatchObject([
      { name: 'a@x.test', hash: '{BLF-CRYPT}$2y$x', quota: '', isSuspended: false },
      { name: 'b@x.test', quota: '512000', isSuspended: true, columns: { maildir: 'x.test/b/' } },
    ])
  })

  test('CSV: a password is one, and a line that is broken stops nothing', async () => {
    const accounts = await read(
      plain,
      'address,password,hash\na@x.test," p ",\nb@x.test,,"$argon2id$v=19$m=1,t=2"\nc,d\n"e"f,,\n',
    )
    expect(accounts).toMatchObject([
      { name: 'a@x.test', password: ' p ', hash: '' },
      { name: 'b@x.test', password: '', hash: '$argon2id$v=19$m=1,t=2' },
      { refusal: 'has 2 columns instead of 3' },
      { refusal: expect.stringContaining('quote') },
    ])
  })

  test('one without names is refused', async () => {
    await expect(read(plain, 'quota,hash\n1,2\n')).rejects.toThrow('no column of names')
    await expect(read(plain, '')).rejects.toThrow('is empty')
  })
})

describe('where mail lies', () => {
  const names = { user: 'Alice@x.test', home: '/home/a', columns: { maildir: 'x.test/alice/' } }

  test.each([
    ['maildir:~/Maildir', { files: 'maildir', path: '/home/a/Maildir' }],
    ['/var/vmail/%d/%Ln', { files: 'auto', path: '/var/vmail/x.test/alice' }],
    ['/m/%1n/%1.2Ln/%u', { path: '/m/A/li/Alice@x.test' }],
    ['mbox:~/mail:INBOX=/var/mail/%Ln', { files: 'mbox', path: '/var/mail/alice' }],
    ['maildir:%h/M:CONTROL=/c/%u', { path: '/home/a/M', control: { path: '/c/Alice@x.test' } }],
    ['/var/vmail/%{maildir}', { path: '/var/vmail/x.test/alice' }],
    ['/a%%b', { path: '/a%b' }],
  ])('%s', (template, location) => {
    expect(locateMail(template, names)).toMatchObject(location)
  })

  test.each([
    ['~/Maildir', '/h', '/h/Maildir'],
    ['~/mail/in/', '/h', '/h/mail/in'],
    ['/h/mail/in', '/h', '/h/mail/in'],
    ['/m/%d/%n', '/m/x.test', '/m/x.test/Alice'],
    ['/m/%d/%n/in/Maildir', '/m/x.test/Alice', '/m/x.test/Alice/in/Maildir'],
    ['/m/%{maildir}', '/m/x.test', '/m/x.test/alice'],
    ['/m/%{maildir}/Maildir/', '/m/x.test/alice', '/m/x.test/alice//Maildir'],
    ['/m/one/Maildir', '/m/one', '/m/one/Maildir'],
    ['Maildir', '.', 'Maildir'],
  ])('%s: links are followed in %s', (template, trusted, path) => {
    const location = locateMail(template, { ...names, home: '/h/' })
    expect({ ...location, files: undefined }).toEqual({ trusted, path })
  })

  test('what is not known, and what leads elsewhere, is refused', () => {
    expect(() => locateMail('mdbox:~/mdbox', names)).toThrow('mdbox is not read')
    expect(() => locateMail('~/x', { ...names, home: undefined })).toThrow('home')
    expect(() => locateMail('/m/%{nothing}', names)).toThrow('is not known')
    expect(() => locateMail('/m/%u', { ...names, user: '../b@x.test' })).toThrow(
      'another directory',
    )
    const columns = { maildir: '../../etc/' }
    expect(() => locateMail('/m/%{maildir}', { ...names, columns })).toThrow('another directory')
  })
})
