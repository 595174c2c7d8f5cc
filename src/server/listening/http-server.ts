/**
 * A few fixed pages over HTTP, for machines that look after this node: probes, Prometheus. Nothing
 * is read of a request but its first line; there are no bodies, no parameters and no secrets, and
 * therefore no password: who may connect is decided by the address it listens on, this machine's by
 * default. Bounded in connections, octets and time, and one request at a time on a connection, so
 * that whoever can connect costs little.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { formatListenAddress, type ListenAddress } from '../../base/network.ts'
import { listenOnPath } from './unix-socket.ts'

export interface Page {
  status: number
  /** `text/plain` if left out. */
  type?: string
  text: string
}

/** By path, without a query. Never fail. */
export type Pages = Readonly<Record<string, () => Page | Promise<Page>>>

export interface RunningHttpServer {
  /** As bound, in the form of the settings. */
  readonly addresses: readonly string[]
  stop(): Promise<void>
}

/** LIMIT: some probes and a Prometheus or two; more are dropped at once. */
const CONNECTIONS_MAX = 64
/** LIMIT: octets of a request before its body. */
const HEADER_MAX_OCTETS = 8_192
/** LIMIT: from accept to the end of the headers; looked at each second. */
const HEADERS_TIMEOUT_MS = 5_000
const REQUEST_TIMEOUT_MS = 10_000
const KEEP_ALIVE_MS = 5_000

const PLAIN = 'text/plain; charset=utf-8'

/** @throws the error of listen(2) */
export async function startHttpServer(
  addresses: readonly ListenAddress[],
  pages: Pages,
): Promise<RunningHttpServer> {
  const servers: Server[] = []
  const stop = async (): Promise<void> => {
    await Promise.all(servers.map(close))
  }
  try {
    const bound: string[] = []
    for (const address of addresses) {
      const server = open(pages)
      bound.push(await listen(server, address))
      servers.push(server)
    }
    return { addresses: bound, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

function open(pages: Pages): Server {
  const answering = new WeakSet<Socket>()
  const server = createServer(
    {
      maxHeaderSize: HEADER_MAX_OCTETS,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: KEEP_ALIVE_MS,
    },
    (request, response) => {
      // Thousands of requests fit into one read, and a page for each would have to be kept.
      if (answering.has(request.socket)) return void request.socket.destroy()
      answering.add(request.socket)
      response.once('close', () => answering.delete(request.socket))
      void answer(pages, request, response)
    },
  )
  server.maxConnections = CONNECTIONS_MAX
  // A peer that reads nothing: what it is owed fits the socket, and this ends it.
  server.setTimeout(REQUEST_TIMEOUT_MS)
  return server
}

async function listen(server: Server, address: ListenAddress): Promise<string> {
  if ('path' in address) await listenOnPath(server, address.path)
  else
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(address, () => {
        server.off('error', reject)
        resolve()
      })
    })
  const bound = server.address()
  if (bound === null || typeof bound === 'string') return formatListenAddress(address)
  return formatListenAddress({ host: bound.address, port: bound.port })
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}

async function answer(
  pages: Pages,
  { method, url = '' }: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { status, type, text } = await pageFor(pages, method, url)
  const octets = Buffer.from(text)
  response.writeHead(status, {
    'Content-Type': type ?? PLAIN,
    'Content-Length': octets.length,
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    ...(status === 405 ? { Allow: 'GET, HEAD' } : {}),
    // What else the peer may have sent, a body, is not read.
    ...(method === 'GET' || method === 'HEAD' ? {} : { Connection: 'close' }),
  })
  response.end(method === 'HEAD' ? undefined : octets)
}

function pageFor(pages: Pages, method: string | undefined, url: string): Page | Promise<Page> {
  if (method !== 'GET' && method !== 'HEAD') return { status: 405, text: 'only GET and HEAD\n' }
  const [path = ''] = url.split('?')
  if (!Object.hasOwn(pages, path)) return { status: 404, text: 'no such page\n' }
  const page = pages[path]
  return page === undefined ? { status: 404, text: 'no such page\n' } : page()
}
