/**
 * Runs a dialog against a peer: the pure session, or a server over TCP or TLS. Every dialog runs in
 * three ways, which must look the same to the client: one write a command, one octet a write, and
 * all commands at once (RFC 2449 §6.6).
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { type Ability, type Dialog, type EventName, type Fixtures, parseDialogs } from './dialog.ts'

/** A server, or what stands for one, that can be brought into the state that a dialog wants. */
export interface DialogPeer {
  readonly abilities: ReadonlySet<Ability>
  /** A fresh maildrop as the fixtures say, and a connection to it; the greeting is not read yet. */
  open(fixtures: Fixtures): Promise<DialogConnection>
}

export interface DialogConnection {
  write(octets: Buffer): Promise<void>
  /** More octets, undefined once the server has closed. @throws if nothing comes in time */
  read(): Promise<Buffer | undefined>
  event(name: EventName, argument: string): Promise<void>
  /** Drops the connection as a client that died, and waits until the server has noticed. */
  drop(): Promise<void>
  /** Which of the messages of the beginning are in the maildrop, by number. */
  numbersLeft(): Promise<number[]>
}

export type Mode = 'whole' | 'octets' | 'pipelined'
export const MODES: readonly Mode[] = ['whole', 'octets', 'pipelined']

/** All dialogs below a folder, ordered by file name. */
export function readDialogs(folder: string): Dialog[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.dialog'))
    .sort()
    .flatMap((name) => {
      const path = join(folder, name)
      return parseDialogs(relative(folder, path), readFileSync(path, 'utf8'))
    })
}

export function canRun(dialog: Dialog, peer: DialogPeer, mode: Mode): boolean {
  if (mode === 'pipelined' && !dialog.isPipelinable) return false
  return [...dialog.abilities].every((ability) => peer.abilities.has(ability))
}

/** @throws {Error} that shows the conversation up to where it went another way */
export async function runDialog(dialog: Dialog, peer: DialogPeer, mode: Mode): Promise<void> {
  const connection = await peer.open(dialog.fixtures)
  const run = new Run(dialog, connection, mode)
  try {
    await run.play()
  } catch (error) {
    throw new Error(`${String(error)}\nconversation:\n${run.transcript}`)
  } finally {
    await connection.drop()
  }
}

class Run {
  transcript = ''
  readonly #dialog: Dialog
  readonly #connection: DialogConnection
  readonly #mode: Mode
  #received = Buffer.alloc(0)
  #isClosed = false
  #greeting = ''

  constructor(dialog: Dialog, connection: DialogConnection, mode: Mode) {
    this.#dialog = dialog
    this.#connection = connection
    this.#mode = mode
  }

  async play(): Promise<void> {
    const { steps } = this.#dialog
    const firstCommand = steps.findIndex((step) => step.kind === 'client')
    // A dialog that begins with a command begins after the login.
    if (firstCommand === 0) await this.#logIn()
    else await this.#playAll(steps.slice(0, Math.max(firstCommand, 0)))
    const rest = steps.slice(Math.max(firstCommand, 0))
    if (this.#mode === 'pipelined') {
      const commands = rest.flatMap((step) => (step.kind === 'client' ? [step.octets] : []))
      await this.#write(Buffer.concat(commands.map((octets) => this.#fill(octets))))
      await this.#playAll(rest.filter((step) => step.kind !== 'client'))
    } else {
      await this.#playAll(rest)
    }
    await this.#checkSilence()
  }

