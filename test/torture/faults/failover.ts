/**
 * PostgreSQL dies (kill -9) while a synchronous standby follows it, and the standby takes over. The
 * standby is made anew each time, of whichever server is the primary then.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from '../fault.ts'
import { forgetStandbys, promote, startStandby } from './means/standby.ts'

const TOGETHER_MS = { min: 1_000, max: 4_000 }
const AWAY_MS = 2_000

let count = 0

export const failover: Fault = {
  name: 'failover',
  seconds: 12,
  async inject({ cluster, random, windows, note, signal }) {
    const primary = cluster.postgres
    const home = join(cluster.directory, `standby-${++count}`)
    const standby = await startStandby(primary, home).catch(async (error: unknown) => {
      await forgetStandbys(primary)
      throw error
    })
    const ms = random.integer(TOGETHER_MS.min, TOGETHER_MS.max)
    await delay(ms, undefined, { signal }).catch(() => {})
    const close = windows.open('leases-lost')
    try {
      note(`SIGKILL to postmaster ${primary.pid}, the standby at ${standby.port} takes over`)
      await primary.kill()
      await delay(random.integer(0, AWAY_MS), undefined, { signal }).catch(() => {})
      await promote(standby)
      cluster.adopt(standby)
    } finally {
      if (cluster.postgres === primary) {
        await standby.stop()
        await primary.start()
        await forgetStandbys(primary)
      }
      close()
    }
    rmSync(primary.home, { recursive: true, force: true, maxRetries: 3 })
  },
}
