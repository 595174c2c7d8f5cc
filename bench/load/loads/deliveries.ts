/**
 * Mail coming in by LMTP, and a day as it is: polls, fetches of what is new, deliveries alongside.
 * What was said to be delivered is fetched and compared.
 */
import { DELIVER, deliverUser, messageOf, wireOf } from '../content.ts'
import { LmtpClient } from '../lmtp-client.ts'
import { checkUniqueIds } from '../mailbox.ts'
import type { Pop3Client } from '../pop3-client.ts'
import { quit, type Stage } from '../stage.ts'
import { poll, turnsOf } from './polls.ts'

/** Of each recipient this many of the last messages are compared afterwards. */
const COMPARED = 5
/** Messages made before, and sent in turn. */
const DISTINCT = 32

interface Recipient {
  user: string
  wires: Buffer[]
  /** in the maildrop before the first delivery */
  before: number
  delivered: number
}

const wireNumber = ({ wires }: Recipient, number: number): Buffer =>
  wires[number % wires.length] ?? Buffer.alloc(0)

async function makeRecipients(stage: Stage): Promise<Recipient[]> {
  const recipients: Recipient[] = []
  for (let n = 1; n <= DELIVER.users; n++) {
    const user = deliverUser(n)
    const wires = Array.from({ length: DISTINCT }, (_, at) =>
      wireOf(messageOf(user, at, DELIVER.octets)),
    )
    recipients.push({ user, wires, before: await countOf(stage, user), delivered: 0 })
  }
  return recipients
}

async function countOf(stage: Stage, user: string): Promise<number> {
  const client = await stage.openSession(stage.job.pop3, user)
  const count = await countUniqueIds(client)
  await quit(client)
  return count
}

function countUniqueIds(client: Pop3Client): Promise<number> {
  return new Promise((resolve) => {
    client.expectListing((body) => {
      resolve(checkUniqueIds(body))
    })
    client.write('UIDL\r\n')
  })
}

const retrieveDelivered = (client: Pop3Client, number: number, wire: Buffer): Promise<void> =>
  new Promise((resolve) => {
    client.expectDelivered(DELIVER.octets, wire, () => resolve())
    client.write(`RETR ${number}\r\n`)
  })

function deliverTo(client: LmtpClient, recipient: Recipient, done: () => void): void {
  client.deliver(recipient.user, wireNumber(recipient, recipient.delivered), () => {
    recipient.delivered += 1
    done()
  })
}

async function openLmtp(stage: Stage, count: number): Promise<LmtpClient[]> {
  const clients = Array.from({ length: count }, () => new LmtpClient(stage.lmtp, stage.window.fail))
  await Promise.all(clients.map((client) => new Promise<void>((done) => client.open(done))))
  return clients
}

/** Each connection to a recipient of its own. */
export async function deliver(stage: Stage): Promise<void> {
  const { window } = stage
  const recipients = await makeRecipients(stage)
  const clients = await openLmtp(stage, DELIVER.users)
  window.open()
  const loops = clients.map(
    (client, at) =>
      new Promise<void>((resolve) => {
        const recipient = recipients[at]
        const next = (): void => {
          if (recipient === undefined || window.isOver) {
            resolve()
            return
          }
          const began = performance.now()
          deliverTo(client, recipient, () => {
            window.count(performance.now() - began, DELIVER.octets)
            next()
          })
        }
        next()
      }),
  )
  await window.until(loops)
  for (const client of clients) client.close()
  for (const recipient of recipients) await verify(stage, recipient)
}

async function verify(stage: Stage, recipient: Recipient): Promise<void> {
  const { user, before, delivered } = recipient
  const client = await stage.openSession(stage.job.pop3, user)
  const count = await countUniqueIds(client)
  if (count !== before + delivered)
    throw new Error(`${user} has ${count} messages, not ${before} and ${delivered} more`)
  for (let at = Math.max(0, delivered - COMPARED); at < delivered; at++)
    await retrieveDelivered(client, before + at + 1, wireNumber(recipient, at))
  await quit(client)
}

/** Of so many operations one fetches what is new. */
const FETCH_EVERY = 20
const NEW_MESSAGES = 2
const DELIVERING = 2

/** 95 polls, 5 fetches, 10 deliveries: who has fetched gets new mail, and may fetch again. */
export async function mixedDay(stage: Stage): Promise<void> {
  const { job, window } = stage
  const recipients = await makeRecipients(stage)
  const clients = await openLmtp(stage, DELIVERING)
  const lanes = clients.map((client) => ({ client, tail: Promise.resolve() }))
  const hasNew: Recipient[] = []
  let refills = 0
  const refill = (recipient: Recipient): void => {
    const lane = lanes[refills++ % lanes.length]
    if (lane === undefined) return
    lane.tail = lane.tail.then(async () => {
      if (window.isOver) return
      for (let i = 0; i < NEW_MESSAGES; i++)
        await new Promise<void>((done) => deliverTo(lane.client, recipient, done))
      window.sum('deliveries', NEW_MESSAGES)
      hasNew.push(recipient)
    })
  }
  const turns = turnsOf(job.users)
  const pollOne = async (): Promise<void> => {
    const user = turns.take()
    const kind = { hasUidl: true, endpoint: job.pop3 }
    await new Promise<void>((done) => poll(stage, kind, user, done))
    turns.giveBack(user)
  }
  for (const recipient of recipients) refill(recipient)
  let operation = 0
  window.open()
  const loops = Array.from({ length: Math.min(job.atOnce, job.users.count) }, async () => {
    while (!window.isOver) {
      const recipient = ++operation % FETCH_EVERY === 0 ? hasNew.shift() : undefined
      if (recipient === undefined) await pollOne()
      else {
        await fetchNew(stage, recipient)
        refill(recipient)
      }
    }
  })
  await window.until(loops)
  await Promise.all(lanes.map(({ tail }) => tail))
  for (const client of clients) client.close()
}

async function fetchNew(stage: Stage, recipient: Recipient): Promise<void> {
  const began = performance.now()
  const client = await stage.openSession(stage.job.pop3, recipient.user)
  const count = await countUniqueIds(client)
  const { before, delivered } = recipient
  if (count !== before + NEW_MESSAGES) throw new Error(`${recipient.user} has ${count} messages`)
  for (let i = 0; i < NEW_MESSAGES; i++) {
    const number = before + i + 1
    const wire = wireNumber(recipient, delivered - NEW_MESSAGES + i)
    await retrieveDelivered(client, number, wire)
    await new Promise<void>((resolve) => {
      client.expectOk(resolve)
      client.write(`DELE ${number}\r\n`)
    })
  }
  await quit(client)
  stage.window.count(performance.now() - began, NEW_MESSAGES * DELIVER.octets)
  stage.window.sum('fetches', 1)
}
