/**
 * What a whole node writes and shows while clients log in rightly and wrongly and mail comes in from
 * odd senders, with the most talkative log there is: no password, token, proof, content of a message
 * or secret of the operator; and on its HTTP pages no name of anybody either.
 */
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { base64, greet, LOGINS, MECHANISMS } from '../integration/attacks/logins.ts'
import { LineClient } from '../support/line-client.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import {
  addUser,
  openTestDatabase,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../support/postgres.ts'
import { StatusPages } from '../support/status-pages.ts'

const ALICE = 'alice-of-redaction@secrecy.test'
const PASSWORD = 'Right-Horse-77-Battery'
const WRONG = 'Wrong-Horse-78-Battery'
const APOP_SECRET = 'Shared-Staple-19-Battery'
const TOKEN = `eyJhbGciOiJSUzI1NiJ9.${base64('{"email":"alice-of-redaction"}')}.c2lnbmF0dXJl`
const CONTENT = 'Content-Marker-4711-Of-A-Message'
const SENDER = 'Sender-Marker-4712'

/** As a client may type them, or a program may send them. */
const ODD_NAMES = [
  `${'n'.repeat(500)}`,
  `${'n'.repeat(490)}@secrecy.test`,
  'al\x1b[31mice@secrecy.test',
  'al\x00ice@secrecy.test',
  'al\rice@secrecy.test',
  'al\xc2\x9bice@secrecy.test',
  'alice@secrecy.test","level":60,"msg":"login',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: as it is typed
  '%s%n${x}@secrecy.test',
  PASSWORD,
]

const ODD_SENDERS = [
  '',
  `"${SENDER} \\" quoted"@odd.test`,
  `${SENDER}${'s'.repeat(400)}@odd.test`,
  `${SENDER}@[192.0.2.1]`,
  `${SENDER}\x1b[31m@odd.test`,
]

let database: TestDatabase
let nodes: NodeProcess[]

beforeEach(async () => {
  database = await openTestDatabase()
  nodes = []
})
afterEach(async () => {
  for (const node of nodes) await node.destroy()
  await database.close()
})

function start(env: Record<string, string>): NodeProcess {
  const node = new NodeProcess({
    env: {
      POPGRES_HTTP_LISTEN: '127.0.0.1:0',
      POPGRES_LOG_LEVEL: 'trace',
      POPGRES_SECRET_KEY: TEST_SECRET_KEY_HEX,
      POPGRES_SASL_MECHANISMS: 'SCRAM-SHA-256, OAUTHBEARER, XOAUTH2, PLAIN, LOGIN, EXTERNAL',
      POPGRES_WORKERS: '1',
      ...env,
    },
  })
  nodes.push(node)
  return node
}

/** All that the node has written, as it was and as JSON has it. */
const writtenBy = (node: NodeProcess): string =>
  `${node.records.map((record) => JSON.stringify(record)).join('\n')}\n${node.stderr}`

/** A secret, and what it looks like after the usual changes of clothes. */
function formsOf(secret: string): string[] {
  const octets = Buffer.from(secret)
  // Base64 of it somewhere inside longer text, whatever stands before.
  const inner = [0, 1, 2].map((skipped) => base64(secret.slice(skipped)).slice(4, -4))
  return [secret, encodeURIComponent(secret), octets.toString('hex'), base64(secret), ...inner]
}

function expectNone(text: string, secrets: readonly string[]): void {
  const forms = secrets.filter((secret) => secret.length >= 8).flatMap(formsOf)
  expect(forms.length).toBeGreaterThan(0)
  expect(forms.filter((form) => form.length >= 8 && text.includes(form))).toEqual([])
}

async function tryAll(pop3: string, name: string, secret: string): Promise<void> {
  for (const [mechanism, login] of MECHANISMS) {
    const client = await greet(await Pop3Client.connect(pop3))
    const reply = await login(client, name, secret)
    expect(reply, mechanism).toMatch(/^[-+](OK|ERR)/)
    client.socket.destroy()
    await client.closed
  }
}

async function sendMail(lmtp: string, sender: string): Promise<void> {
  const client = await LineClient.connect(lmtp)
  await client.reply()
  await client.ask(`LHLO ${SENDER}.test`)
  await client.ask(`MAIL FROM:<${sender}>`)
  await client.ask(`RCPT TO:<${ALICE}>`)
  if ((await client.ask('DATA')).startsWith('354')) {
    client.send(`Subject: ${CONTENT}\r\n\r\n${CONTENT}\r\n.\r\n`)
    await client.reply()
  }
  client.destroy()
}

