/**
 * The disk that PostgreSQL lies on is full, tables and log. It may panic, end, and not come up
 * before there is room. Needs root: the whole run then lies on a tmpfs.
 */
import { chmodSync, mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault, TorturePostgres } from '../fault.ts'
import { SmallDisk, whyNoSmallDisk } from './means/small-disk.ts'
import { until } from './means/until.ts'

const FOR_MS = { min: 1_000, max: 5_000 }
const BACK_MS = 60_000

let disk: SmallDisk | undefined

export const fullDisk: Fault = {
  name: 'full-disk',
  seconds: 8,
  async prepare(plan) {
    if (whyNoSmallDisk() !== undefined) return async () => {}
    const place = mkdtempSync(join(tmpdir(), 'popgres-disk-'))
    chmodSync(place, 0o755) // PostgreSQL's account has to get in
    const mounted = new SmallDisk(join(place, 'small'))
    disk = mounted
    plan.directory = mounted.directory
    return async () => {
      disk = undefined
      mounted.remove()
      rmdirSync(place)
    }
  },
  unavailable: async () => (disk === undefined ? whyNoSmallDisk() : undefined),
  async inject({ cluster, random, windows, note, signal }) {
    if (disk === undefined) throw new Error('it was not prepared')
    const ms = random.integer(FOR_MS.min, FOR_MS.max)
    const close = windows.open('leases-lost')
    try {
      note(`the disk of PostgreSQL is full for ${ms} ms`)
      disk.fill()
      await delay(ms, undefined, { signal }).catch(() => {})
    } finally {
      disk.empty()
      await bringBack(cluster.postgres)
      close()
    }
  },
}

async function bringBack(postgres: TorturePostgres): Promise<void> {
  const isBack = async (): Promise<boolean> => {
    if (postgres.pid === 0) await postgres.start()
    const rows = await postgres.query('select').catch(() => [])
    return rows.length === 1
  }
  await until('PostgreSQL is back', isBack, BACK_MS)
}
