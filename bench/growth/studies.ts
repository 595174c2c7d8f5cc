/** What may grow, each with the operations that it must not make dearer. */
import { DOMAIN, messageOf, wireOf } from '../load/content.ts'
import { pssKib } from '../measure/processes.ts'
import type { LineSession } from './line-session.ts'
import { APP_PASSWORD, type Mail } from './mail.ts'
import type { Point, Stage, Study } from './study.ts'

export interface Sizes {
  sessions: readonly number[]
  messages: readonly number[]
  users: readonly number[]
  databaseGb: readonly number[]
  cycles: number
}

/** Users that are logged in, spread over all there are: an argon2 each, before it is measured. */
const SAMPLE = 32
const TIMES = 200
const OCTETS = 10_240

const address = (localPart: string): string => `${localPart}@${DOMAIN}`

/** Every so many-th of `count`, numbered from 1. */
const sampleOf = (prefix: string, count: number): string[] =>
  Array.from({ length: Math.min(SAMPLE, count) }, (_, turn) =>
    address(`${prefix}${1 + Math.floor((turn * count) / Math.min(SAMPLE, count))}`),
  )

const pick = <T>(from: readonly T[], turn: number): T => from[turn % from.length] as T

async function pollAll(stage: Stage, addresses: readonly string[]): Promise<void> {
  for (const each of addresses) await stage.poll(each)
}

/** Idle sessions beside one that polls. */
export async function growSessions(stage: Stage, mail: Mail, sizes: Sizes): Promise<Study> {
  const most = Math.max(...sizes.sessions)
  await mail.addUsers('idle', 1, most)
  await mail.addAppPasswords('idle')
  await mail.addUsers('poll', 1, SAMPLE)
  await mail.settle()
  const pollers = sampleOf('poll', SAMPLE)
  await pollAll(stage, pollers)
  const open: LineSession[] = []
  const points: Point[] = []
  const memory = (): number => {
    const { server, database } = stage.server.pids()
    return pssKib([...server, ...database])
  }
  let first: { size: number; kib: number } | undefined
  for (const size of sizes.sessions) {
    while (open.length < size) {
      const from = open.length
      const width = Math.min(16, size - from)
      const batch = Array.from({ length: width }, (_, i) => address(`idle${from + i + 1}`))
      open.push(...(await Promise.all(batch.map((each) => stage.login(each, APP_PASSWORD)))))
    }
    const point = await stage.measure('poll', size, TIMES, (i) => stage.poll(pick(pollers, i)))
    const kib = memory()
    first ??= { size, kib }
    // Of fewer it would be what the heaps happen to hold.
    if (size < 1_000) points.push(point)
    else points.push({ ...point, memoryKib: (kib - first.kib) / (size - first.size) })
  }
  await Promise.all(open.map((session) => session.close()))
  return { title: 'Sessions open at once', sizeLabel: 'idle sessions', points }
}

/** One maildrop; each operation by itself. */
export async function growMaildrop(stage: Stage, mail: Mail, sizes: Sizes): Promise<Study> {
  await mail.addUsers('drop', 1, 1)
  const points: Point[] = []
  const owner = address('drop1')
  let count = 0
  for (const size of sizes.messages) {
    await mail.addMessages('drop', size - count, 1_024)
    await mail.settle()
    await stage.poll(owner)
    points.push(await stage.measure('login, STAT, QUIT', size, 50, () => stage.poll(owner)))
    const inSession = async (
      name: string,
      work: (session: LineSession) => Promise<unknown>,
    ): Promise<void> => {
      const durations = size > 100_000 ? 3 : 10
      const act = async (): Promise<void> => {
        const session = await stage.login(owner)
        await work(session)
        await session.close()
      }
      points.push(await stage.measure(`login, ${name}`, size, durations, act))
    }
    const checked = async (listing: Promise<number>): Promise<void> => {
      const lines = await listing
      if (lines !== size) throw new Error(`${lines} of ${size} messages are listed`)
    }
    await inSession('LIST', (session) => checked(session.askMulti('LIST')))
    await inSession('UIDL', (session) => checked(session.askMulti('UIDL')))
    await inSession('RETR of one', (session) => session.askMulti(`RETR ${(size >> 1) + 1}`))
    const deletion = async (): Promise<void> => {
      const session = await stage.login(owner)
      await session.ask('DELE 1')
      await session.quit()
    }
    points.push(await stage.measure('login, DELE, QUIT', size, 1, deletion))
    count = size - 1
  }
  return { title: 'Messages in a maildrop', sizeLabel: 'messages', points }
}