test('nothing that was said to it, in the log or on its pages', async () => {
  await addUser(database.db, ALICE, { password: PASSWORD, apopSecret: APOP_SECRET })
  const node = start({ DATABASE_URL: database.url })
  const { pop3, lmtp } = await node.addresses()
  const pages = await StatusPages.of(node)
  await pages.until('/readyz', ({ status }) => status === 200)
  for (const sender of ODD_SENDERS) await sendMail(lmtp, sender)

  for (const mechanism of ['USER and PASS', 'PLAIN', 'LOGIN', 'APOP'] as const) {
    const client = await greet(await Pop3Client.connect(pop3))
    const secret = mechanism === 'APOP' ? APOP_SECRET : PASSWORD
    expect(await LOGINS[mechanism](client, ALICE, secret), mechanism).toMatch(/^\+OK/)
    expect((await client.askMulti('RETR 1')).raw.toString()).toContain(CONTENT)
    await client.ask('QUIT')
    await client.closed
  }
  await tryAll(pop3, ALICE, WRONG)
  await tryAll(pop3, ALICE, TOKEN)
  for (const name of ODD_NAMES) {
    const client = await greet(await Pop3Client.connect(pop3))
    await LOGINS.PLAIN(client, name, WRONG)
    await LOGINS['USER and PASS'](client, name, WRONG)
    client.socket.destroy()
  }
  const page = await pages.ask('/metrics')
  const others = await Promise.all(['/readyz', '/livez', '/nothing'].map((path) => pages.ask(path)))
  const from = node.records.length
  await node.stop()
  expect(node.records.slice(from).length).toBeGreaterThan(0)

  const log = writtenBy(node)
  expect(log).toContain(ALICE)
  expect(log).toContain('message delivered')
  const secrets = [
    PASSWORD,
    WRONG,
    APOP_SECRET,
    TOKEN,
    CONTENT,
    SENDER,
    TEST_SECRET_KEY_HEX,
    decodeURIComponent(new URL(database.url).password),
  ]
  expectNone(log, secrets)
  for (const record of node.records) {
    expect(JSON.stringify(record)).toMatch(/^[\x20-\x7e]*$/)
    if (record.user !== undefined) expect(String(record.user).length).toBeLessThanOrEqual(318)
  }
  const shown = [page, ...others].map(({ text }) => text).join('\n')
  expect(page.text).toContain('popgres_login_attempts_total{')
  expectNone(shown, [...secrets, ALICE, 'alice-of-redaction', 'secrecy.test'])
})

test('the line at the end of a session says who, from where, how, what, how long and why', async () => {
  await addUser(database.db, ALICE, { password: PASSWORD })
  const node = start({ DATABASE_URL: database.url })
  const { pop3, lmtp } = await node.addresses()
  await sendMail(lmtp, 'a@b.test')
  const client = await Pop3Client.login(pop3, ALICE, PASSWORD)
  await client.askMulti('RETR 1')
  await client.ask('DELE 1')
  await client.ask('QUIT')
  await client.closed
  expect(await node.record('connection closed')).toMatchObject({
    level: 'info',
    client: '127.0.0.1',
    tls: 'none',
    user: ALICE,
    mechanism: 'password',
    retrieved: 1,
    deleted: 1,
    octets: expect.any(Number),
    ms: expect.any(Number),
    reason: 'quit',
  })
  await node.stop()
  expect(node.records.filter(({ msg }) => msg === 'connection closed')).toHaveLength(1)
})

const secret = `Database-${randomBytes(6).toString('hex')}-%41`

test.each([
  ['refuses the password', (url: URL) => url],
  ['is nowhere', (url: URL) => Object.assign(url, { hostname: '127.0.0.1', port: '1' })],
])('the password of a database that %s is in no line', async (_, change) => {
  const url = change(new URL(database.url))
  url.password = secret
  const node = start({ DATABASE_URL: url.toString() })
  await node.record(/^waiting for the database/)
  const { pop3 } = await node.addresses()
  const client = await Pop3Client.connect(pop3)
  await client.line()
  await client.ask(`USER ${ALICE}`)
  expect(await client.ask(`PASS ${PASSWORD}`)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  client.socket.destroy()
  const pages = await StatusPages.of(node)
  const shown = (await pages.ask('/readyz')).text + (await pages.ask('/metrics')).text
  await node.stop()
  expectNone(`${writtenBy(node)}\n${shown}`, [secret, decodeURIComponent(secret), PASSWORD])
})

test.each([
  ['no URL', `popgres:${secret}@db.test/popgres`],
  ['another scheme', `mysql://popgres:${secret}@db.test/popgres`],
  ['a port that is none', `postgres://popgres:${secret}@db.test:port/popgres`],
  ['two hosts, one wrong', `postgres://popgres:${secret}@a.test:1,b.test:x/popgres`],
])('a DATABASE_URL that cannot be read (%s) is refused without its password', async (_, url) => {
  const node = start({ DATABASE_URL: url })
  expect((await node.exited).status).toBe(1)
  expect(node.stderr).toContain('DATABASE_URL')
  expectNone(writtenBy(node), [secret, decodeURIComponent(secret)])
})
