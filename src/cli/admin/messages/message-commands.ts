/**
 * `popgres message …`: what lies in a maildrop. The operations are in admin/operations/messages.ts.
 */
import { once } from 'node:events'
import { type Command, InvalidArgumentError } from 'commander'
import { formatOctets } from '../../../admin/octets.ts'
import {
  deleteMessages,
  listMessages,
  type MessageSummary,
  readMessage,
} from '../../../admin/operations/messages.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import {
  type Column,
  formatCount,
  formatJson,
  formatMoment,
  formatTable,
  harmlessText,
} from '../../output.ts'
import { confirmLoss } from '../../prompt.ts'
import { defineMessageHistory } from './history-command.ts'
import { defineMessageErase, defineMessageRestore } from './undo-commands.ts'

/** A list is for the eye: more than this is asked for with --after. */
const LIST_LIMIT = 1_000
const LIST_LIMIT_MAX = 10_000

const COLUMNS: readonly Column<MessageSummary>[] = [
  { title: 'UID', cell: (message) => message.uid, isRight: true },
  { title: 'SIZE', cell: (message) => formatOctets(message.octets), isRight: true },
  { title: 'RECEIVED', cell: (message) => formatMoment(message.receivedAt) },
  { title: 'UNIQUE-ID', cell: (message) => message.uniqueId },
  { title: 'SUBJECT', cell: (message) => message.subject },
]

const ON_NAMES = `
A message is named by its UID as "message list" shows it, or by its unique-id as UIDL shows it to
clients. If a number is the UID of one message and the unique-id of another, write uid:3 or id:3.
The numbers 1, 2, 3 of a POP3 session name nothing here.
`

export function defineMessageCommands(program: Command, context: CommandContext): void {
  const message = program
    .command('message')
    .description('see, delete and put back the messages of a user')
  defineList(message, context)
  defineShow(message, context)
  defineDelete(message, context)
  defineMessageHistory(message, context)
  defineMessageRestore(message, context)
  defineMessageErase(message, context)
}

interface ListOptions {
  after: number
  limit: number
  json?: boolean
}

function defineList(message: Command, context: CommandContext): void {
  message
    .command('list')
    .description('list the messages of a user, the oldest first')
    .argument('<address>')
    .option('--after <uid>', 'begin after this UID', parseWhole(0, 2_147_483_647), 0)
    .option('--limit <count>', 'this many at most', parseWhole(1, LIST_LIMIT_MAX), LIST_LIMIT)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
If there are more than --limit, a line on standard error says how to go on.

Examples:
  popgres message list alice@example.com
  popgres message list alice@example.com --after 1000 --json
`,
    )
    .action((address: string, options: ListOptions) =>
      withDatabase(context, async ({ db }) => {
        const page = { afterUid: options.after, limit: options.limit }
        const { messages, hasMore } = await listMessages(db, address, page)
        process.stdout.write(options.json ? formatJson(messages) : formatTable(COLUMNS, messages))
        const last = messages.at(-1)
        if (hasMore && last !== undefined)
          process.stderr.write(`there are more: add --after ${last.uid}\n`)
      }),
    )
}

function defineShow(message: Command, context: CommandContext): void {
  message
    .command('show')
    .description('print a message as RETR sends it')
    .argument('<address>')
    .argument('<uid>', 'UID or unique-id')
    .addHelpText(
      'after',
      `${ON_NAMES}
On a terminal control characters are shown as escapes; into a file or pipe go the octets as they
are.

Examples:
  popgres message show alice@example.com 17
  popgres message show alice@example.com 17 > message.eml
`,
    )
    .action((address: string, id: string) =>
      withDatabase(context, async ({ db }) => {
        const { pieces } = await readMessage(db, address, id)
        const isTerminal = process.stdout.isTTY === true
        for await (const piece of isTerminal ? toHarmlessText(pieces) : pieces)
          if (!process.stdout.write(piece)) await once(process.stdout, 'drain')
      }),
    )
}

/** A character, or a CRLF, may be cut in two by the pieces. */
async function* toHarmlessText(pieces: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let held = ''
  for await (const piece of pieces) {
    const text = held + decoder.decode(piece, { stream: true })
    held = text.endsWith('\r') ? '\r' : ''
    yield harmlessText(text.slice(0, text.length - held.length))
  }
  yield harmlessText(held + decoder.decode())
}

function defineDelete(message: Command, context: CommandContext): void {
  message
    .command('delete')
    .description('move messages to the trash, as if the user had deleted them')
    .argument('<address>')
    .argument('<uid...>', 'UIDs or unique-ids')
    .option('--yes', 'do not ask')
    .option('--kick', 'end the session of the user first, if there is one')
    .addHelpText(
      'after',
      `${ON_NAMES}
Refused while the user has a session. Status 1 if one of the messages was not there.

Examples:
  popgres message delete alice@example.com 17 18
  popgres message delete alice@example.com 17 --kick --yes
`,
    )
    .action((address: string, ids: string[], options: { yes?: boolean; kick?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const loss = `This removes ${formatCount(ids.length, 'message')} of ${address}.`
        await confirmLoss(address, loss, options.yes === true)
        const { deleted, missing } = await deleteMessages(db, address, ids, options.kick === true)
        process.stdout.write(`deleted ${formatCount(deleted, 'message')} of ${address}\n`)
        if (missing.length === 0) return
        process.stderr.write(`not there: ${missing.join(' ')}\n`)
        context.status = 1
      }),
    )
}

function parseWhole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`It is a whole number from ${min} to ${max}.`)
  }
}