export async function growUsers(stage: Stage, mail: Mail, sizes: Sizes): Promise<Study> {
  const points: Point[] = []
  let count = 0
  for (const size of sizes.users) {
    await mail.addUsers('many', count + 1, size)
    await mail.settle()
    count = size
    const pollers = sampleOf('many', size)
    await pollAll(stage, pollers)
    points.push(await stage.measure('poll', size, TIMES, (i) => stage.poll(pick(pollers, i))))
  }
  return { title: 'Users in the tables', sizeLabel: 'users', points }
}

/** Mail of `SAMPLE` users, each with an equal share of it all; what is read is anywhere. */
export async function growDatabase(stage: Stage, mail: Mail, sizes: Sizes): Promise<Study> {
  await mail.addUsers('disk', 1, SAMPLE)
  const points: Point[] = []
  const owners = sampleOf('disk', SAMPLE)
  const wire = wireOf(messageOf(1, 1, OCTETS))
  let each = 0
  for (const target of sizes.databaseGb) {
    while ((await mail.databaseGb()) < target) {
      const missing = (target - (await mail.databaseGb())) * 1e9
      const count = SAMPLE * Math.max(1, Math.ceil(missing / OCTETS / SAMPLE))
      await mail.addMessages('disk', count, OCTETS)
      each += count / SAMPLE
    }
    await mail.settle()
    await pollAll(stage, owners)
    const size = Number((await mail.databaseGb()).toFixed(2))
    points.push(await stage.measure('poll', size, TIMES, (i) => stage.poll(pick(owners, i))))
    const reader = await stage.login(pick(owners, 0))
    const random = (turn: number): number => 1 + Math.floor((((turn + 1) * 0.618) % 1) * each)
    const read = async (i: number): Promise<void> => {
      await reader.askMulti(`RETR ${random(i)}`)
    }
    points.push(await stage.measure('RETR of 10 KB', size, TIMES, read))
    await reader.close()
    const sender = await stage.openLmtp()
    const deliver = (i: number): Promise<void> => sender.deliver(pick(owners, i), wire)
    points.push(await stage.measure('LMTP of 10 KB', size, TIMES, deliver))
    each += Math.floor(TIMES / SAMPLE)
    await sender.quit()
  }
  return { title: 'Size of the database', sizeLabel: 'GB', points }
}

/** Deliver, fetch, delete, over and over: with and without a snapshot of before all of it. */
export async function growDeadRows(stage: Stage, mail: Mail, sizes: Sizes): Promise<Study> {
  const points: Point[] = []
  await mail.addUsers('hot', 1, 2)
  await mail.settle()
  const wire = wireOf(messageOf(1, 1, 1_024))
  const step = Math.max(1, sizes.cycles / 10)
  for (const isHeld of [false, true]) {
    const owner = address(isHeld ? 'hot2' : 'hot1')
    await stage.poll(owner)
    if (isHeld) await mail.holdSnapshot()
    const sender = await stage.openLmtp()
    const cycle = async (): Promise<void> => {
      await sender.deliver(owner, wire)
      const session = await stage.login(owner)
      const lines = await session.askMulti('LIST')
      if (lines !== 1) throw new Error(`${lines} messages where one is due`)
      await session.askMulti('RETR 1')
      await session.ask('DELE 1')
      await session.quit()
    }
    const name = isHeld ? 'under an old snapshot' : 'without'
    for (let done = step; done <= sizes.cycles; done += step)
      points.push(await stage.measure(name, done, step, cycle))
    await sender.quit()
    if (isHeld) await mail.releaseSnapshot()
  }
  return { title: 'One hot maildrop', sizeLabel: 'deliver, fetch, delete: cycles', points }
}
