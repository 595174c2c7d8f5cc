/**
 * Under which account, and from which place, a node starts its embedded PostgreSQL. As root all of it
 * runs; as an ordinary user what needs another account is skipped.
 */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { makeClone, undoInstallScripts } from '../support/clone.ts'
import { NodeProcess, type NodeProcessOptions, PROJECT } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { processesWith } from '../support/processes.ts'

const USER = 'demo@example.test'
const isRoot = process.getuid?.() === 0
/** An ordinary account that every machine has. */
const NOBODY = 65_534

let place: string
let dataDir: string
let nodes: NodeProcess[]

beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), 'popgres-account-'))
  chmodSync(place, 0o755)
  dataDir = join(place, 'data')
  nodes = []
})

afterEach(async () => {
  for (const node of nodes) await node.destroy()
  rmSync(place, { recursive: true, force: true, maxRetries: 3 })
})

function start(options: NodeProcessOptions = {}): NodeProcess {
  const node = new NodeProcess({ ...options, env: { POPGRES_DATA_DIR: dataDir, ...options.env } })
  nodes.push(node)
  return node
}

async function checkServes(node: NodeProcess, password: string): Promise<void> {
  const client = await Pop3Client.login((await node.addresses()).pop3, USER, password)
  expect(await client.ask('STAT')).toMatch(/^\+OK [1-9]/)
  await client.ask('QUIT')
}

async function checkServesFirst(node: NodeProcess): Promise<string> {
  await node.addresses()
  const password = node.demoPassword()
  await checkServes(node, password)
  return password
}

test.runIf(isRoot)(
  'root in a clone under a directory of mode 0700: the data is elsewhere, and found again',
  async () => {
    chmodSync(place, 0o700)
    makeClone(place)
    const first = start({ clone: place, cwd: place })
    const password = await checkServesFirst(first)
    const [elsewhere = ''] = readFileSync(join(dataDir, 'where-the-data-is.txt'), 'utf8').split(
      '\n',
    )
    try {
      expect(elsewhere).toMatch(/^\/var\/lib\/popgres\/data-[0-9a-f]{12}$/)
      expect(first.records.some(({ level, home }) => level === 'warn' && home === elsewhere)).toBe(
        true,
      )
      const list = spawnSync(
        process.execPath,
        [join(place, 'dist/main.js'), 'user', 'list', 'example.test'],
        {
          cwd: place,
          encoding: 'utf8',
          env: { PATH: process.env.PATH, POPGRES_DATA_DIR: dataDir },
        },
      )
      expect(list.stdout + list.stderr).toContain(USER)
      await first.stop()
      expect(processesWith(elsewhere)).toEqual([])

      await checkServes(start({ clone: place, cwd: place }), password)
      // The note is only for people and speed: without it the place follows from the directory's path.
      await nodes[1]?.stop()
      rmSync(join(dataDir, 'where-the-data-is.txt'))
      await checkServes(start({ clone: place, cwd: place }), password)
    } finally {
      for (const node of nodes) await node.destroy()
      if (elsewhere.startsWith('/var/lib/popgres/data-')) rmSync(elsewhere, { recursive: true })
    }
  },
)

test.runIf(isRoot)(
  'an ordinary user: everything is under the data directory and belongs to him',
  async () => {
    chownSync(place, NOBODY, NOBODY)
    const first = start({ uid: NOBODY })
    const password = await checkServesFirst(first)
    await first.stop()
    for (const name of ['postgres', 'postgres.log', 'database-password', 'secret-key'])
      expect([name, statSync(join(dataDir, name)).uid]).toEqual([name, NOBODY])
    for (const name of ['database-password', 'secret-key'])
      expect(statSync(join(dataDir, name)).mode & 0o777).toBe(0o600)

    rmSync(join(dataDir, 'postgres.log'))
    // root may start it once without taking it away from him.
    await checkServes(start(), password)
    await nodes[1]?.stop()
    await checkServes(start({ uid: NOBODY }), password)
  },
)

test.runIf(isRoot)(
  'the data of another user is refused with what to do, by serve and by administration',
  async () => {
    const first = start()
    await checkServesFirst(first)
    const options = {
      uid: NOBODY,
      gid: NOBODY,
      cwd: '/',
      encoding: 'utf8' as const,
      env: { PATH: process.env.PATH, POPGRES_DATA_DIR: dataDir },
    }
    const main = join(PROJECT, 'dist/main.js')
    const list = spawnSync(process.execPath, [main, 'domain', 'list'], options)
    expect(list.status).toBe(1)
    expect(list.stderr).toMatch(/run as the account that owns it, or as root/)
    const second = start({ uid: NOBODY })
    expect((await second.exited).status).toBe(1)
    expect(second.stderr).toMatch(/run as the account that owns it, or as root/)
  },
)

test('without install scripts the library links and executable bits are made at the start', async () => {
  makeClone(place)
  undoInstallScripts(place)
  await checkServesFirst(start({ clone: place, cwd: place }))
  expect(existsSync(join(dataDir, 'server-18.4.0-beta.17'))).toBe(false)
})

test.runIf(isRoot)(
  'where node_modules may not be written, the programs are copied and completed',
  async () => {
    makeClone(place)
    undoInstallScripts(place)
    dataDir = mkdtempSync(join(tmpdir(), 'popgres-account-data-'))
    try {
      chownSync(dataDir, NOBODY, NOBODY)
      const first = start({ clone: place, uid: NOBODY })
      const password = await checkServesFirst(first)
      expect((await first.record('copying the PostgreSQL programs')).directory).toContain(dataDir)
      await first.stop()
      await checkServes(start({ clone: place, uid: NOBODY }), password)
      expect(nodes[1]?.records.map(({ msg }) => msg)).not.toContain(
        'copying the PostgreSQL programs',
      )
    } finally {
      for (const node of nodes) await node.destroy()
      rmSync(dataDir, { recursive: true, force: true })
    }
  },
)
