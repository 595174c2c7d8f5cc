/**
 * What all commands that move an old server in have in common: their options, the run with its
 * progress bar, and the closing report. What an account of a list becomes is in old-users.ts.
 */
import type { Command } from 'commander'
import { refused } from '../../admin/refusal.ts'
import type { AliasReport, OldAliases } from '../../admin/transfer/move-aliases.ts'
import {
  type MoveInOptions,
  type MoveInReport,
  moveIn,
  type OldUser,
} from '../../admin/transfer/move-in.ts'
import { type CommandContext, type Link, withDatabase } from '../command-context.ts'
import { formatCount, formatJson, harmlessLine } from '../output.ts'
import { startProgress } from '../progress.ts'

export interface MoveInFlags {
  only?: string[]
  domain?: string
  addDomains?: boolean
  newIds?: boolean
  dryRun?: boolean
  json?: boolean
}

/** Options that every old server has. */
export function addMoveInOptions(command: Command): Command {
  return addRunOptions(command.option('--domain <name>', 'the domain of names that have none'))
}

/** Those of them that have nothing to do with what the server is. */
export function addRunOptions(command: Command): Command {
  return command
    .option('--only <who...>', 'these addresses or domains alone')
    .option('--add-domains', 'add the domains that are not there')
    .option('--new-ids', 'a message whose unique-id cannot be kept comes in with a new one')
    .option('--dry-run', 'read everything, write nothing, print the same report')
    .option('--json', 'print the report as JSON')
}

export const MOVE_IN_HELP = `
Can be stopped and started again: what is in already is not brought in twice, and what was deleted
since stays deleted. Users who are there already keep their password; a new one gets it when all
mail is in. What was refused is told with the reason, one line each, on standard error (with --json
in the report), and the status is 1. docs/moving-in.md has the whole way.
`

/** What there is to bring, and how to let go of where it came from. */
export interface OldServer {
  users: readonly OldUser[]
  aliases?: OldAliases
  domains?: MoveInOptions['domains']
  close?: () => Promise<void>
}

export function runMoveIn(
  context: CommandContext,
  flags: MoveInFlags,
  open: (link: Link) => Promise<OldServer>,
): Promise<void> {
  return withDatabase(context, async (link) => {
    const server = await open(link)
    const isWanted = (name: string) => isAmong(name, flags.only)
    const users = server.users.filter(({ address = '' }) => isWanted(address))
    if (flags.only !== undefined && users.length === 0 && !server.aliases?.addresses.length) {
      await server.close?.()
      throw refused(`nobody among the old server's users is ${flags.only.join(' or ')}`)
    }
    const aliases = server.aliases && { ...server.aliases, isWanted }
    const progress = startProgress(users.length, 'users')
    try {
      const report = await moveIn(link.db, users, {
        messageMaxOctets: link.settings.POPGRES_MESSAGE_MAX_OCTETS,
        isDryRun: flags.dryRun === true,
        addsDomains: flags.addDomains === true,
        replacesUniqueIds: flags.newIds === true,
        aliases,
        domains: server.domains,
        isAll: isWanted,
        onProgress: (done) => progress.update(Math.floor(done * 100) / 100),
      })
      progress.stop()
      printReport(report, flags)
      if (problemsOf(report).length > 0) context.status = 1
    } finally {
      progress.stop()
      await server.close?.()
    }
  })
}

/** @param name an address, or a domain */
function isAmong(name: string, only: readonly string[] | undefined): boolean {
  if (only === undefined) return true
  const wanted = only.map((each) => each.toLowerCase())
  const own = name.toLowerCase()
  return wanted.includes(own) || wanted.includes(own.slice(own.lastIndexOf('@') + 1))
}

function printReport(report: MoveInReport, flags: MoveInFlags): void {
  if (flags.json === true) {
    process.stdout.write(formatJson(report))
    return
  }
  for (const line of problemsOf(report)) process.stderr.write(`${harmlessLine(line)}\n`)
  process.stdout.write(formatReport(report))
}

function problemsOf({ users, messages, aliases, domainAliases }: MoveInReport): string[] {
  return [
    ...users.refused.map(({ source, address, reason }) =>
      address === '' ? `${source}: ${reason}` : `${source}: ${address}: ${reason}`,
    ),
    ...users.withoutPassword.map(
      ({ address, reason }) =>
        `${address}: no password (${reason}): set one with "popgres user passwd ${address}"`,
    ),
    ...users.unfinished.map(({ address, reason }) => `${address}: not finished: ${reason}`),
    ...messages.skipped.map(({ address, source, reason }) => `${address}: ${source}: ${reason}`),
    ...[...domainAliases.refused, ...aliases.refused].map(({ source, name, target, reason }) =>
      name === '' ? `${source}: ${reason}` : `${source}: ${name} to ${target}: ${reason}`,
    ),
  ]
}

function formatReport(report: MoveInReport): string {
  const { isDryRun, domainsAdded, users, messages } = report
  const would = isDryRun ? 'would be ' : ''
  const lines = [
    `users: ${users.added} ${would}added, ${users.present} were there already, ` +
      `${users.refused.length} refused, ${users.withoutPassword.length} without a password, ` +
      `${users.unfinished.length} not finished`,
    `messages: ${messages.imported} ${would}imported, ${messages.alreadyImported} were in ` +
      `already, ${messages.skipped.length} refused; ${messages.unseen} of all have a new ` +
      'unique-id, as no client has seen them or the source has none',
  ]
  for (const [what, { added, present, refused }] of [
    ['domain aliases', report.domainAliases],
    ['aliases', report.aliases],
  ] satisfies [string, AliasReport][])
    if (added + present + refused.length > 0)
      lines.push(
        `${what}: ${added} ${would}added, ${present} were there already, ` +
          `${formatCount(refused.length, 'target')} refused`,
      )
  for (const { domain, names } of report.otherSettings)
    lines.push(`${domain} was there already and keeps its own ${names.join(', ')}`)
  if (domainsAdded.length > 0)
    lines.unshift(`${formatCount(domainsAdded.length, 'domain')} ${would}added`)
  if (isDryRun) lines.push('nothing was changed')
  return lines.map((line) => `${line}\n`).join('')
}
