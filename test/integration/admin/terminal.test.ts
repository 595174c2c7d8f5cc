/**
 * The program on a terminal: what it asks, what it does not echo, what it draws. util-linux's
 * `script` lends the terminal; where it is missing these tests are skipped.
 */
import { spawn, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { hashSync } from 'bcryptjs'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { putMessage } from '../../support/mail.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, PROGRAM, type Program } from './program.ts'
import { credentialsOf } from './rows.ts'

const SCRIPT = 'script'
const hasScript = /util-linux/.test(String(spawnSync(SCRIPT, ['--version']).stdout))

let database: TestDatabase
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

interface Terminal {
  /** Waits until `text` has been written, after what was waited for before. */
  sees(text: string | RegExp): Promise<void>
  type(text: string): void
  /** Resolves at the end with all that was written. */
  readonly ended: Promise<{ status: number | null; screen: string }>
}

function openTerminal(args: readonly string[]): Terminal {
  const quoted = [process.execPath, PROGRAM, ...args].map((word) => `'${word}'`).join(' ')
  const child = spawn(SCRIPT, ['-qfec', quoted, '/dev/null'], {
    cwd: program.directory,
    env: { PATH: process.env.PATH, TERM: 'xterm', DATABASE_URL: database.url },
    stdio: 'pipe',
  })
  let screen = ''
  let seen = 0
  let hasEnded = false
  let wake = () => {}
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    screen += chunk
    wake()
  })
  const ended = new Promise<{ status: number | null; screen: string }>((resolve) => {
    child.once('close', (status) => {
      hasEnded = true
      wake()
      resolve({ status, screen })
    })
  })
  return {
    ended,
    type: (text) => void child.stdin.write(text),
    async sees(text) {
      for (;;) {
        const rest = screen.slice(seen)
        const at = typeof text === 'string' ? rest.indexOf(text) : rest.search(text)
        if (at >= 0) {
          seen += at + 1
          return
        }
        if (hasEnded) throw new Error(`ended without ${text}: ${screen}`)
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    },
  }
}

describe.runIf(hasScript)('on a terminal', () => {
  test('a password is asked twice and never echoed', async () => {
    const ids = await addUser(database.db, 'p@terminal.example', { password: 'old' })
    const before = await credentialsOf(database.db, ids)
    const terminal = openTerminal(['user', 'passwd', 'p@terminal.example'])
    await terminal.sees('Password: ')
    terminal.type('hunter2\r')
    await terminal.sees('again: ')
    terminal.type('hunter2\r')
    const { status, screen } = await terminal.ended
    expect(screen).not.toContain('hunter')
    expect(screen).toContain('changed password of p@terminal.example')
    expect(status).toBe(0)
    expect((await credentialsOf(database.db, ids)).password_hash).not.toBe(before.password_hash)
  })

  test('two different passwords change nothing', async () => {
    const ids = await addUser(database.db, 'q@terminal.example', { password: 'old' })
    const before = await credentialsOf(database.db, ids)
    const terminal = openTerminal(['user', 'passwd', 'q@terminal.example'])
    await terminal.sees('Password: ')
    terminal.type('one\r')
    await terminal.sees('again: ')
    terminal.type('other\r')
    const { status, screen } = await terminal.ended
    expect(screen).toContain('not the same')
    expect(status).toBe(1)
    expect(await credentialsOf(database.db, ids)).toEqual(before)
  })

  test('Ctrl-C at the question changes nothing', async () => {
    const ids = await addUser(database.db, 'c@terminal.example', { password: 'old' })
    const before = await credentialsOf(database.db, ids)
    const terminal = openTerminal(['user', 'passwd', 'c@terminal.example'])
    await terminal.sees('Password: ')
    terminal.type('\x03')
    expect((await terminal.ended).status).toBe(1)
    expect(await credentialsOf(database.db, ids)).toEqual(before)
  })

  test('removing says what goes and wants the name', async () => {
    const { domainId, userId } = await addUser(database.db, 'a@remove.example')
    await putMessage(database.db, domainId, [userId], 'Subject: x\r\n\r\n')
    const remove = async (typed: string) => {
      const terminal = openTerminal(['domain', 'remove', 'remove.example'])
      await terminal.sees('remove.example with 1 user and 1 message')
      await terminal.sees('Type remove.example')
      terminal.type(`${typed}\r`)
      return terminal.ended
    }
    expect((await remove('yes')).status).toBe(1)
    expect((await program.run(['domain', 'show', 'remove.example'])).status).toBe(0)
    expect((await remove('remove.example')).status).toBe(0)
    expect((await program.run(['domain', 'show', 'remove.example'])).status).toBe(1)
  })

  test('a message cannot steer the terminal', async () => {
    const { domainId, userId } = await addUser(database.db, 'm@terminal.example')
    await putMessage(database.db, domainId, [userId], 'Subject: \x1b]0;x\x07\r\n\r\nbody\r\n')
    const terminal = openTerminal(['message', 'show', 'm@terminal.example', '1'])
    const { screen } = await terminal.ended
    expect(screen).toContain('Subject: \\x1b]0;x\\x07')
    expect(screen).not.toContain('\x1b')
  })

  test('a database that says nothing for a while is told, once, and the command goes on', async () => {
    const holder = await database.db.kysely.startTransaction().execute()
    await sql`lock table domains in access exclusive mode`.execute(holder)
    const terminal = openTerminal(['domain', 'list'])
    await terminal.sees('popgres: still waiting for the database (Ctrl-C gives up)')
    await holder.rollback().execute()
    const { status, screen } = await terminal.ended
    expect(status).toBe(0)
    expect(screen.match(/still waiting/g)).toHaveLength(1)
    expect(screen).toContain('terminal.example')
  })

  test('an import of users shows how far it is', async () => {
    const hash = hashSync('secret', 4)
    const lines = Array.from({ length: 2_000 }, (_, i) => `u${i}@terminal.example,${hash}\n`)
    writeFileSync(join(program.directory, 'u.csv'), `address,hash\n${lines.join('')}`)
    const terminal = openTerminal(['user', 'import', 'u.csv'])
    await terminal.sees(/\d+\/2000 users/)
    const { status, screen } = await terminal.ended
    expect(screen).toContain('added 2000 users')
    expect(status).toBe(0)
  })

  test('Ctrl-C ends an import and gives the cursor back', async () => {
    await addUser(database.db, 'slow@terminal.example')
    const lines = Array.from({ length: 2_000 }, (_, i) => `slow${i}@terminal.example,secret\n`)
    writeFileSync(join(program.directory, 'slow.csv'), `address,password\n${lines.join('')}`)
    const terminal = openTerminal(['user', 'import', 'slow.csv'])
    await terminal.sees(/[1-9]\d*\/2000 users \(passwords are being hashed: slow\)/)
    terminal.type('\x03')
    const { status, screen } = await terminal.ended
    expect(status).not.toBe(0)
    expect(screen).not.toContain('added')
    expect(screen.lastIndexOf('\x1b[?25h')).toBeGreaterThan(screen.lastIndexOf('\x1b[?25l'))
  })
})