  async #logIn(): Promise<void> {
    const { user, password } = this.#dialog.fixtures
    await this.#playAll([
      { kind: 'pattern', pattern: /^\+OK POP3 server ready.*$/ },
      { kind: 'client', octets: Buffer.from(`USER ${user}\r\n`) },
      { kind: 'pattern', pattern: /^\+OK.*$/ },
      { kind: 'client', octets: Buffer.from(`PASS ${password}\r\n`) },
      { kind: 'pattern', pattern: /^\+OK.*$/ },
    ])
  }

  async #playAll(steps: Dialog['steps']): Promise<void> {
    for (const step of steps) await this.#playOne(step)
  }

  async #playOne(step: Dialog['steps'][number]): Promise<void> {
    switch (step.kind) {
      case 'client':
        return this.#write(this.#fill(step.octets))
      case 'line':
        return expectEqual(utf8(await this.#readLine()), step.text)
      case 'pattern': {
        const line = utf8(await this.#readLine())
        if (!step.pattern.test(line)) throw new Error(`${quote(line)} is not ${step.pattern}`)
        return
      }
      case 'octets':
        return expectEqual(await this.#readText(step.octets.length), step.octets.toString('latin1'))
      case 'rest':
        while ((await this.#readLine()) !== '.');
        return
      case 'closed':
        return this.#expectClosed()
      case 'event':
        return this.#connection.event(step.name, step.argument)
      case 'left':
        return this.#expectLeft(step.numbers)
    }
  }

  async #write(octets: Buffer): Promise<void> {
    this.transcript += `C: ${quote(octets.toString('latin1'))}\n`
    if (this.#mode !== 'octets') return this.#connection.write(octets)
    for (const octet of octets) await this.#connection.write(Buffer.of(octet))
  }

  /** `{apop SECRET}` stands for the digest that belongs to this greeting (RFC 1939 §7). */
  #fill(octets: Buffer): Buffer {
    const text = octets.toString('latin1')
    const filled = text.replace(/\{apop (.*?)\}/g, (_, secret: string) => this.#digest(secret))
    return Buffer.from(filled, 'latin1')
  }

  #digest(secret: string): string {
    const [timestamp = ''] = /<[^>]*>/.exec(this.#greeting) ?? []
    return createHash('md5').update(timestamp).update(secret).digest('hex')
  }

  async #readMore(): Promise<void> {
    const octets = await this.#connection.read()
    if (octets === undefined) this.#isClosed = true
    else this.#received = Buffer.concat([this.#received, octets])
  }

  async #readLine(): Promise<string> {
    let end = this.#received.indexOf('\r\n')
    while (end === -1) {
      if (this.#isClosed) throw new Error('the server closed the connection')
      await this.#readMore()
      end = this.#received.indexOf('\r\n')
    }
    const line = (await this.#readText(end + 2)).slice(0, -2)
    if (this.#greeting === '') this.#greeting = line
    return line
  }

  async #readText(count: number): Promise<string> {
    while (this.#received.length < count) {
      if (this.#isClosed) throw new Error('the server closed the connection')
      await this.#readMore()
    }
    const octets = this.#received.subarray(0, count)
    this.#received = this.#received.subarray(count)
    const text = octets.toString('latin1')
    this.transcript += `S: ${quote(text)}\n`
    return text
  }

  async #expectClosed(): Promise<void> {
    while (!this.#isClosed) await this.#readMore()
    expectEqual(this.#received.toString('latin1'), '')
  }

  async #expectLeft(numbers: number[]): Promise<void> {
    if (!this.#isClosed) await this.#connection.drop()
    this.#isClosed = true
    expectEqual((await this.#connection.numbersLeft()).join(' '), numbers.join(' '))
  }

  /** After the last step nothing more may come: one more command gets exactly its own reply. */
  async #checkSilence(): Promise<void> {
    if (this.#isClosed) return
    await this.#write(Buffer.from('NOOP\r\n'))
    const reply = await this.#readLine()
    if (!/^(\+OK|-ERR log in first|-ERR zuerst anmelden)$/.test(reply))
      throw new Error(`left over: ${quote(reply)}`)
    expectEqual(this.#received.toString('latin1'), '')
  }
}

/** Lines are kept octet by octet; those of the server's own words are UTF-8 (RFC 6856 §3). */
function utf8(line: string): string {
  return Buffer.from(line, 'latin1').toString('utf8')
}

function expectEqual(actual: string, expected: string): void {
  if (actual !== expected) throw new Error(`got ${quote(actual)}, expected ${quote(expected)}`)
}

function quote(text: string): string {
  return JSON.stringify(text.length > 300 ? `${text.slice(0, 300)}…` : text)
}
