/**
 * Under which account, and from which place, a node starts its embedded PostgreSQL. As root all of it
 * runs; as an ordinary user what needs another account is skipped.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { makeClone, undoInstallScripts } from '../support/clone.ts'
import { NodeProcess, type NodeProcessOptions, PROJECT } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { processesWith } from '../support/processes.ts'

const USER = 'demo@example.test'
const isRoot = process.getuid?.() === 0
/** An ordinary account that every machine has. */
const NOBODY = 65_534

/** Where the project itself lies that account may not be able to go. */
let reachable: string
let place: string
let dataDir: string
let nodes: NodeProcess[]

beforeAll(() => {
  if (!isRoot) return
  reachable = mkdtempSync(join(tmpdir(), 'popgres-reachable-'))
  makeClone(reachable)
  execFileSync('chmod', ['-R', 'a+rX', reachable])
})

afterAll(() => {
  if (isRoot) rmSync(reachable, { recursive: true, force: true, maxRetries: 3 })
})

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
    const first = start({ uid: NOBODY, clone: reachable })
    const password = await checkServesFirst(first)
    await first.stop()
    for (const name of ['postgres', 'postgres.log', 'database-password', 'secret-key'])
      expect([name, statSync(join(dataDir, name)).uid]).toEqual([name, NOBODY])
    for (const name of ['database-password', 'secret-key'])
      expect(statSync(join(dataDir, name)).mode & 0o777).toBe(0o600)

    await checkServes(start({ uid: NOBODY, clone: reachable }), password)
    // root administers what that user serves.
    const env = { PATH: process.env.PATH, POPGRES_DATA_DIR: dataDir }
    const main = join(PROJECT, 'dist/main.js')
    const list = spawnSync(process.execPath, [main, 'domain', 'list'], { encoding: 'utf8', env })
    expect(list.stdout + list.stderr).toContain('example.test')
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
    const main = join(reachable, 'dist/main.js')
    const list = spawnSync(process.execPath, [main, 'domain', 'list'], options)
    expect(list.status).toBe(1)
    expect(list.stderr).toMatch(/run as the account that owns it, or as root/)
    const second = start({ uid: NOBODY, clone: reachable })
    expect((await second.exited).status).toBe(1)
    expect(second.stderr).toMatch(/run as the account that owns it, or as root/)
  },
)

test.runIf(isRoot)(
  'root serves from no directory that another account could put links into',
  async () => {
    const victim = join(place, 'of root')
    writeFileSync(victim, 'untouched', { mode: 0o640 })
    mkdirSync(dataDir)
    chownSync(dataDir, NOBODY, NOBODY)
    symlinkSync(victim, join(dataDir, 'postgres.log'))
    const ofAnother = start()
    expect((await ofAnother.exited).status).toBe(1)
    expect(ofAnother.stderr).toMatch(/^popgres: .*start popgres as that account.*chown root.*\n$/)

    chownSync(dataDir, 0, 0)
    chmodSync(dataDir, 0o777)
    const ofAll = start()
    expect((await ofAll.exited).status).toBe(1)
    expect(ofAll.stderr).toMatch(/^popgres: .*chmod go-w.*\n$/)

    // Its own now, with what others had left in it.
    chmodSync(dataDir, 0o755)
    const withLink = start()
    expect((await withLink.exited).status).toBe(1)
    expect(withLink.stderr).toMatch(/^popgres: .*postgres\.log is a link.*remove it.*\n$/)
    const { mode, uid } = statSync(victim)
    expect([readFileSync(victim, 'utf8'), mode & 0o777, uid]).toEqual(['untouched', 0o640, 0])
    rmSync(join(dataDir, 'postgres.log'))
    await start().addresses()
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
