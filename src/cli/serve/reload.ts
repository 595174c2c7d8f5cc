/**
 * SIGHUP: settings are read anew, and if all of them are right the workers are replaced by ones
 * that have them; else nothing changes and the log says why. What this process cannot change about
 * itself keeps its value, and the log names it. A SIGHUP that comes meanwhile begins again, after
 * the worker that is being replaced.
 */
import type { Log } from '../../base/log.ts'
import {
  openTexts,
  parseSettings,
  type SettingName,
  type Settings,
  settingTexts,
} from '../../base/settings.ts'
import type { CrewPlan, Supervisor } from '../../cluster/supervisor.ts'
import type { DrainOrder } from '../../cluster/worker-messages.ts'
import { readVersion } from '../command-context.ts'

type Environment = NodeJS.ProcessEnv

/** A plan but for the texts of the settings. */
export type Prepared = Omit<CrewPlan, 'settings'>

/** What a node serves by. */
export interface Configuration {
  settings: Settings
  plan: CrewPlan
}

export interface ReloaderOptions {
  log: Log
  supervisor: Supervisor
  /** What is in force at the start. */
  env: Environment
  configuration: Configuration
  /** The process' own environment, with .env beneath it as it is now. */
  readEnv: () => Environment
  /** Settings that differ, but cannot before a restart. */
  keptUntilRestart: (next: Settings, current: Settings) => readonly SettingName[]
  /**
   * Looks whether the node could serve by `settings`.
   * @throws {Failure} one line for the operator
   */
  prepare: (settings: Settings, current: CrewPlan) => Promise<Prepared>
  orderOf: (settings: Settings) => DrainOrder
}

export class Reloader {
  readonly #options: ReloaderOptions
  readonly #version = readVersion()
  #env: Environment
  /** Secrets too: files may say something else by now. */
  #texts: Record<SettingName, string>
  #configuration: Configuration
  #cut = new AbortController()
  #isWanted = false
  #running: Promise<void> | undefined

  constructor(options: ReloaderOptions) {
    this.#options = options
    this.#env = options.env
    this.#texts = settingTexts(options.env)
    this.#configuration = options.configuration
  }

  /** What is in force now. */
  get configuration(): Configuration {
    return this.#configuration
  }

  /** A SIGHUP has come. */
  request(): void {
    this.#isWanted = true
    this.#cut.abort()
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
  }

  /** The node ends: what runs is not gone on with. */
  async stop(): Promise<void> {
    this.#isWanted = false
    this.#cut.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    while (this.#isWanted) {
      this.#isWanted = false
      this.#cut = new AbortController()
      await this.#reload(this.#cut.signal)
    }
  }

  async #reload(cut: AbortSignal): Promise<void> {
    const { log } = this.#options
    let next: { env: Environment; configuration: Configuration }
    try {
      next = await this.#prepare()
    } catch (error) {
      log.error({ reason: reasonOf(error) }, 'reload refused: everything stays as it was')
      return
    }
    await this.#replaceWorkers(next.env, next.configuration, cut)
  }

  async #prepare(): Promise<{ env: Environment; configuration: Configuration }> {
    const { log, keptUntilRestart, prepare, readEnv } = this.#options
    const onDisk = readVersion()
    if (onDisk !== this.#version)
      throw new Error(
        `the program is ${onDisk} now and this node ${this.#version}: restart it to upgrade`,
      )
    const { settings: current, plan } = this.#configuration
    const env = readEnv()
    const kept = keptUntilRestart(parseSettings(env), current)
    for (const name of kept) this.#restore(env, name)
    const settings = parseSettings(env)
    const changed = this.#changed(env)
    const next = await prepare(settings, plan)
    log.info({ changed }, 'reloading: workers are replaced one by one')
    if (kept.length > 0) log.warn({ settings: kept }, 'these settings change only with a restart')
    return { env, configuration: { settings, plan: { ...next, settings: openTexts(env) } } }
  }

  async #replaceWorkers(env: Environment, next: Configuration, cut: AbortSignal): Promise<void> {
    const { log, supervisor, orderOf } = this.#options
    const { db } = this.#configuration.plan
    let isWhole = false
    try {
      isWhole = await supervisor.reload(next.plan, orderOf(next.settings), cut)
    } catch (error) {
      if (!supervisor.isDraining)
        log.error(
          { reason: reasonOf(error) },
          'reload stopped, a new worker does not serve: those that were not replaced go on',
        )
    }
    if (isWhole) {
      this.#configuration = next
      this.#env = env
      this.#texts = settingTexts(env)
      log.level = next.settings.POPGRES_LOG_LEVEL
      log.info({ workers: next.plan.workers }, 'reloaded')
    }
    const unused = isWhole ? db : next.plan.db
    if (unused !== this.#configuration.plan.db) await unused.close()
  }

  #restore(env: Environment, name: SettingName): void {
    for (const variable of [name, `${name}_FILE`]) {
      const value = this.#env[variable]
      if (value === undefined) delete env[variable]
      else env[variable] = value
    }
  }

  /** Names alone: values may be secret. */
  #changed(env: Environment): string[] {
    return Object.entries(settingTexts(env))
      .filter(([name, text]) => this.#texts[name as SettingName] !== text)
      .map(([name]) => name)
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
