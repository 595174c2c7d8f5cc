/**
 * A POP3 server that users move away from: it says what the test tells it to, counts who is
 * connected, and notes every command (of PASS the verb alone).
 */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { createSecureContext, createServer as createTlsServer, TLSSocket } from 'node:tls'
import type { TestCertificate } from './certificates.ts'

export interface OldUser {
  password: string
  messages: { uniqueId: string; text: string }[]
}

export interface OldServerOptions {
  users: Record<string, OldUser>
  /** Lines of CAPA; undefined: CAPA is unknown. */
  capabilities?: readonly string[]
  hasUidl?: boolean
  tls?: TestCertificate & { way: 'tls' | 'stls' }
  /** The reply to a command, in place of the usual one; may make it wait. */
  reply?: (command: string) => Promise<string | undefined> | string | undefined
  /** Between its reply to QUIT and the end of the connection. */
  beforeClose?: () => Promise<void>
}

const USUAL_CAPABILITIES = ['USER', 'UIDL', 'TOP', 'PIPELINING', 'RESP-CODES', 'AUTH-RESP-CODE']

export class OldServerStub {
  readonly commands: string[] = []
  openCount = 0
  openMax = 0
  port = 0
  readonly #options: OldServerOptions
  readonly #sockets = new Set<Socket>()
  #stop: () => Promise<void> = async () => {}

  private constructor(options: OldServerOptions) {
    this.#options = options
  }

  static async start(options: OldServerOptions): Promise<OldServerStub> {
    const stub = new OldServerStub(options)
    const { tls } = options
    const serve = (socket: Socket): void => void stub.#serve(socket)
    const server = tls?.way === 'tls' ? createTlsServer(tls, serve) : createServer(serve)
    server.on('connection', (socket: Socket) => {
      stub.#sockets.add(socket.on('error', () => {}))
    })
    if (tls?.way === 'tls') server.on('tlsClientError', () => {})
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    stub.port = (server.address() as AddressInfo).port
    stub.#stop = async () => {
      for (const socket of stub.#sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    }
    return stub
  }

  stop(): Promise<void> {
    return this.#stop()
  }

  count(verb: string): number {
    return this.commands.filter((command) => command.startsWith(verb)).length
  }

  async #serve(plain: Socket): Promise<void> {
    this.openCount += 1
    this.openMax = Math.max(this.openMax, this.openCount)
    plain.once('close', () => {
      this.openCount -= 1
    })
    let socket = plain.on('error', () => {})
    socket.write('+OK old server\r\n')
    for (let isOpen = true; isOpen; ) {
      const next: Socket | undefined = await this.#converse(socket)
      isOpen = next !== undefined
      if (next !== undefined) socket = next
    }
    socket.destroy()
  }

  /** @returns the socket with TLS, if it goes on with that */
  async #converse(socket: Socket): Promise<Socket | undefined> {
    const state = { name: '', user: undefined as OldUser | undefined }
    let held = ''
    try {
      for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
        held += (chunk as Buffer).toString('latin1')
        for (let end = held.indexOf('\r\n'); end >= 0; end = held.indexOf('\r\n')) {
          const line = held.slice(0, end)
          held = held.slice(end + 2)
          this.commands.push(line.startsWith('PASS') ? 'PASS' : line)
          const reply = (await this.#options.reply?.(line)) ?? this.#answer(line, state)
          if (reply === 'cut') return undefined
          socket.write(`${reply}\r\n`, 'latin1')
          if (line === 'QUIT') await this.#options.beforeClose?.()
          if (line === 'QUIT') return undefined
          if (line === 'STLS' && this.#options.tls) return this.#secure(socket, this.#options.tls)
        }
      }
    } catch {
      // The client has gone.
    }
    return undefined
  }

  #secure(socket: Socket, tls: TestCertificate): Socket {
    const secureContext = createSecureContext(tls)
    return new TLSSocket(socket, { isServer: true, secureContext }).on('error', () => {})
  }

  #answer(line: string, state: { name: string; user: OldUser | undefined }): string {
    const { users, capabilities = USUAL_CAPABILITIES, hasUidl = true } = this.#options
    const [verb = '', argument = ''] = line.split(/ (.*)/s)
    const messages = state.user?.messages ?? []
    switch (verb) {
      case 'CAPA':
        return ['+OK', ...capabilities, '.'].join('\r\n')
      case 'USER':
        state.name = argument
        return '+OK'
      case 'PASS': {
        const user = users[state.name]
        if (user?.password !== argument) return '-ERR [AUTH] Authentication failed.'
        state.user = user
        return '+OK Logged in.'
      }
      case 'LIST':
        return multi(messages.map(({ text }, at) => `${at + 1} ${text.length}`))
      case 'UIDL':
        if (!hasUidl) return '-ERR unknown'
        return multi(messages.map(({ uniqueId }, at) => `${at + 1} ${uniqueId}`))
      case 'RETR':
        return `+OK\r\n${(messages[Number(argument) - 1]?.text ?? '').replace(/^\./gm, '..')}.`
      default:
        return verb === 'QUIT' || verb === 'STLS' ? '+OK' : '-ERR unknown'
    }
  }
}

const multi = (lines: readonly string[]): string => ['+OK', ...lines, '.'].join('\r\n')

/** A `reply` that holds RETR number `at` until it is let go. */
export function gateAt(at: number) {
  let open = (): void => {}
  let reach = (): void => {}
  const isOpen = new Promise<void>((resolve) => {
    open = resolve
  })
  const isReached = new Promise<void>((resolve) => {
    reach = resolve
  })
  const reply = async (line: string): Promise<undefined> => {
    if (line !== `RETR ${at}`) return undefined
    reach()
    await isOpen
    return undefined
  }
  return { open: () => open(), isReached, reply }
}
