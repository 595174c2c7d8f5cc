/** An IMAP server with one message, which answers partial fetches as a test wants. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'

export interface ImapStubOptions {
  message: string
  /** RFC822.SIZE; default: what is true. */
  listed?: number
  /** Octets of one answer at most. */
  pieceMax?: number
  /** From this octet on the answer is NIL; may change. */
  nilFrom?: number
}

export async function startImapStub(options: ImapStubOptions) {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}))
    socket.write('* OK IMAP4rev1 ready\r\n')
    let held = ''
    socket.on('data', (chunk) => {
      held += chunk.toString('latin1')
      for (let end = held.indexOf('\r\n'); end >= 0; end = held.indexOf('\r\n')) {
        const line = held.slice(0, end)
        held = held.slice(end + 2)
        const [tag = ''] = line.split(' ')
        socket.write(`${answer(line, options)}${tag} OK done\r\n`, 'latin1')
        if (/^\S+ LOGOUT/i.test(line)) socket.end()
      }
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

function answer(line: string, options: ImapStubOptions): string {
  const { message, listed = message.length } = options
  const [, verb = ''] = line.toUpperCase().split(' ')
  if (verb === 'CAPABILITY') return '* CAPABILITY IMAP4rev1\r\n'
  if (verb === 'LIST' || verb === 'LSUB') return '* LIST () "/" INBOX\r\n'
  if (verb === 'LOGOUT') return '* BYE\r\n'
  if (verb === 'SELECT' || verb === 'EXAMINE')
    return '* 1 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 2] n\r\n* FLAGS ()\r\n'
  const [, from, length] = /BODY(?:\.PEEK)?\[\]<(\d+)\.(\d+)>/i.exec(line) ?? []
  if (from !== undefined)
    return `* 1 FETCH (UID 1 BODY[]<${from}> ${piece(+from, options, length)})\r\n`
  if (!line.toUpperCase().includes('FETCH')) return ''
  const date = '02-Jan-2024 03:04:05 +0000'
  return `* 1 FETCH (UID 1 RFC822.SIZE ${listed} INTERNALDATE "${date}")\r\n`
}

function piece(from: number, options: ImapStubOptions, length = '0'): string {
  const {
    message,
    pieceMax = Number.POSITIVE_INFINITY,
    nilFrom = Number.POSITIVE_INFINITY,
  } = options
  if (from >= nilFrom) return 'NIL'
  const octets = message.slice(from, from + Math.min(Number(length), pieceMax))
  return `{${octets.length}}\r\n${octets}`
}
