/** An old server that answers with octets as they are, as many as the test likes. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'

export interface RawServer {
  port: number
  /** Octets that were given to sockets. */
  sentCount(): number
  /** Those that are open. */
  sockets: ReadonlySet<Socket>
  stop(): Promise<void>
}

type Pieces = Iterable<string> | AsyncIterable<string>

/** @param answer the reply to a command, line ends and all; undefined: silence for ever */
export async function startRawServer(
  answer: (command: string) => Pieces | string | undefined,
): Promise<RawServer> {
  const sockets = new Set<Socket>()
  let sent = 0
  const send = async (socket: Socket, pieces: Pieces): Promise<void> => {
    for await (const piece of pieces) {
      if (socket.destroyed) return
      sent += piece.length
      if (socket.write(piece, 'latin1')) continue
      await Promise.race([once(socket, 'drain'), once(socket, 'close')])
    }
  }
  const serve = async (socket: Socket): Promise<void> => {
    let held = ''
    socket.write('+OK raw\r\n')
    for await (const chunk of socket) {
      held += (chunk as Buffer).toString('latin1')
      for (let end = held.indexOf('\r\n'); end >= 0; end = held.indexOf('\r\n')) {
        const reply = answer(held.slice(0, end))
        held = held.slice(end + 2)
        if (reply === undefined) await once(socket, 'close')
        else await send(socket, typeof reply === 'string' ? [reply] : reply)
      }
    }
  }
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    serve(socket).catch(() => {}) // the client has gone
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    sentCount: () => sent,
    sockets,
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** What a server says whose answers are fine otherwise. */
export function usualAnswer(command: string, capabilities = 'USER\r\nUIDL\r\n'): string {
  if (command === 'CAPA') return `+OK\r\n${capabilities}.\r\n`
  if (command === 'LIST') return '+OK\r\n1 100\r\n.\r\n'
  if (command === 'UIDL') return '+OK\r\n1 abc\r\n.\r\n'
  if (command.startsWith('RETR')) return '+OK\r\nSubject: one\r\n\r\none\r\n.\r\n'
  return '+OK\r\n'
}
