/**
 * The one table of commands: which verb is legal in which state, with which arguments, and what it
 * does. `check` decides whether it may and has no effect; `proceed` acts and never refuses. Adding
 * a command is one row here, one function in its state's room, one dialog.
 */
import { checkLanguage, chooseLanguage, enableUtf8, listCapabilities } from './any-state.ts'
import { authenticate, checkMechanism } from './authentication.ts'
import {
  checkApop,
  checkPlaintext,
  checkTls,
  checkUserNamed,
  leave,
  logInWithDigest,
  logInWithPassword,
  nameUser,
  startTls,
} from './authorization.ts'
import type { Dialogue } from './dialogue.ts'
import { type Arguments, type Shape, verbKey } from './parser.ts'
import {
  ALREADY_LOGGED_IN,
  NOT_LOGGED_IN,
  type Refusal,
  UNKNOWN_COMMAND,
  wrongArguments,
} from './replies.ts'
import {
  checkNamed,
  checkPresent,
  checkTopOf,
  commit,
  doNothing,
  listSizes,
  listUniqueIds,
  markDeleted,
  retrieve,
  retrieveTop,
  tellStatus,
  unmarkAll,
} from './transaction.ts'

type CommandState = 'authorization' | 'transaction'

/** `check` and `proceed` are methods, so that rows of different shapes fit into one table. */
export interface Command<S extends Shape = Shape> {
  readonly verb: string
  readonly args: S
  check?(dialogue: Dialogue, args: Arguments[S]): Refusal | undefined
  proceed(dialogue: Dialogue, args: Arguments[S]): void
}

const IN_ANY_STATE: readonly Command[] = [
  row({ verb: 'CAPA', args: 'none', proceed: listCapabilities }), // RFC 2449 §5
  row({ verb: 'LANG', args: 'optionalName', check: checkLanguage, proceed: chooseLanguage }),
  row({ verb: 'UTF8', args: 'none', proceed: enableUtf8 }), // and LANG: RFC 6856 §2, §3
]

const COMMANDS: Readonly<Record<CommandState, readonly Command[]>> = {
  // RFC 1939 §4, §7; AUTH: RFC 5034 §4; STLS: RFC 2595 §4
  authorization: [
    row({ verb: 'USER', args: 'name', check: checkPlaintext, proceed: nameUser }),
    row({ verb: 'PASS', args: 'password', check: checkUserNamed, proceed: logInWithPassword }),
    row({ verb: 'APOP', args: 'nameAndDigest', check: checkApop, proceed: logInWithDigest }),
    row({ verb: 'AUTH', args: 'mechanism', check: checkMechanism, proceed: authenticate }),
    row({ verb: 'STLS', args: 'none', check: checkTls, proceed: startTls }),
    row({ verb: 'QUIT', args: 'none', proceed: leave }),
    ...IN_ANY_STATE,
  ],
  // RFC 1939 §5, §7; QUIT: §6
  transaction: [
    row({ verb: 'STAT', args: 'none', proceed: tellStatus }),
    row({ verb: 'LIST', args: 'optionalNumber', check: checkNamed, proceed: listSizes }),
    row({ verb: 'RETR', args: 'number', check: checkPresent, proceed: retrieve }),
    row({ verb: 'DELE', args: 'number', check: checkPresent, proceed: markDeleted }),
    row({ verb: 'NOOP', args: 'none', proceed: doNothing }),
    row({ verb: 'RSET', args: 'none', proceed: unmarkAll }),
    row({ verb: 'TOP', args: 'numberAndLines', check: checkTopOf, proceed: retrieveTop }),
    row({ verb: 'UIDL', args: 'optionalNumber', check: checkNamed, proceed: listUniqueIds }),
    row({ verb: 'QUIT', args: 'none', proceed: commit }),
    ...IN_ANY_STATE,
  ],
}

/** Commands that name messages need the frozen list of them; for the others the counters do. */
const SHAPES_OF_MESSAGES: ReadonlySet<Shape> = new Set([
  'number',
  'optionalNumber',
  'numberAndLines',
])

/** How arguments are written, for the reply to malformed ones. */
const USAGES: Readonly<Record<Shape, string>> = {
  none: '',
  name: ' name',
  password: ' password',
  nameAndDigest: ' name digest',
  mechanism: ' [mechanism [initial-response]]',
  number: ' message',
  optionalNumber: ' [message]',
  optionalName: ' [language]',
  numberAndLines: ' message lines',
}

/** A command as the session uses it: the row and what follows from it. */
export interface Transition {
  readonly command: Command
  readonly needsListing: boolean
  readonly malformed: Refusal
}

const TRANSITIONS: Readonly<Record<CommandState, ReadonlyMap<number, Transition>>> = {
  authorization: transitionsOf(COMMANDS.authorization),
  transaction: transitionsOf(COMMANDS.transaction),
}

/** @returns what `verb` (see `verbKey`) does in `state`, or why it does nothing there */
export function findTransition(state: CommandState, verb: number): Transition | Refusal {
  const transition = TRANSITIONS[state].get(verb)
  if (transition !== undefined) return transition
  const isAuthorized = state === 'transaction'
  const isKnown = TRANSITIONS[isAuthorized ? 'authorization' : 'transaction'].has(verb)
  if (!isKnown) return UNKNOWN_COMMAND
  return isAuthorized ? ALREADY_LOGGED_IN : NOT_LOGGED_IN
}

function row<S extends Shape>(command: Command<S>): Command {
  return command as unknown as Command
}

function transitionsOf(commands: readonly Command[]): ReadonlyMap<number, Transition> {
  return new Map(
    commands.map((command) => [
      verbKey(Buffer.from(command.verb, 'latin1')),
      {
        command,
        needsListing: SHAPES_OF_MESSAGES.has(command.args),
        malformed: wrongArguments(`${command.verb}${USAGES[command.args]}`),
      },
    ]),
  )
}
