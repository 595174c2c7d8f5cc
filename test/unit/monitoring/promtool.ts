/**
 * Prometheus' own judge of rules (Debian's package prometheus has it). Where it is missing its tests
 * are skipped by name; with INTEROP_REQUIRE_ALL (as .ci/run sets it) they fail instead.
 */
import { spawnSync } from 'node:child_process'
import { describe, test } from 'vitest'

const isThere = spawnSync('promtool', ['--version']).status === 0

export function describePromtool(title: string, body: () => void): void {
  if (isThere) {
    describe(title, body)
    return
  }
  const reason = `${title}: promtool is not installed`
  if (process.env.INTEROP_REQUIRE_ALL === undefined) describe.skip(reason, body)
  else
    test(reason, () => {
      throw new Error(reason)
    })
}

/** @returns all that it says; @throws with that, if something is wrong */
export function promtool(...args: string[]): string {
  const { stdout, stderr, status } = spawnSync('promtool', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${stdout}${stderr}`)
  return stdout + stderr
}
