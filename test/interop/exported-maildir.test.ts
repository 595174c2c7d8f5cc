/**
 * Dovecot from Debian's packages, privately started on what `popgres export` has written: its POP3
 * shows the same unique-ids in the same order, sends the same octets, and knows the passwords.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { deliver } from '../../src/storage/deliveries.ts'
import { openProgram, type Program } from '../integration/admin/program.ts'
import { corpusFiles } from '../support/corpus.ts'
import { longMessage, putMessage } from '../support/mail.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { describeClients } from './clients.ts'
import { DOMAIN, freePort, HOST, PASSWORD } from './server.ts'

const ADDRESS = `exported@${DOMAIN}`
/** Not ours: of a server before. */
const OLD_ID = 'old:id,%<"1">'

describeClients('dovecot', ['dovecot', 'doveadm'], () => {
  let database: TestDatabase
  let node: TestNode
  let program: Program
  let place: string
  let dovecot: ChildProcess
  let port: number

  beforeAll(async () => {
    database = await openTestDatabase()
    program = openProgram({ DATABASE_URL: database.url })
    place = mkdtempSync(join(tmpdir(), 'popgres-dovecot-'))
    chmodSync(place, 0o755) // its processes are of several users
    node = await startTestNode({ url: database.url })
    await fill()
    await program.json(['export', DOMAIN, '--to', join(place, 'mail')])
    port = await freePort()
    dovecot = startDovecot(place, port)
    const greeted = async () => (await Pop3Client.connect(`${HOST}:${port}`)).ask('QUIT')
    await vi.waitFor(greeted, { timeout: 30_000, interval: 50 })
  })

  afterAll(async () => {
    if (dovecot?.exitCode === null) {
      const ended = once(dovecot, 'exit')
      dovecot.kill('SIGTERM')
      await ended
    }
    await node?.stop()
    program?.close()
    await database?.close()
    rmSync(place, { recursive: true, force: true })
  })

  async function fill(): Promise<void> {
    const { domainId, userId } = await addUser(database.db, ADDRESS, { password: PASSWORD })
    const content = Buffer.from('Subject: old\r\n\r\n.From an old server\r\n')
    await deliver(database.db, {
      ...{ domainId, content, bodyId: randomUUID(), bodyOctets: content.length },
      recipients: [{ userId, prefix: Buffer.from('Delivered-To: exported\r\n') }],
      imported: { digest: Buffer.alloc(32), copy: 1, receivedAt: new Date(), uniqueId: OLD_ID },
    })
    await putMessage(database.db, domainId, [userId], longMessage(600_000))
    const names = corpusFiles().map(({ path }) => path)
    await program.run(['import', ADDRESS, ...names, '--format', 'eml'])
    // A gap in the uids, and an order that the days do not have.
    await program.run(['message', 'delete', ADDRESS, '5', '--yes'])
  }

  it('shows the unique-ids, order and octets that clients know', async () => {
    const ours = await Pop3Client.login(node.address, ADDRESS, PASSWORD)
    const theirs = await Pop3Client.login(`${HOST}:${port}`, ADDRESS, PASSWORD)
    const uidl = (await ours.askMulti('UIDL')).raw.toString('latin1')
    expect(uidl).toMatch(/^1 old:id,%<"1">\r\n2 \d{13}\.2\r\n/)
    expect((await theirs.askMulti('UIDL')).raw.toString('latin1')).toBe(uidl)
    expect((await theirs.askMulti('LIST')).raw.toString()).toBe(
      (await ours.askMulti('LIST')).raw.toString(),
    )
    const count = uidl.split('\r\n').length - 2
    expect(count).toBeGreaterThan(10)
    for (let number = 1; number <= count; number++) {
      const sent = (await theirs.askMulti(`RETR ${number}`)).raw
      const expected = (await ours.askMulti(`RETR ${number}`)).raw
      // CLIENT: Dovecot 2.3 does not stuff a dot that is a message's first octet.
      const isDotFirst = expected.toString('latin1', 0, 2) === '..'
      const stuffed = isDotFirst && sent[1] !== expected[1] ? expected.subarray(1) : expected
      expect(sent.equals(stuffed), `message ${number}`).toBe(true)
    }
    for (const client of [ours, theirs]) await client.ask('QUIT')
  })
})

function startDovecot(place: string, port: number): ChildProcess {
  const users = JSON.parse(readFileSync(join(place, 'mail', 'users.json'), 'utf8'))
  const lines = users.map(
    ({ address, hash }: Record<string, string>) => `${address}:{ARGON2ID}${hash}\n`,
  )
  writeFileSync(join(place, 'passwords'), lines.join(''))
  execFileSync('chown', ['-R', 'mail:mail', join(place, 'mail')])
  mkdirSync(join(place, 'run'))
  const configuration = join(place, 'dovecot.conf')
  writeFileSync(configuration, formatConfiguration(place, port))
  return spawn('dovecot', ['-F', '-c', configuration], { stdio: 'ignore' })
}

const formatConfiguration = (place: string, port: number): string => `
base_dir = ${join(place, 'run')}
state_dir = ${join(place, 'state')}
log_path = ${join(place, 'log')}
protocols = pop3
listen = ${HOST}
ssl = no
disable_plaintext_auth = no
mail_location = maildir:${join(place, 'mail')}/%n
mail_uid = mail
mail_gid = mail
mail_privileged_group =
first_valid_uid = 1
first_valid_gid = 1
namespace inbox {
  inbox = yes
}
passdb {
  driver = passwd-file
  args = username_format=%u ${join(place, 'passwords')}
}
userdb {
  driver = static
  args = uid=mail gid=mail home=${join(place, 'mail')}/%n
}
service pop3-login {
  inet_listener pop3 {
    address = ${HOST}
    port = ${port}
  }
  inet_listener pop3s {
    port = 0
  }
  chroot =
}
`
