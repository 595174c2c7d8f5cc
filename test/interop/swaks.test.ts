/** swaks as the MTA in front: what LMTP answers, recipient by recipient. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeClients, runClient } from './clients.ts'
import { expectDelivered, MESSAGES, swaks } from './messages.ts'
import { HOST, type InteropServer, PASSWORD, startServer } from './server.ts'

const PLAIN = MESSAGES.get('plain') ?? Buffer.alloc(0)

describeClients('swaks', ['swaks', 'curl'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: false })
  })

  afterAll(async () => {
    await server.stop()
  })

  async function fetched(address: string): Promise<Buffer> {
    const url = `pop3://${HOST}:${server.pop3Port}/1`
    const user = `${address}:${PASSWORD}`
    return (await runClient('curl', ['-sS', '--max-time', '30', '-u', user, url])).stdout
  }

  it('gets a reply for each recipient, and no copy names another', async () => {
    const one = await server.addUser('swaks-one')
    const two = await server.addUser('swaks-two')
    const result = await swaks(server, [one, two], PLAIN)
    expect(result.status).toBe(0)
    const replies = result.stdout.toString().split(/^ -> \.$/m)[1] ?? ''
    expect(replies.match(/^<- {2}250 /gm)).toHaveLength(2)
    for (const [address, other] of [
      [one, two],
      [two, one],
    ] as const) {
      const copy = await fetched(address)
      expectDelivered(copy, address, 'plain')
      expect(copy.toString('latin1')).not.toContain(other)
    }
  })

  it('is refused an unknown recipient at RCPT, and delivers to the others', async () => {
    const address = await server.addUser('swaks-known')
    const result = await swaks(server, ['nobody@interop.test', address], PLAIN)
    expect(result.stdout.toString()).toMatch(/550 5\.1\.1/)
    expectDelivered(await fetched(address), address, 'plain')
  })

  it('is offered what the server can do', async () => {
    const args = ['--protocol', 'LMTP', '--server', HOST, '--port', String(server.lmtpPort)]
    const result = await runClient('swaks', [...args, '--quit-after', 'LHLO'])
    const offered = result.stdout.toString()
    for (const name of ['8BITMIME', 'PIPELINING', 'ENHANCEDSTATUSCODES', 'SMTPUTF8', 'SIZE'])
      expect(offered).toMatch(new RegExp(`250[- ]${name}\\b`))
  })
})
