/** Why docker-compose.yml cannot be tried on this machine, if it cannot. */
import { execFileSync } from 'node:child_process'

const IMAGES = ['node:24-bookworm-slim', 'postgres:18', 'haproxy:3.2', 'debian:bookworm-slim']
const PROMETHEUS = ['v3.5.0', 'latest']
const PULL_MS = 120_000

function works(command: string, args: readonly string[], timeout = 20_000): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore', timeout })
    return true
  } catch {
    return false
  }
}

const isThere = (image: string): boolean =>
  works('docker', ['image', 'inspect', image]) || works('docker', ['pull', '-q', image], PULL_MS)

export interface Prerequisites {
  /** Undefined: nothing is missing. */
  missing: string | undefined
  prometheusVersion: string
}

export function lookForDocker(): Prerequisites {
  const without = (missing: string): Prerequisites => ({ missing, prometheusVersion: '' })
  if (!works('docker', ['version'])) return without('no docker engine answers')
  if (!works('docker-compose', ['version'])) return without('there is no docker-compose')
  const image = IMAGES.find((name) => !isThere(name))
  if (image !== undefined) return without(`the image ${image} cannot be had`)
  const version = PROMETHEUS.find((tag) => isThere(`prom/prometheus:${tag}`))
  if (version === undefined) return without('the image prom/prometheus cannot be had')
  return { missing: undefined, prometheusVersion: version }
}
