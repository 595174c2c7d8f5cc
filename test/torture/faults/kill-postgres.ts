/** kill -9 of PostgreSQL: every backend is gone, what was not committed too, and so is every lease. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from '../fault.ts'

export const killPostgres: Fault = {
  name: 'kill-postgres',
  seconds: 8,
  async inject({ cluster, random, windows, note, signal }) {
    const { postgres } = cluster
    const close = windows.open('leases-lost')
    note(`SIGKILL to postmaster ${postgres.pid}`)
    try {
      await postgres.kill()
      await delay(random.integer(0, 3_000), undefined, { signal }).catch(() => {})
    } finally {
      await postgres.start()
      close()
    }
  },
}
