/**
 * What must be true of each MTA in front of Popgres: it takes mail for who is there, refuses the
 * others while the sender is still connected, and nothing that it took is lost when it is stopped or
 * killed; doubled is only what was on its way when it was killed (RFC 5321 §4.5.4.1, RFC 1047).
 */
import { randomInt } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { CopyFolder, makeHome, runClient } from '../clients.ts'
import { MESSAGES, nameOf } from '../messages.ts'
import { HOST_NAME, PASSWORD } from '../server.ts'
import { type Answers, DOMAIN, Lab, SENDER, submitOn, WAIT } from './lab.ts'
import { MtaRoot } from './root.ts'

export interface MtaCase {
  name: string
  /** Writes its configuration. */
  configure(root: MtaRoot, lab: Lab): void
  start(root: MtaRoot): void
  /** Tries at once what waits in its queue. */
  flush(root: MtaRoot): Promise<void>
  /** Its log, for a test that failed. */
  log(root: MtaRoot): string
  /** What the sender reads for a user over quota, for an unknown one, for a domain that is not here. */
  full: RegExp
  unknown: RegExp
  foreign: RegExp
  /** What RCPT of a known user is answered while Popgres is away. */
  withoutPopgres: RegExp
  /** It asks a PostgreSQL that was away again only after a minute, or when it is started anew. */
  remembersFailures?: boolean
  /** Deliveries under way at once, at most: as many may come twice after it was killed. */
  concurrency: number
}

/** fetchmail 6.4 takes the stuffing off body lines, not off header fields. */
const NAMES = [...MESSAGES.keys()].filter((name) => name !== 'dot-field')
const QUEUED = 10
const FLOOD = 40

