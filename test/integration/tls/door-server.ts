/**
 * A TlsDoor behind a listening socket, without POP3: what a client writes comes back. And a client
 * that trusts the test's authority.
 */
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import type { Failure } from '../../../src/base/failure.ts'
import { type EncryptedSocket, TlsDoor, type TlsDoorOptions } from '../../../src/server/tls/door.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import type { TestAuthority, TestCertificate } from '../../support/certificates.ts'
import { TEST_KEYRING } from '../../support/postgres.ts'

type Arrival = EncryptedSocket | Failure

export interface DoorServer {
  door: TlsDoor
  port: number
  /** Where certificates lie: `standard` and one folder a host name. */
  directory: string
  /** Every line that was logged. */
  logged: string[]
  /** What became of the next connection. */
  arrival(): Promise<Arrival>
  /** The next connection, which must succeed. */
  encrypted(): Promise<EncryptedSocket>
  /** Sees each connection before the door does. */
  onAccept: (socket: Socket) => Promise<unknown> | undefined
}

/** Writes both files of a host into `directory`. */
export function putFiles(directory: string, host: string, { cert, key }: TestCertificate): void {
  mkdirSync(join(directory, host), { recursive: true })
  writeFileSync(join(directory, host, 'fullchain.pem'), cert)
  writeFileSync(join(directory, host, 'privkey.pem'), key)
}

/** Ends with the test. @param standard undefined: no certificate is configured */
export async function startDoor(
  db: Database,
  standard: TestCertificate | undefined,
  options: Partial<TlsDoorOptions> = {},
): Promise<DoorServer> {
  const directory = mkdtempSync(join(tmpdir(), 'popgres-tls-'))
  if (standard !== undefined) putFiles(directory, 'standard', standard)
  const logged: string[] = []
  const door = new TlsDoor({
    db,
    log: pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) }),
    keyring: TEST_KEYRING,
    certFile: standard && join(directory, 'standard', 'fullchain.pem'),
    keyFile: standard && join(directory, 'standard', 'privkey.pem'),
    directory,
    wantsClientCertificates: false,
    ...options,
  })
  await door.refresh()
  const arrivals: Arrival[] = []
  let notify = (): void => {}
  const server = createServer({ allowHalfOpen: true }, async (socket) => {
    await started.onAccept(socket)
    const arrival = await door.encrypt(socket).catch((error: Failure) => error)
    if ('socket' in arrival) arrival.socket.on('error', () => {}).pipe(arrival.socket)
    arrivals.push(arrival)
    notify()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const arrival = async (): Promise<Arrival> => {
    const [first] = arrivals.splice(0, 1)
    if (first !== undefined) return first
    await new Promise<void>((resolve) => {
      notify = resolve
    })
    return arrival()
  }
  const started: DoorServer = {
    door,
    port: (server.address() as AddressInfo).port,
    directory,
    logged,
    arrival,
    encrypted: async () => {
      const arrived = await arrival()
      if ('socket' in arrived) return arrived
      throw arrived
    },
    onAccept: () => undefined,
  }
  onTestFinished(() => {
    server.close()
    door.close()
    rmSync(directory, { recursive: true })
  })
  return started
}

/** Connects and finishes the handshake; ends with the test. */
export async function connectTo(
  { port }: DoorServer,
  authority: TestAuthority,
  servername: string | undefined,
  options: ConnectionOptions = {},
): Promise<TLSSocket> {
  const client = connect({
    port,
    host: '127.0.0.1',
    ca: authority.cert,
    checkServerIdentity: () => undefined,
    ...(servername !== undefined && { servername }),
    ...options,
  })
  onTestFinished(() => void client.destroy())
  await once(client, 'secureConnect')
  return client
}

/** Names that the certificate is for which the client was shown. */
export function shownTo(client: TLSSocket): string | undefined {
  return client.getPeerX509Certificate()?.subjectAltName
}

/** Sends a line and waits for it to come back. */
export async function echo(client: TLSSocket, line: string): Promise<string> {
  client.write(line)
  const [chunk] = await once(client, 'data')
  return String(chunk)
}

/** What resumes the session; in TLS 1.3 it comes after the handshake. */
export async function sessionOf(client: TLSSocket): Promise<Buffer> {
  if (client.getProtocol() === 'TLSv1.2') return client.getSession() ?? Buffer.alloc(0)
  const [[session]] = await Promise.all([once(client, 'session'), echo(client, 'tickets, please')])
  return session
}
