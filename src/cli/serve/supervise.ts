/**
 * A node from the moment its database is chosen to its end: the supervisor, what its signals ask of
 * it, and how long the end may take. Ctrl-C and a closed terminal end it within seconds, SIGTERM as
 * the operator has set.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Log } from '../../base/log.ts'
import { openTexts, type SettingName, type Settings } from '../../base/settings.ts'
import { startNodeStatus } from '../../cluster/node-status.ts'
import type { StopSignals } from '../../cluster/stop-signals.ts'
import { Supervisor } from '../../cluster/supervisor.ts'
import type { DrainOrder, ServingAddresses, TlsFiles } from '../../cluster/worker-messages.ts'
import { readVersion } from '../command-context.ts'
import { type Prepared, Reloader, type ReloaderOptions } from './reload.ts'

/** What all of `popgres serve` knows. */
export interface Parts {
  settings: Settings
  /** What `settings` were parsed from. */
  env: NodeJS.ProcessEnv
  /** The same as it is now. */
  readEnv: () => NodeJS.ProcessEnv
  log: Log
  signals: StopSignals
  /** As set; undefined: nothing is. */
  tlsFiles: TlsFiles | undefined
}

export interface Supervision extends Omit<Parts, 'tlsFiles'> {
  prepared: Prepared
  prepare: ReloaderOptions['prepare']
  /** Besides those that no node can change. */
  keptUntilRestart: ReloaderOptions['keptUntilRestart']
  onServing: (addresses: ServingAddresses) => void
  /** Ends the node if it fails. */
  until?: ((current: () => Prepared) => Promise<unknown>) | undefined
}

/** Once told, sessions may finish what they are in; PostgreSQL needs some of the 10 s as well. */
const GRACE_MS = 3_500
/** POPGRES_DRAIN=auto: what a phone needs to fetch its mail. */
const RELOAD_DRAIN_SECONDS = 60
const KEPT: readonly SettingName[] = ['POPGRES_DATA_DIR', 'POPGRES_HTTP_LISTEN']

export async function superviseUntilStopped(options: Supervision): Promise<void> {
  const { env, log, prepared, settings, signals } = options
  const plan = { ...prepared, settings: openTexts(env) }
  const supervisor = new Supervisor({ log, version: readVersion(), workerArgs: ['serve'] }, plan)
  const reloader = new Reloader({
    ...options,
    supervisor,
    configuration: { settings, plan },
    keptUntilRestart: (next, current) => [
      ...KEPT.filter((name) => JSON.stringify(next[name]) !== JSON.stringify(current[name])),
      ...options.keptUntilRestart(next, current),
    ],
    orderOf: orderOfReload,
  })
  const hurry = { patienceMs: 0, graceMs: 0 }
  signals.hurried.addEventListener('abort', () => void supervisor.stop(hurry))
  const status = await startNodeStatus({
    addresses: settings.POPGRES_HTTP_LISTEN,
    log,
    version: readVersion(),
    isStopping: () => signals.requested.aborted || supervisor.isDraining,
  })
  try {
    if (signals.requested.aborted) return
    const ends = [untilAborted(signals.requested)]
    const { until } = options
    if (until !== undefined) ends.push(orNever(until(() => reloader.configuration.plan)))
    const onServing = (addresses: ServingAddresses): void => {
      signals.onReload(() => reloader.request())
      options.onServing({ ...addresses, http: status.addresses })
    }
    await Promise.race([supervisor.start().then(onServing), ...ends])
    await Promise.race(ends)
  } finally {
    signals.request() // also for `until`, which else would go on waiting
    const reloadEnd = reloader.stop()
    await end(supervisor, reloader.configuration.settings, signals, log)
    await reloadEnd
    await status.stop()
    await reloader.configuration.plan.db.close()
  }
}

function orderOfReload({ POPGRES_DRAIN: seconds = RELOAD_DRAIN_SECONDS }: Settings): DrainOrder {
  return { patienceMs: seconds * 1_000, graceMs: GRACE_MS }
}

/** Only SIGTERM has time: who presses Ctrl-C waits for it. */
async function end(
  supervisor: Supervisor,
  settings: Settings,
  signals: StopSignals,
  log: Log,
): Promise<void> {
  const { POPGRES_DRAIN: drainSeconds = 0, POPGRES_DRAIN_DELAY: delaySeconds } = settings
  const hasTime = signals.requested.reason === 'SIGTERM'
  supervisor.beginDraining()
  if (hasTime && delaySeconds > 0) {
    log.info({ seconds: delaySeconds }, 'not ready any more, still accepting')
    await delay(delaySeconds * 1_000, undefined, { signal: signals.hurried }).catch(() => {})
  }
  const patienceMs = hasTime ? drainSeconds * 1_000 : 0
  const isHurried = signals.hurried.aborted
  await supervisor.stop({
    patienceMs: isHurried ? 0 : patienceMs,
    graceMs: isHurried ? 0 : GRACE_MS,
  })
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve())
  })
}

/** Only the failure counts. */
function orNever(work: Promise<unknown>): Promise<void> {
  return work.then(() => new Promise(() => {}))
}