/** To be called inside `describeMta`. */
export function testMta(mta: MtaCase): void {
  let lab: Lab
  let root: MtaRoot

  beforeAll(async () => {
    lab = await Lab.open()
    root = new MtaRoot(mta.name)
    mta.configure(root, lab)
    await start()
  })

  afterAll(async () => {
    await root?.close()
    await lab?.close()
  })

  async function start(): Promise<void> {
    mta.start(root)
    // There is no event for it: it greets when it is ready.
    await vi.waitFor(async () => (await lab.connect()).destroy(), WAIT)
  }

  /** With what the MTA says, if it does not come true. */
  async function soon(check: () => Promise<void> | void): Promise<void> {
    await vi.waitFor(check, WAIT).catch((error: Error) => {
      error.message += `\n${mta.log(root)}\n${root.told()}`
      throw error
    })
  }

  function expectTaken({ recipients, message }: Answers): void {
    expect(message ?? '', `${recipients}\n${mta.log(root)}`).toMatch(/^250/)
  }

  const numbered = (prefix: string, count: number): Buffer[] =>
    Array.from({ length: count }, (_, index) =>
      Buffer.from(
        `From: <a@elsewhere.test>\r\nDate: Tue, 02 Jan 2024 03:04:05 +0000\r\n` +
          `Message-ID: <${prefix}${index}@elsewhere.test>\r\nSubject: ${prefix}${index}\r\n\r\n` +
          `${'x'.repeat(70)}\r\n`.repeat(randomInt(1, 300)),
      ),
    )

  it('takes mail by SMTP, and fetchmail fetches it as it was sent', async () => {
    const address = await lab.server.addUser('in-and-out')
    for (const name of NAMES) {
      expectTaken(await lab.submit([address], MESSAGES.get(name) ?? Buffer.alloc(0)))
    }
    await soon(() => expect(lab.deliveries(address)).toBe(NAMES.length))
    const copies = await fetchAll(lab, address)
    expect(copies.map(nameOf).sort()).toEqual([...NAMES].sort())
    for (const copy of copies) {
      const sent = MESSAGES.get(nameOf(copy)) ?? Buffer.alloc(0)
      expect(copy.subarray(-sent.length).equals(sent), `${nameOf(copy)} as it was sent`).toBe(true)
      expect(copy.toString('latin1')).toContain(`Delivered-To: ${address}\r\n`)
    }
  })

  it('refuses at RCPT who is unknown, full or elsewhere, and takes the others', async () => {
    const known = await lab.server.addUser('known')
    const full = await lab.server.addUser('full')
    await lab.setQuota(full, 0)
    const wanted = [`nobody@${DOMAIN}`, full, 'alice@not-hosted.test', known]
    const [message = Buffer.alloc(0)] = numbered('refusals', 1)
    const { recipients, message: reply } = await lab.submit(wanted, message)
    for (const [at, pattern] of [mta.unknown, mta.full, mta.foreign, /^250/].entries())
      expect(recipients[at], mta.log(root)).toMatch(pattern)
    expect(reply).toMatch(/^250/)
    await soon(() => expect(lab.deliveries(known)).toBe(1))
    await lab.setQuota(full, null)
    const again = await lab.submit([full], message)
    expect(again.recipients[0]).toMatch(/^250/)
    await soon(() => expect(lab.deliveries(full)).toBe(1))
  })

  it('says "later", never "no", when it cannot ask, and asks again when it can', async () => {
    const address = await lab.server.addUser('later')
    const answer = async (): Promise<string> => {
      const client = await lab.connect()
      await client.ask(`MAIL FROM:<${SENDER}>`)
      const reply = await client.ask(`RCPT TO:<${address}>`)
      client.destroy()
      return reply
    }
    for (const [what, pattern] of [
      ['popgres', mta.withoutPopgres],
      ['postgres', /^4/],
    ] as const) {
      lab.takeAway(what)
      expect(await answer(), mta.log(root)).toMatch(pattern)
      lab.heal()
      if (what === 'postgres' && mta.remembersFailures === true) {
        await root.stop('SIGTERM')
        await start()
      }
      await soon(async () => expect(await answer()).toMatch(/^250/))
    }
  })

  it('keeps what it could not deliver over a restart, and delivers it once', async () => {
    const address = await lab.server.addUser('queued')
    lab.cutAtData()
    for (const message of numbered('queued', QUEUED))
      expectTaken(await lab.submit([address], message))
    await soon(() => expect(lab.cuts).toBeGreaterThan(0))
    await root.stop('SIGTERM')
    expect(lab.deliveries(address)).toBe(0)
    lab.heal()
    await start()
    await mta.flush(root)
    await soon(async () => expect((await lab.subjects(address)).size).toBe(QUEUED))
    expect([...(await lab.subjects(address)).values()]).toEqual(Array(QUEUED).fill(1))
  })

  it('loses nothing when it is killed while it takes and delivers', async () => {
    const address = await lab.server.addUser('killed')
    const messages = numbered('killed', FLOOD)
    const waiting = [...messages]
    const killed = vi
      .waitFor(() => expect(lab.deliveries(address)).toBeGreaterThan(FLOOD / 8), WAIT)
      .then(() => root.stop('SIGKILL'))
    await flood(lab, address, waiting, killed)
    const taken = FLOOD - waiting.length
    await start()
    // As a sender would: what was not answered is sent again.
    await flood(lab, address, waiting)
    await mta.flush(root)
    await soon(async () => expect((await lab.subjects(address)).size).toBe(FLOOD))
    const copies = [...(await lab.subjects(address)).values()]
    const doubled = copies.reduce((sum, count) => sum + count - 1, 0)
    console.info(`${mta.name}: killed after ${taken} of ${FLOOD}; ${doubled} came twice`)
    expect(doubled).toBeLessThanOrEqual(mta.concurrency + 1)
  })
}

/** Takes from `waiting` what was answered with 250, until all is sent or the connection ends. */
async function flood(lab: Lab, address: string, waiting: Buffer[], end?: Promise<unknown>) {
  const client = await lab.connect()
  try {
    for (let [next] = waiting; next !== undefined; [next] = waiting) {
      const { message } = await submitOn(client, [address], next)
      if (!message?.startsWith('250')) throw new Error(`not taken: ${message}`)
      waiting.shift()
    }
  } catch (error) {
    if (end === undefined) throw error
  } finally {
    client.destroy()
    await end
  }
}

async function fetchAll(lab: Lab, address: string): Promise<Buffer[]> {
  const home = makeHome(lab.server, 'fetchmail')
  const folder = new CopyFolder(home)
  const lines = [
    'set invisible',
    `set pidfile "${join(home, 'pid')}"`,
    `poll ${HOST_NAME} service ${lab.server.pop3Port} protocol pop3 timeout 30 no dns`,
    `  auth password user "${address}" password "${PASSWORD}" sslproto ""`,
    `  no keep fetchall no rewrite no stripcr no mimedecode mda "${folder.command}"`,
  ]
  writeFileSync(join(home, 'rc'), `${lines.join('\n')}\n`, { mode: 0o600 })
  const env = { HOME: home, FETCHMAILHOME: home }
  const result = await runClient('fetchmail', ['--fetchmailrc', join(home, 'rc')], { env })
  expect(result.status, result.stderr).toBe(0)
  return folder.copies()
}
