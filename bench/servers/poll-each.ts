/** One POP3 session for every account, so that a server makes its indexes before it is measured. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { PASSWORD } from '../load/content.ts'

const AT_ONCE = 16

async function poll(port: number, address: string): Promise<void> {
  const socket = connect(port, '127.0.0.1')
  const end = once(socket, 'close')
  // As a client that waits for each reply: Courier throws away what comes too early.
  const commands = [`USER ${address}`, `PASS ${PASSWORD}`, 'STAT', 'LIST', 'UIDL', 'QUIT']
  let isList = false
  for await (const line of createInterface({ input: socket })) {
    if (line.startsWith('-ERR')) throw new Error(`${address}: ${line}`)
    if (isList && line !== '.') continue
    const command = commands.shift()
    if (command !== undefined) socket.write(`${command}\r\n`)
    isList = command === 'LIST' || command === 'UIDL'
  }
  await end
  if (commands.length > 0) throw new Error(`${address}: the session ended early`)
}

export async function pollEach(port: number, addresses: Iterable<string>): Promise<void> {
  const left = addresses[Symbol.iterator]()
  const work = async (): Promise<void> => {
    for (let next = left.next(); next.done !== true; next = left.next())
      await poll(port, next.value)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
}
