/**
 * What is asked of the person at the terminal, and secrets read from standard input. A password is
 * never an argument: arguments are seen by everybody in `ps` and stay in the shell's history.
 */
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { refused } from '../admin/refusal.ts'
import { Secret } from '../base/secret.ts'

/** LIMIT: a password is one line; a whole file on standard input is a mistake. */
const STDIN_MAX_OCTETS = 4_096

function isTerminal(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true
}

async function ask(question: string, isHidden: boolean): Promise<string> {
  // The question is written by us and readline's echo goes to a sink when it must stay hidden.
  const sink = new Writable({ write: (_chunk, _encoding, done) => done() })
  const terminal = createInterface({
    input: process.stdin,
    output: isHidden ? sink : process.stderr,
    terminal: true,
    historySize: 0,
  })
  const interrupted = new AbortController()
  terminal.once('SIGINT', () => interrupted.abort())
  terminal.once('close', () => interrupted.abort())
  try {
    if (isHidden) process.stderr.write(question)
    return await terminal.question(isHidden ? '' : question, { signal: interrupted.signal })
  } catch (error) {
    if (interrupted.signal.aborted) throw refused('stopped: nothing was changed', error)
    throw error
  } finally {
    if (isHidden) process.stderr.write('\n')
    terminal.close()
  }
}

/** Asks twice, without echo. @throws {Failure} OPERATION_REFUSED if there is no terminal */
export async function promptPassword(what: string): Promise<Secret> {
  if (!isTerminal()) throw refused('no terminal to ask on: give --password-stdin or --generate')
  const first = await ask(`${what}: `, true)
  if (first !== (await ask(`${what} again: `, true)))
    throw refused('the two were not the same: nothing was changed')
  return new Secret(first)
}

/**
 * What destroys wants the name typed, or --yes.
 * @param loss what will happen, told first: whole sentences
 * @throws {Failure} OPERATION_REFUSED unless `name` was typed
 */
export async function confirmLoss(name: string, loss: string, isYes: boolean): Promise<void> {
  if (isYes) return
  if (!isTerminal()) throw refused(`${loss} Nothing was changed: add --yes to go ahead`)
  process.stderr.write(`${loss}\n`)
  const typed = await ask(`Type ${name} to go ahead: `, false)
  if (typed.trim().toLowerCase() !== name.toLowerCase())
    throw refused('that was not the name: nothing was changed')
}

/**
 * The first lines of standard input, without their line ends.
 * @param max how many are looked at; those beyond are a mistake
 * @throws {Failure} OPERATION_REFUSED if there is none or too many
 */
export async function readSecretLines(max: number): Promise<Secret[]> {
  const chunks: Buffer[] = []
  let octets = 0
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer)
    octets += (chunk as Buffer).length
    if (octets > STDIN_MAX_OCTETS) throw refused('standard input is too long for a password')
  }
  const lines = Buffer.concat(chunks).toString('utf8').split(/\r?\n/)
  if (lines.at(-1) === '') lines.pop()
  if (lines.length === 0) throw refused('standard input is empty: its first line is the password')
  if (lines.length > max)
    throw refused(
      max === 1
        ? 'standard input has more than one line: only the password goes there'
        : `standard input has more than ${max} lines: the password, then the APOP secret`,
    )
  return lines.map((line) => new Secret(line))
}
