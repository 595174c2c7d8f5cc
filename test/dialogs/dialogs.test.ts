/** Every dialog against the pure session, in all three ways of sending it. */
import { join } from 'node:path'
import { describe, test } from 'vitest'
import { MemoryPeer } from './memory-peer.ts'
import { canRun, MODES, readDialogs, runDialog } from './runner.ts'

const FOLDERS = [import.meta.dirname, join(import.meta.dirname, '../conformance')]

/** Odd, so that chunks of a message end in the middle of everything. */
const peer = new MemoryPeer(7)

for (const dialog of FOLDERS.flatMap(readDialogs)) {
  describe(dialog.name, () => {
    for (const mode of MODES) {
      test.runIf(canRun(dialog, peer, mode))(mode, () => runDialog(dialog, peer, mode))
    }
  })
}
