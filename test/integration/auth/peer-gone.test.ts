/** A peer that leaves while its password waits to be verified: what it asked for is not done. */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { argon2Counts } from '../../../src/mail/auth/argon2.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const PEERS = 40

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  node = await startTestNode({ url: database.url })
})

afterAll(async () => {
  await node.stop()
  await database.close()
})

async function open(): Promise<Socket> {
  const socket = connect(Number(node.address.split(':').at(-1)), '127.0.0.1')
  await once(socket, 'data')
  return socket
}

const logged = (msg: string): Record<string, unknown>[] =>
  node.logged.map((line) => JSON.parse(line)).filter((entry) => entry.msg === msg)

describe('a peer that has reset its connection', () => {
  it('is not verified any more, and its connection ends at once', async () => {
    const before = argon2Counts().verified
    const sockets = await Promise.all(Array.from({ length: PEERS }, open))
    for (const [index, socket] of sockets.entries())
      socket.write(`USER x@d${index}.test\r\nPASS wrong\r\n`)
    await vi.waitFor(() => expect(logged('login refused')).not.toEqual([]), { interval: 1 })
    for (const socket of sockets) socket.resetAndDestroy()
    await vi.waitFor(() => expect(logged('connection closed')).toHaveLength(PEERS), 20_000)
    expect(logged('a command failed')).not.toEqual([])
    expect(argon2Counts().verified - before).toBeLessThan(PEERS)
  })
})
