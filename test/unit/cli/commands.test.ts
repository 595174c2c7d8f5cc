/** The command tree as a whole: what must hold for every command, today's and tomorrow's. */
import type { Command } from 'commander'
import { describe, expect, test } from 'vitest'
import { describeSettings } from '../../../src/cli/admin/maintenance-commands.ts'
import { defineCommands } from '../../../src/cli/commands.ts'

function leavesOf(command: Command, words: readonly string[] = []): [string, Command][] {
  const path = [...words, command.name()]
  if (command.commands.length === 0) return [[path.join(' '), command]]
  // Some do something themselves, too.
  const own: [string, Command][] =
    command.registeredArguments.length === 0 ? [] : [[path.join(' '), command]]
  return [...own, ...command.commands.flatMap((child) => leavesOf(child, path))]
}

const all = leavesOf(defineCommands({ env: {}, status: 0 }))
const leaves = all.filter(([name]) => !name.endsWith(' help'))

function fullHelp(command: Command): string {
  const parts: string[] = []
  command.configureOutput({ writeOut: (part) => void parts.push(part) })
  command.outputHelp()
  return parts.join('')
}

test('the commands that the documentation names are there', () => {
  const names = leaves.map(([name]) => name.replace('popgres ', ''))
  const nouns = {
    domain: ['add', 'list', 'show', 'suspend', 'resume', 'remove', 'quota', 'migrate'],
    'domain alias': ['add', 'list', 'remove'],
    alias: ['add', 'list', 'remove'],
    user: ['add', 'list', 'show', 'passwd', 'main-password', 'suspend', 'resume', 'remove'].concat([
      'quota',
      'import',
    ]),
    credential: ['add', 'list', 'revoke'],
    policy: ['set', 'show'],
    throttle: ['list', 'clear'],
    certificate: ['add', 'list', 'remove'],
    host: ['add', 'list', 'remove'],
    oauth: ['set', 'show', 'remove'],
    secret: ['list', 'rotate'],
    session: ['list', 'kick'],
    message: ['list', 'show', 'delete', 'history', 'restore', 'erase'],
    hold: ['set', 'list', 'release'],
    import: ['dovecot', 'courier', 'postfixadmin', 'csv', 'imap', 'dbmail', 'pop3', 'popgres'],
  }
  const wanted = Object.entries(nouns).flatMap(([noun, verbs]) => verbs.map((v) => `${noun} ${v}`))
  const single = [
    'serve',
    'migrate',
    'settings',
    'check',
    'import',
    'export',
    'restore',
    'erase',
    'health',
  ]
  expect(names.sort()).toEqual([...single, ...wanted].sort())
})

test('each command that has others below it explains them by help', () => {
  const helps = all.map(([name]) => name).filter((name) => name.endsWith(' help'))
  const above = new Set(leaves.map(([name]) => name.replace(/ \S+$/, '')))
  expect(helps.sort()).toEqual([...above].map((name) => `${name} help`).sort())
})

test.each(['add', 'passwd'])('user %s warns of what APOP does to others', (verb) => {
  const command = leaves.find(([name]) => name === `popgres user ${verb}`)?.[1] as Command
  expect(fullHelp(command)).toMatch(/APOP to all[^.]*curl, MailKit[^.]*only a password/)
})

/** What these remove the operator has, and adds again. */
const RESTORABLE = ['alias', 'certificate', 'domain alias', 'host', 'oauth'].map(
  (noun) => `popgres ${noun} remove`,
)

describe.each(leaves)('%s', (name, command) => {
  test('says what it does and how it is written', () => {
    expect(command.description()).toMatch(/^[a-z]/)
    expect(fullHelp(command)).toContain(`Usage: ${name}`)
    for (const option of command.options) expect(option.description, option.long).not.toBe('')
  })

  test('takes no secret as an argument: ps would show it', () => {
    const taking = command.options.filter((option) => option.required || option.optional)
    const words = [
      // A file's name is none.
      ...taking.map((option) => option.flags).filter((flags) => !flags.endsWith('<file>')),
      ...command.registeredArguments.map((argument) => argument.name()),
    ]
    expect(words.filter((word) => /pass|secret|key|hash|token/i.test(word))).toEqual([])
  })

  test('reads: prints JSON too; removes: can be told not to ask', () => {
    const verb = name.split(' ').at(-1) ?? ''
    const has = (long: string) => command.options.some((option) => option.long === long)
    const isRaw = name === 'popgres message show' // prints the message itself
    if (['list', 'show', 'settings', 'check'].includes(verb) && !isRaw)
      expect(has('--json')).toBe(true)
    const isLoss = ['remove', 'delete'].includes(verb) && !RESTORABLE.includes(name)
    if (isLoss) expect(has('--yes')).toBe(true)
  })

  test('its help fits a terminal', () => {
    const tooWide = fullHelp(command)
      .split('\n')
      .filter((line) => line.length > 100)
    expect(tooWide).toEqual([])
  })
})

describe('settings', () => {
  test('a secret is told as set or not set, from its variable or its file', () => {
    const shownValue = (env: NodeJS.ProcessEnv) =>
      describeSettings(env).find((row) => row.name === 'DATABASE_URL')?.value
    expect(shownValue({})).toBe('[not set]')
    expect(shownValue({ DATABASE_URL: '' })).toBe('[not set]')
    expect(shownValue({ DATABASE_URL: 'postgres://a:hunter2@b/c' })).toBe('[set]')
    expect(shownValue({ DATABASE_URL_FILE: '/run/secrets/url' })).toBe('[set]')
  })

  test('what is set is shown beside its default', () => {
    const [row] = describeSettings({ POPGRES_AUTOLOGOUT: '900' }).filter(
      (each) => each.name === 'POPGRES_AUTOLOGOUT',
    )
    expect(row).toMatchObject({ value: '900', default: '600', unit: 'seconds', isSecret: false })
  })

  test('every one has a unit and a meaning', () => {
    for (const row of describeSettings({})) {
      expect(row.unit, row.name).not.toBe('')
      expect(row.meaning, row.name).not.toBe('')
    }
  })
})
