/** Every fault that a run may inject: one line each. */
import type { Fault } from '../fault.ts'
import { cutConnections } from './cut-connections.ts'
import { failover } from './failover.ts'
import { freezeWorker, freezeWorkerBriefly } from './freeze-worker.ts'
import { fullDisk } from './full-disk.ts'
import { fullEventLoop, fullEventLoopBriefly } from './full-event-loop.ts'
import { killPostgres } from './kill-postgres.ts'
import { killSupervisor } from './kill-supervisor.ts'
import { killWorker } from './kill-worker.ts'
import { loseAnswers } from './lose-answers.ts'
import { silentConnections, silentConnectionsBriefly } from './silent-connections.ts'
import { slowConnections } from './slow-connections.ts'
import { usedUpConnections } from './used-up-connections.ts'
import { wrongClock } from './wrong-clock.ts'

export const FAULTS: readonly Fault[] = [
  killWorker,
  killSupervisor,
  killPostgres,
  freezeWorkerBriefly,
  freezeWorker,
  cutConnections,
  slowConnections,
  silentConnectionsBriefly,
  silentConnections,
  loseAnswers,
  usedUpConnections,
  fullEventLoopBriefly,
  fullEventLoop,
  failover,
  fullDisk,
  wrongClock,
]
