/** The program as a whole: exit statuses, one-line errors, settings, migrating, a database away. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

const AWAY = 'postgres://popgres:hunter2@127.0.0.1:1/popgres'

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

function withProgram<T>(env: NodeJS.ProcessEnv, work: (other: Program) => Promise<T>): Promise<T> {
  const other = openProgram(env)
  return work(other).finally(() => other.close())
}

describe('wrong usage is status 2 and one line', () => {
  test.concurrent.each([
    [['nope'], /unknown command 'nope'/, ''],
    [['--nope'], /unknown option '--nope'/, ''],
    [['help', 'nope'], /unknown command 'nope'/, ''],
    [['help', 'user', 'nope'], /unknown command 'nope'/, ' user'],
    [['user', 'help', 'nope'], /unknown command 'nope'/, ' user'],
    [['domain', 'lisst'], /unknown command 'lisst' \(Did you mean list\?\)/, ' domain'],
    [['domain', 'add'], /missing required argument 'name'/, ' domain add'],
    [['user', 'add', 'a@b.c', '--quota', '1 GB', '--generate'], /500M/, ' user add'],
    [['user', 'add', 'a@b.c', '--generate', '--password-stdin'], /cannot be used/, ' user add'],
    [['user', 'passwd', 'a@b.c', '--keep-password'], /--apop or --no-apop/, ' user passwd'],
    [['user', 'passwd', 'a@b.c', '--apop', '--no-apop'], /cannot be used/, ' user passwd'],
    [['user', 'passwd', 'a@b.c', '--no-apop', '--apop'], /cannot be used/, ' user passwd'],
    [['message', 'list', 'a@b.c', '--limit', '0'], /whole number from 1/, ' message list'],
  ])('%j', async (args, line, words) => {
    const { status, stdout, stderr } = await program.run(args)
    expect(stderr).toMatch(/^popgres: [^\n]*[^.\n]; see: [^\n]+\n$/)
    expect(stderr).toMatch(line)
    expect(stderr.endsWith(`; see: popgres${words} --help\n`), stderr).toBe(true)
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  })

  test.concurrent('no command at all prints the help', async () => {
    const { status, stderr } = await program.run([])
    expect(status).toBe(2)
    expect(stderr).toContain('Usage: popgres')
  })
})

describe('help and version', () => {
  test.concurrent.each([
    ['--help', 'popgres [options]'],
    ['help', 'popgres [options]'],
    ['user add --help', 'popgres user add'],
    ['help domain', 'popgres domain'],
    ['help user add', 'popgres user add'],
    ['user help add', 'popgres user add'],
  ])('%s', async (args, usage) => {
    const { status, stdout, stderr } = await program.run(args.split(' '))
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toContain(`Usage: ${usage} `)
  })

  test.concurrent('version', async () => {
    expect(await program.run(['--version'])).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    })
  })
})

describe('settings', () => {
  test.concurrent('need no database and show no secret', () =>
    withProgram({ DATABASE_URL: AWAY, POPGRES_SECRET_KEY: 'ab'.repeat(32) }, async (other) => {
      const { status, stdout, stderr } = await other.run(['settings'])
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
      expect(stdout).toMatch(/^DATABASE_URL +\[set\] /m)
      expect(stdout).toMatch(/^POPGRES_SECRET_KEY +\[set\] /m)
      expect(stdout).not.toMatch(/hunter2|abab/)
    }))

  test.concurrent('as JSON', async () => {
    const rows = await program.json<{ name: string; value: string }[]>(['settings'])
    expect(rows.map((row) => row.name)).toContain('POPGRES_POP3_LISTEN')
    expect(Object.keys(rows[0] ?? {}).sort()).toEqual(
      ['default', 'isSecret', 'meaning', 'name', 'unit', 'value'].sort(),
    )
  })

  test.concurrent.each([
    ['POPGRES_WORKERS', 'many', /POPGRES_WORKERS is "many" but must be a whole number/],
    ['POPGRES_WROKERS', '2', /POPGRES_WROKERS is not a setting/],
    ['DATABASE_URL', 'mysql://x', /DATABASE_URL must be a postgres:\/\/ URL$/m],
  ])('a wrong one is named: %s=%s', (name, value, line) =>
    withProgram({ [name]: value }, async (other) => {
      for (const args of [['settings'], ['serve'], ['domain', 'list']]) {
        const { status, stderr } = await other.run(args)
        expect(status, args[0]).toBe(1)
        expect(stderr, args[0]).toMatch(/^[^\n]+\n$/)
        expect(stderr, args[0]).toMatch(line)
      }
    }),
  )

  test.concurrent('come from .env in the working directory, and the environment wins', () =>
    withProgram({ POPGRES_AUTOLOGOUT: '700' }, async (other) => {
      const lines = ['POPGRES_AUTOLOGOUT=800', 'POPGRES_HOSTNAME=pop.example.com', '']
      writeFileSync(join(other.directory, '.env'), lines.join('\n'))
      const { stdout, stderr } = await other.run(['settings'])
      expect(stdout).toMatch(/^POPGRES_AUTOLOGOUT +700 /m)
      expect(stdout).toMatch(/^POPGRES_HOSTNAME +pop\.example\.com /m)
      expect(stderr).toBe('')
    }))
})

describe('the database', () => {
  test.concurrent('away: one line, status 1, no password in it', () =>
    withProgram({ DATABASE_URL: AWAY }, async (other) => {
      for (const args of [['domain', 'list'], ['migrate'], ['check']]) {
        const { status, stdout, stderr } = await other.run(args)
        expect({ status, stdout }, args[0]).toEqual({ status: 1, stdout: '' })
        expect(stderr).toMatch(/^popgres: the database does not answer[^\n]*DATABASE_URL[^\n]*\n$/)
        expect(stderr).not.toContain('hunter2')
      }
    }))

  test.concurrent.each([
    ['pathname', '/not_there', /database "not_there" does not exist/],
    ['password', 'hunter2', /(password|SASL) authentication failed/],
    ['password', '', /DATABASE_URL has no password/],
  ] as const)(
    'refuses the login, %s "%s": one line that says what to check',
    (part, value, why) => {
      const url = new URL(database.url)
      url[part] = value
      return withProgram({ DATABASE_URL: url.toString() }, async (other) => {
        const { status, stderr } = await other.run(['domain', 'list'])
        expect(status).toBe(1)
        expect(stderr).toMatch(/^popgres: the database refused the login: [^\n]*\n$/)
        expect(stderr).toMatch(why)
        expect(stderr).toMatch(/: check user, password and database name in DATABASE_URL\n$/)
        expect(stderr).not.toContain('hunter2')
      })
    },
  )

  test.concurrent('none at all: says how to get one', () =>
    withProgram({}, async (other) => {
      const { status, stderr } = await other.run(['domain', 'list'])
      expect(status).toBe(1)
      expect(stderr).toMatch(/^popgres: [^\n]*npm start[^\n]*DATABASE_URL[^\n]*\n$/)
    }))

  test.concurrent('not migrated: says so, and migrate applies what is missing, once', async () => {
    const empty = await openTestDatabase(true)
    try {
      await withProgram({ DATABASE_URL: empty.url }, async (other) => {
        const before = await other.run(['domain', 'list'])
        expect(before).toMatchObject({
          status: 1,
          stderr: expect.stringMatching(/popgres migrate/),
        })
        const first = await other.run(['migrate'])
        expect(first).toMatchObject({ status: 0, stderr: '' })
        expect(first.stdout).toMatch(/^(applied \d{4}_\w+\n)+$/)
        const second = await other.run(['migrate'])
        expect(second).toEqual({ status: 0, stdout: 'nothing to apply: up to date\n', stderr: '' })
        expect((await other.run(['domain', 'list'])).status).toBe(0)
      })
    } finally {
      await empty.close()
    }
  })
})
