/** Hosts of DATABASE_URL of which two are one server: nothing is cut, and nobody is told. */
import { EventEmitter } from 'node:events'
import { expect, test } from 'vitest'
import { type HostClient, Hosts } from '../../../src/storage/postgres/hosts.ts'

class FakeClient extends EventEmitter {
  isCut = false
  readonly connection

  constructor(remoteAddress: string | undefined) {
    super()
    const destroy = (): void => {
      this.isCut = true
    }
    const remotePort = remoteAddress && 5432
    this.connection = Object.assign(new EventEmitter(), {
      stream: { destroy, remoteAddress, remotePort },
    })
  }

  end = async (): Promise<void> => {}
  askWhyNotWritable = async (): Promise<null> => null
}

/** One connection to the first host, which then fails, and one to the second. */
async function turnFrom(first: string | undefined, second: string | undefined) {
  const told: string[] = []
  const hosts = new Hosts(
    {
      hosts: ['a', 'b'].map((name) => ({ name, url: `postgres://u@${name}/d` })),
      mustBeWritable: false,
      description: 'a,b/d',
    },
    (host, before) => told.push(`${before} ${host}`),
  )
  const connect = async (address: string | undefined): Promise<FakeClient> => {
    const client = new FakeClient(address)
    await hosts.nextTry().connect(client as unknown as HostClient, async () => {})
    return client
  }
  const one = await connect(first)
  const failing = hosts.nextTry().connect(new FakeClient(first) as unknown as HostClient, () => {
    return Promise.reject(new Error('too many connections'))
  })
  await expect(failing).rejects.toThrow()
  await connect(second)
  return { told, isCut: one.isCut }
}

test('another name of the server that is used', async () => {
  expect(await turnFrom('192.0.2.1', '192.0.2.1')).toEqual({ told: ['undefined a'], isCut: false })
})

test.each([
  ['another address', '192.0.2.1', '192.0.2.2'],
  ['Unix sockets, of which nothing is known', undefined, undefined],
])('another server: %s', async (_, first, second) => {
  expect(await turnFrom(first, second)).toEqual({ told: ['undefined a', 'a b'], isCut: true })
})
