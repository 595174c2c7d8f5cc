/**
 * The corpus as the mail of one user of an old server: a Maildir, half of it read already, with
 * times of its own; and fetchmail as a client that keeps its mail on the server and knows by UIDL
 * what it has.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { corpusFiles } from '../../support/corpus.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { runClient } from '../clients.ts'

/** Of the first message; each has a second of its own. */
const FIRST_DELIVERY = 1_500_000_000
export const PASSWORD = 'correct horse 77'

export interface OldMessage {
  name: string
  content: Buffer
  receivedAt: Date
}

/** All that has octets: nobody imports an empty file. */
export const OLD_MESSAGES: readonly OldMessage[] = corpusFiles()
  .map(({ name, path }) => ({ name, content: readFileSync(path) }))
  .filter(({ content }) => content.length > 0)
  .map((message, index) => ({ ...message, receivedAt: new Date((FIRST_DELIVERY + index) * 1000) }))

/** One in ten, for what does not depend on the messages. */
export const SOME_MESSAGES = OLD_MESSAGES.filter((_, index) => index % 10 === 0)

/** @param owner of all files, as `chown` takes it */
export function writeOldMaildir(
  directory: string,
  owner: string,
  messages: readonly OldMessage[] = OLD_MESSAGES,
): void {
  for (const name of ['cur', 'new', 'tmp']) mkdirSync(join(directory, name), { recursive: true })
  for (const [index, { content, receivedAt }] of messages.entries())
    addOldMessage(directory, { content, receivedAt }, index, index % 2 === 0)
  execFileSync('chown', ['-R', owner, directory])
}

export function addOldMessage(
  directory: string,
  { content, receivedAt }: Pick<OldMessage, 'content' | 'receivedAt'>,
  index: number,
  isNew: boolean,
): void {
  const base = `${receivedAt.getTime() / 1000}.M${index}P7.old`
  const path = join(directory, isNew ? `new/${base}` : `cur/${base}:2,S`)
  writeFileSync(path, content)
  utimesSync(path, receivedAt, receivedAt)
}

/** What UIDL says, and every message. */
export async function readMaildrop(port: number, user: string) {
  const client = await Pop3Client.login(`127.0.0.1:${port}`, user, PASSWORD)
  const { raw } = await client.askMulti('UIDL')
  const lines = raw.toString('latin1').split('\r\n').filter(Boolean)
  const uniqueIds = lines.map((line) => line.slice(line.indexOf(' ') + 1))
  const messages: Buffer[] = []
  for (const index of uniqueIds.keys()) messages.push(await client.retrieve(`RETR ${index + 1}`))
  await client.ask('QUIT')
  return { uniqueIds, messages }
}

/** Mail that it hands over goes nowhere: what counts is which it asks for. */
export class KeepingClient {
  readonly #home: string
  readonly #user: string

  constructor(directory: string, user: string) {
    this.#home = mkdtempSync(join(directory, 'fetchmail-'))
    this.#user = user
  }

  /** @returns how many it fetched, and what it said */
  async poll(port: number): Promise<{ fetched: number; told: string }> {
    const lines = [
      'set invisible',
      `set idfile "${join(this.#home, 'ids')}"`,
      `set pidfile "${join(this.#home, 'pid')}"`,
      `poll 127.0.0.1 service ${port} protocol pop3 timeout 60 uidl no dns bad-header accept`,
      `  auth password user "${this.#user}" password "${PASSWORD}" sslproto ""`,
      '  keep no fetchall no rewrite no stripcr no mimedecode',
      '  mda "cat > /dev/null"',
    ]
    const file = join(this.#home, 'rc')
    writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600 })
    const env = { HOME: this.#home, FETCHMAILHOME: this.#home }
    const { stdout, stderr } = await runClient('fetchmail', ['-f', file, '-v', '-v'], { env })
    const told = stdout.toString('latin1') + stderr
    return { fetched: [...told.matchAll(/POP3> (?:RETR|TOP) \d+/g)].length, told }
  }
}
