/** The rate at which a peer takes what it is owed, seen inside one large write too. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { PACE_RULES, Pace } from '../../../src/server/pace.ts'

const server = createServer()
let accepted: Socket
let client: Socket

beforeEach(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  client = connect(address.port, '127.0.0.1')
  accepted = (await once(server, 'connection'))[0]
})
afterEach(() => {
  client.destroy()
  accepted.destroy()
  server.close()
})

const rules = { ...PACE_RULES, rateCheckMs: 50, rateWindowMs: 800 }

test('one write that takes long is no standstill while the peer goes on reading', async () => {
  const reasons: string[] = []
  const pace = new Pace(rules, accepted, (reason) => reasons.push(reason))
  pace.logIn(accepted)
  const began = performance.now()
  const written = new Promise((resolve) => accepted.write(Buffer.alloc(24_000_000), resolve))
  const reads = setInterval(() => client.read(65_536), 10)
  await written
  clearInterval(reads)
  expect(performance.now() - began).toBeGreaterThan(rules.rateWindowMs)
  expect(reasons).toEqual([])
})

test('a peer that takes less than the rate is told of, and one that is owed nothing is not', async () => {
  const cut = new Promise((resolve) => {
    new Pace({ ...rules, rateMin: 1e9 }, accepted, resolve).logIn(accepted)
  })
  const other = await new Promise<string>((resolve) => {
    const idle = new Pace({ ...rules, rateMin: 1e9 }, client, resolve)
    idle.logIn(client)
    accepted.write(Buffer.alloc(24_000_000))
    void cut.then(() => resolve('nothing'))
  })
  expect(await cut).toBe('slow-reader')
  expect(other).toBe('nothing')
})

test('who has gone before the login was done leaves no timer', async () => {
  const timers = (): number =>
    process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
  const pace = new Pace(rules, accepted, () => {})
  accepted.destroy()
  await once(accepted, 'close')
  const before = timers()
  pace.logIn(accepted)
  expect(timers()).toBe(before)
})
