/**
 * curl as a mail client: CAPA first, then SASL wherever it is offered, or else APOP, or else USER,
 * unless `--login-options` says what. Each run is one session.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ClientResult, describeClients, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES } from './messages.ts'
import { HOST, HOST_NAME, type InteropServer, PASSWORD, startServer } from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

/** curl's own number for a login that was refused. */
const LOGIN_DENIED = 67
const ENDS: Readonly<Record<number, Outcome['end']>> = {
  0: 'fetched',
  60: 'untrusted',
  [LOGIN_DENIED]: 'wrong password',
}
const NAMES = [...MESSAGES.keys()]

function curl(
  server: InteropServer,
  address: string,
  path: string,
  args: readonly string[] = [],
  password = PASSWORD,
): Promise<ClientResult> {
  const url = `pop3://${HOST}:${server.pop3Port}/${path}`
  const user = `${encodeURIComponent(address)}:${encodeURIComponent(password)}`
  const withUser = url.replace('://', `://${user}@`)
  return runClient('curl', ['-sS', '--max-time', '30', ...args, withUser])
}

/** Fetches all in one session, and deletes all in it. */
async function runErrand(errand: Errand): Promise<Outcome> {
  const { server, transport, mechanism, port, address, password, caFile } = errand
  const url = (number: number): string =>
    `${transport === 'POP3S' ? 'pop3s' : 'pop3'}://${HOST_NAME}:${port}/${number}`
  const options = ['--max-time', '30', '--cacert', caFile, '--user', `${address}:${password}`]
  if (transport === 'STLS') options.push('--ssl-reqd')
  if (mechanism !== 'USER')
    options.push('--login-options', `AUTH=${mechanism === 'APOP' ? '+APOP' : mechanism}`)
  const files = NAMES.map((name) => join(server.directory, `${address}-${name}`))
  const gets = files.flatMap((file, index) => ['--output', file, url(index + 1)])
  const deletions = NAMES.map((_, index) => ['-I', '-X', 'DELE', ...options, url(index + 1)])
  const nexts = deletions.flatMap((deletion) => ['--next', ...deletion])
  const args = ['-v', '--fail-early', ...options, ...gets, ...nexts]
  const { status, stderr } = await runClient('curl', args)
  const end = ENDS[status] ?? 'something else'
  const copies = end === 'fetched' ? files.map((file) => readFileSync(file)) : []
  return { end, transcript: stderr, copies }
}

describeClients('curl', ['curl', 'swaks'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: false })
  })

  afterAll(async () => {
    await server.stop()
  })

  async function list(address: string): Promise<string[]> {
    const result = await curl(server, address, '', ['-l'])
    expect(result).toMatchObject({ status: 0, stderr: '' })
    return result.stdout.toString().split('\r\n').slice(0, -1)
  }

  it('fetches every message as delivered, in as many octets as LIST says', async () => {
    const address = await server.addUser('curl-fetch')
    await deliver(server, address)
    const listed = await list(address)
    expect(listed).toHaveLength(NAMES.length)
    for (const [index, name] of NAMES.entries()) {
      const { status, stdout } = await curl(server, address, String(index + 1))
      expect(status).toBe(0)
      expectDelivered(stdout, address, name)
      expect(listed[index]).toBe(`${index + 1} ${stdout.length}`)
    }
  })

  it('reads TOP and UIDL by a command of its own', async () => {
    const address = await server.addUser('curl-top')
    await deliver(server, address, ['dots', 'plain'])
    const whole = (await curl(server, address, '1')).stdout.toString('latin1')
    const head = whole.slice(0, whole.indexOf('\r\n\r\n') + 4)
    const top = async (lines: number): Promise<string> =>
      (await curl(server, address, '', ['-X', `TOP 1 ${lines}`])).stdout.toString('latin1')
    expect(await top(0)).toBe(head)
    expect(await top(2)).toBe(`${head}.\r\n..\r\n`)
    expect(await top(1_000)).toBe(whole)
    const uidl = (await curl(server, address, '', ['-X', 'UIDL'])).stdout.toString()
    expect(uidl).toMatch(/^1 [!-~]{1,70}\r\n2 [!-~]{1,70}\r\n$/)
    expect((await curl(server, address, '', ['-X', 'UIDL'])).stdout.toString()).toBe(uidl)
  })

  it('deletes by DELE, as curl ends with QUIT', async () => {
    const address = await server.addUser('curl-dele')
    await deliver(server, address, ['plain', 'dots'])
    const result = await curl(server, address, '1', ['-I', '-X', 'DELE'])
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(await list(address)).toHaveLength(1)
    expectDelivered((await curl(server, address, '1')).stdout, address, 'dots')
  })

  it('is told of a message that is not there, and of a wrong password', async () => {
    const address = await server.addUser('curl-wrong')
    const empty = await curl(server, address, '1')
    expect(empty.status).not.toBe(0)
    expect(empty.stdout).toHaveLength(0)
    for (const password of ['wrong', `${PASSWORD} `])
      expect((await curl(server, address, '', [], password)).status).toBe(LOGIN_DENIED)
    expect((await curl(server, 'nobody@interop.test', '')).status).toBe(LOGIN_DENIED)
  })

  it('waits outside while another session has the maildrop', async () => {
    const address = await server.addUser('curl-in-use')
    const holder = await Holder.open(server.pop3Port, address)
    const refused = await curl(server, address, '', ['-v'])
    expect(refused.status).toBe(LOGIN_DENIED)
    expect(refused.stderr).toContain('-ERR [IN-USE]')
    await holder.quit()
    expect((await curl(server, address, '')).status).toBe(0)
  })

  testWaysIn({
    run: runErrand,
    lineEnd: '\r\n',
    cannot: {
      'SCRAM-SHA-256': 'needs a curl with libgsasl',
      'SCRAM-SHA-256-PLUS': 'curl does not have it',
    },
  })
})
