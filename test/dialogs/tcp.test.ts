/**
 * Every dialog against the real server over TCP, in all three ways of sending it. What only the
 * pure session can be brought to do (a fault at a certain step, a given timestamp) runs in
 * dialogs.test.ts.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import type { Ability, Dialog } from './dialog.ts'
import { canRun, MODES, readDialogs, runDialog } from './runner.ts'
import { TcpPeer } from './tcp-peer.ts'

const FOLDERS = [import.meta.dirname, join(import.meta.dirname, '../conformance')]
/** For dialogs about autologout: the pauses of all others are longer on a busy machine. */
const SHORT_AUTOLOGOUT_MS = 1_500

let database: TestDatabase
let peers: { patient: TcpPeer; impatient: TcpPeer }

beforeAll(async () => {
  database = await openTestDatabase()
  const { db } = database
  const impatient = new TcpPeer({ db, autologoutMs: SHORT_AUTOLOGOUT_MS })
  peers = { patient: new TcpPeer({ db }), impatient }
  await Promise.all([peers.patient.start(), impatient.start()])
})

afterAll(async () => {
  await Promise.all([peers.patient.stop(), peers.impatient.stop()])
  await database.close()
})

/** Which can be told before there is a database. */
const ARRANGED_ONLY_IN_MEMORY: readonly Ability[] = [
  'fixed-timestamp',
  'fixed-scram',
  'bearer',
  'certificate',
  'faults',
]

function isForTcp(dialog: Dialog): boolean {
  return !ARRANGED_ONLY_IN_MEMORY.some((ability) => dialog.abilities.has(ability))
}

for (const dialog of FOLDERS.flatMap(readDialogs).filter(isForTcp)) {
  describe(dialog.name, () => {
    for (const mode of MODES) {
      if (mode === 'pipelined' && !dialog.isPipelinable) continue
      test(mode, async () => {
        const peer = dialog.abilities.has('idle') ? peers.impatient : peers.patient
        if (!canRun(dialog, peer, mode)) throw new Error('the dialog wants what is not arranged')
        await runDialog(dialog, peer, mode)
      })
    }
  })
}
