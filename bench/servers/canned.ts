/** The canned-reply server as one of the servers under test: the limit of what Node can do. */
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Seed } from '../load/content.ts'
import { ProcessGroup } from '../measure/processes.ts'
import { makeCertificate } from './certificate.ts'
import { collectGarbage, collecting } from './garbage.ts'
import type { BenchServer } from './server.ts'

const PROGRAM = fileURLToPath(new URL('canned-process.js', import.meta.url))
const NO_PASSWORDS = 'it checks no password'
const NO_DELIVERY = 'it takes no mail'

export async function startCanned(place: string, seed: Seed): Promise<BenchServer> {
  const own = join(place, 'canned')
  mkdirSync(own, { recursive: true })
  const { certFile, keyFile } = await makeCertificate(own)
  const group = new ProcessGroup('canned')
  const setup = JSON.stringify({ seed, certFile, keyFile })
  const child = group.spawn(process.execPath, [...collecting(own), PROGRAM, setup], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const [ports] = (await once(child, 'message')) as [{ pop3: number; pop3s: number }]
  const host = '127.0.0.1'
  return {
    name: 'canned',
    pop3: { host, port: ports.pop3, tls: false },
    pop3s: { host, port: ports.pop3s, tls: true },
    cannot: new Map([
      ['cold-login', NO_PASSWORDS],
      ['lmtp', NO_DELIVERY],
      ['mixed-day', NO_DELIVERY],
    ]),
    cachesLogins: false,
    nodeWorkers: 1,
    pids: () => ({ server: group.pids(), database: [] }),
    collectGarbage: () => collectGarbage(own, group.pids()),
    reset: async () => {
      child.send('reset')
    },
    stop: async () => {
      const end = once(child, 'exit')
      child.disconnect()
      await end
      await group.close()
    },
  }
}
