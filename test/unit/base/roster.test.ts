import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import { Roster } from '../../../src/base/roster.ts'

describe('a roster', () => {
  test('knows who is in', () => {
    const roster = new Roster<string>()
    const [leaveAda, leaveBob, leaveEve] = ['ada', 'bob', 'eve'].map((who) => roster.enter(who))
    leaveBob?.()
    expect(roster.members().sort()).toEqual(['ada', 'eve'])
    leaveEve?.()
    leaveAda?.()
    expect(roster.count).toBe(0)
  })

  test('is left once, and who came meanwhile stays', () => {
    const roster = new Roster<string>()
    const leave = roster.enter('ada')
    leave()
    roster.enter('bob')
    leave()
    expect(roster.members()).toEqual(['bob'])
  })

  test('does not keep who has left from dying young', () => {
    setFlagsFromString('--expose-gc')
    const collect: (options?: { type: 'minor' }) => void = runInNewContext('gc')
    const roster = new Roster<object>()
    const leaves = [roster.enter({})]
    collect()
    collect() // It is old now.
    const before = process.memoryUsage().heapUsed
    for (let member = 0; member < 10_000; member++) {
      leaves.push(roster.enter(new Array(128).fill(member)))
      if (leaves.length > 32) leaves.shift()?.()
    }
    collect({ type: 'minor' })
    collect({ type: 'minor' })
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(2_000_000)
  })
})
