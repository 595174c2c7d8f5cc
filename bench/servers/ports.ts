/** Ports nobody listens on, for servers that cannot be asked for any. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

async function isGreeted(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'data')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Waits for a server that has just been started. */
export async function waitForGreeting(port: number, patienceMs = 30_000): Promise<void> {
  const end = Date.now() + patienceMs
  while (!(await isGreeted(port))) {
    if (Date.now() > end) throw new Error(`nobody greets at port ${port}`)
    await delay(50)
  }
}
