/**
 * docker-compose.yml, really run: the README's commands as they stand there, then clients who never
 * stop while nodes come, go, die and are replaced. Every reply is checked: see traffic.ts and ledger.ts.
 * The tests are steps of one story and depend on those before them.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { LineClient } from '../support/line-client.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { lookForDocker } from './prerequisites.ts'
import { Stack } from './stack.ts'
import { type Account, type Doors, Traffic } from './traffic.ts'

const { missing, prometheusVersion } = lookForDocker()
const title = missing === undefined ? 'docker-compose' : `docker-compose (skipped: ${missing})`
const USERS = 8
const DELIVERERS = 3
const STEP_MS = 300_000

describe.skipIf(missing !== undefined)(title, { timeout: STEP_MS }, () => {
  let stack: Stack
  let doors: Doors
  let traffic: Traffic
  let accounts: Account[]

  beforeAll(async () => {
    stack = await Stack.open()
    stack.set('PROMETHEUS_VERSION', prometheusVersion)
  })

  let hasFailed = false
  beforeEach(({ skip, onTestFailed }) => {
    skip(hasFailed, 'a step before it has failed')
    onTestFailed(() => {
      hasFailed = true
    })
  })

  afterAll(async () => {
    await traffic?.stop().catch(() => {})
    await stack?.close()
  }, STEP_MS)

  /** What the clients met with in a step, for who reads the output. */
  const tell = (step: string) => {
    const { sessions, deliveries, setbacks } = traffic.takeCounts()
    console.log(`${step}: ${sessions} sessions, ${deliveries} deliveries`, setbacks)
    return setbacks
  }

  test("the README's commands start it, make a user, and mail is fetched", async () => {
    const [start = '', fetch = ''] = await stack.readme('### With docker-compose')
    const output = await stack.run(start)
    const password = /^password +(\S+)/m.exec(output)?.[1] ?? ''
    doors = await stack.doors()
    const lmtp = await LineClient.connect(doors.lmtp)
    await lmtp.reply()
    for (const line of ['LHLO me', 'MAIL FROM:<>', 'RCPT TO:<alice@example.com>', 'DATA'])
      await lmtp.ask(line)
    expect(await lmtp.ask('Subject: Hello\r\n\r\nHello Alice\r\n.')).toMatch(/^250 /)
    lmtp.destroy()
    const asWritten = fetch
      .replace('127.0.0.1:1995', doors.pop3s)
      .replace('alice@example.com', `alice@example.com:${password}`)
    expect(await stack.run(asWritten)).toContain('Hello Alice')
    expect(await stack.nodes()).toHaveLength(2)
  })

  test('containers run as nobody special, on a file system they cannot write to', async () => {
    const [node = ''] = await stack.nodes()
    const format =
      '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}'
    const inspected = await stack.run(`docker inspect -f '${format}' ${node}`)
    expect(inspected.trim()).toBe('true [ALL] [no-new-privileges:true]')
    expect((await stack.run(`docker exec ${node} id -u`)).trim()).not.toBe('0')
    const env = await stack.run(`docker inspect -f '{{.Config.Env}}' $(docker-compose ps -q)`)
    const secrets = await stack.run('cat secrets/*_password secrets/secret_key')
    for (const secret of secrets.trim().split('\n')) expect(env).not.toContain(secret)
    const role = await stack.sql(
      "select distinct usename from pg_stat_activity, nodes where usename is not null and application_name = 'popgres worker'",
    )
    expect(role).toBe('popgres_node')
  })

  test('the log has the address of the client, not that of HAProxy', async () => {
    const address = await stack.run(
      'docker-compose run --rm -T --no-deps --entrypoint node popgres -e ' +
        `"const s = require('net').connect(1110, 'haproxy').once('data', () => s.end('QUIT\\r\\n'));` +
        `s.on('connect', () => console.log(s.localAddress))"`,
    )
    const logs = await stack.run('docker-compose logs --no-color popgres')
    expect(logs).toContain(`"client":"${address.trim()}"`)
  })

  test('Prometheus watches every node and HAProxy, and has the alert rules', async () => {
    const prometheus = await stack.port('prometheus', 9090)
    const ask = async (path: string) => {
      const response = await fetch(`http://${prometheus}/api/v1/${path}`)
      return JSON.stringify(await response.json())
    }
    const deadline = performance.now() + 60_000
    const up = async (job: string) =>
      (await ask(`query?query=${encodeURIComponent(`sum(up{job="${job}"})`)}`)).match(
        /"(\d+)"\]/,
      )?.[1]
    while ((await up('popgres')) !== '2' || (await up('haproxy')) !== '1')
      if (performance.now() > deadline) throw new Error(await ask('targets'))
      // It looks every ten seconds, and nothing says when it has.
      else await pause(500)
    expect(await ask('rules')).toContain('alert')
  })

  test('clients come and go while nothing happens', async () => {
    accounts = await makeAccounts(stack)
    traffic = new Traffic(doors)
    traffic.start(accounts, DELIVERERS)
    await traffic.goesOn(100, 100)
    expect(tell('two nodes')).toEqual({})
  })

  test('two nodes become four, and two again: nobody is turned away', async () => {
    await stack.run('docker-compose up -d --scale popgres=4')
    const four = await stack.nodes()
    expect(four).toHaveLength(4)
    await stack.allServe(four)
    expect(tell('four nodes')).toEqual({})
    await stack.run('docker-compose up -d --scale popgres=2')
    await traffic.goesOn(50, 50)
    expect(await stack.nodes()).toHaveLength(2)
    expect(tell('two nodes again')).toEqual({})
  })

  test('PostgreSQL is away: every door says so, and all goes on when it is back', async () => {
    const since = new Date().toISOString()
    const haproxy = (await stack.run('docker-compose ps -q haproxy')).trim()
    const follow = ['logs', '-f', '--since', since, haproxy]
    const noneIsReady = ['pop3', 'pop3s', 'lmtp'].map((name) =>
      stack.line('docker', follow, new RegExp(`Server ${name}/\\S+ is DOWN.* 0 active`)),
    )
    await stack.run('docker-compose stop postgres')
    await Promise.all(noneIsReady)
    const { user, password } = accounts[0] as Account
    for (const door of ['pop3', 'pop3s'] as const) {
      const client = await greeted(doors, door)
      if (door === 'pop3') await client.startTls()
      await client.ask(`USER ${user}`)
      expect(await client.ask(`PASS ${password}`)).toMatch(/^-ERR \[SYS\/TEMP\]/)
      client.socket.destroy()
    }
    const lmtp = await LineClient.connect(doors.lmtp)
    expect(await lmtp.reply()).toMatch(/^220/)
    for (const line of ['LHLO me', 'MAIL FROM:<>']) await lmtp.ask(line)
    expect(await lmtp.ask(`RCPT TO:<${user}>`)).toMatch(/^451/)
    lmtp.destroy()
    await stack.run('docker-compose start postgres')
    await traffic.everyoneIsServed(accounts)
    await traffic.goesOn(50, 50)
    tell('PostgreSQL away')
  })

  test('a node is killed: what was promised holds, and the node comes back', async () => {
    const [node = ''] = await stack.nodes()
    const started = stack.line(
      'docker',
      ['events', '--filter', `container=${node}`, '--filter', 'event=start'],
      /start/,
    )
    // The node's supervisor, from within: its workers go with the container.
    await stack.run(`docker exec ${node} sh -c 'kill -9 $(cat /proc/1/task/1/children)'`)
    await started
    await stack.allServe([node])
    // Those whose sessions were cut wait until the dead node's leases are free.
    await traffic.everyoneIsServed(accounts)
    await traffic.goesOn(100, 100)
    tell('a node killed')
  })

  test('another version takes over node by node, with a migration: nobody is turned away', async () => {
    const before = await stack.nodes()
    await stack.addMigration('9999_of_the_next_version')
    stack.set('TAG', `${stack.project}-next`)
    await stack.run('docker-compose build migrate && sh deploy/rolling-upgrade')
    const after = await stack.nodes()
    expect(after).toHaveLength(2)
    expect(after.filter((id) => before.includes(id))).toEqual([])
    await stack.allServe(after)
    const comment = "select obj_description('domains'::regclass)"
    expect(await stack.sql(comment)).toBe('9999_of_the_next_version')
    expect(tell('rolling upgrade')).toEqual({})
  })

  test('the nodes move behind PgBouncer, node by node', async () => {
    stack.set('COMPOSE_PROFILES', 'pgbouncer')
    stack.set('NODE_URL', 'pooled_url')
    await stack.run('docker-compose up -d --build pgbouncer && sh deploy/rolling-upgrade')
    await stack.allServe(await stack.nodes())
    await traffic.goesOn(100, 100)
    const query = 'select distinct host(client_addr) from pg_stat_activity where usename ='
    const address = await stack.run('docker-compose exec -T pgbouncer hostname -i')
    expect(await stack.sql(`${query} 'popgres_node'`)).toBe(address.trim())
    expect(await stack.run('docker-compose logs popgres')).not.toContain('a pooler drops')
    tell('behind PgBouncer')
  })

  test('nothing was lost, doubled or brought back', async () => {
    await traffic.stop()
    await traffic.verify(accounts)
    console.log('in all:', traffic.ledger.counts)
    expect(await stack.run('docker-compose run --rm -T admin check')).toContain('nothing is wrong')
  })

  test('Postfix takes mail for the domain, refuses unknown users, and delivers', async () => {
    const { user, password } = accounts[0] as Account
    stack.set('COMPOSE_PROFILES', 'postfix')
    stack.set('MAIL_DOMAINS', 'example.com')
    await stack.run('docker-compose up -d --build postfix')
    await stack.logged('postfix', /daemon started/)
    const smtp = await LineClient.connect(await stack.port('postfix', 25))
    expect(await smtp.reply()).toMatch(/^220 mx\.example\.com /)
    await smtp.ask('EHLO client.example.net')
    await smtp.ask('MAIL FROM:<bob@example.net>')
    expect(await smtp.ask('RCPT TO:<nobody@example.com>')).toMatch(/^550/)
    expect(await smtp.ask('RCPT TO:<someone@example.org>')).toMatch(/^554/)
    expect(await smtp.ask(`RCPT TO:<${user}>`)).toMatch(/^250/)
    await smtp.ask('DATA')
    expect(await smtp.ask('Subject: by Postfix\r\n\r\nHello\r\n.')).toMatch(/^250/)
    await stack.logged('postfix', /status=sent/)
    smtp.destroy()
    const client = await Pop3Client.connectTls(doors.pop3s)
    await client.line()
    await client.ask(`USER ${user}`)
    await client.ask(`PASS ${password}`)
    const [, count] = (await client.ask('STAT')).split(' ')
    expect((await client.retrieve(`RETR ${count}`)).toString()).toContain('Subject: by Postfix')
    await client.ask('QUIT')
  })
})

/** Tried again if it is closed before the greeting, as clients do; which has to be said. */
async function greeted(doors: Doors, door: 'pop3' | 'pop3s'): Promise<Pop3Client> {
  for (let left = 5; ; left--) {
    const connect = door === 'pop3' ? Pop3Client.connect : Pop3Client.connectTls
    const client = await connect(doors[door])
    const greeting = await client.line().catch((error) => {
      if (left === 1) throw error
    })
    if (greeting !== undefined) {
      expect(greeting).toMatch(/^\+OK/)
      return client
    }
    console.log(`${door}: closed before the greeting`)
  }
}

/** At example.com, which the README has made. */
async function makeAccounts(stack: Stack): Promise<Account[]> {
  const accounts = Array.from({ length: USERS }, (_, i) => ({
    user: `user${i}@example.com`,
    password: `secret-${i}-${process.pid}`,
  }))
  const csv = ['address,password', ...accounts.map((a) => `${a.user},${a.password}`), '']
  await writeFile(join(stack.directory, 'users.csv'), csv.join('\n'))
  const mount = '-v "$PWD/users.csv:/tmp/users.csv:ro"'
  await stack.run(`docker-compose run --rm -T ${mount} admin user import /tmp/users.csv`)
  return accounts
}
