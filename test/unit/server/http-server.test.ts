/** The pages of a node over HTTP: what is answered, and what whoever can connect may cost. */
import { mkdtempSync, rmdirSync } from 'node:fs'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  type RunningHttpServer,
  startHttpServer,
} from '../../../src/server/listening/http-server.ts'

const PAGES = {
  '/livez': () => ({ status: 200, text: 'alive\n' }),
  '/readyz': () => ({ status: 503, text: 'not ready: why\n' }),
  '/metrics': async () => ({ status: 200, type: 'text/plain; version=0.0.4', text: 'a 1\n' }),
}

let server: RunningHttpServer
let sockets: Socket[]

beforeEach(async () => {
  server = await startHttpServer([{ host: '127.0.0.1', port: 0 }], PAGES)
  sockets = []
})
afterEach(async () => {
  for (const socket of sockets) socket.destroy()
  await server.stop()
})

const ask = (path: string, init: RequestInit = {}) =>
  fetch(`http://${server.addresses[0]}${path}`, init)

/** All that comes back until the server closes. */
function send(text: string): Promise<string> {
  const socket = open()
  socket.write(text)
  return new Promise((resolve) => {
    let heard = ''
    socket.on('data', (chunk) => {
      heard += chunk.toString()
    })
    socket.on('error', () => {})
    socket.once('close', () => resolve(heard))
  })
}

function open(): Socket {
  const port = Number(server.addresses[0]?.split(':')[1])
  const socket = connect(port, '127.0.0.1')
  sockets.push(socket)
  return socket
}

test('pages by GET and HEAD, with their status', async () => {
  const live = await ask('/livez?verbose')
  expect([live.status, await live.text()]).toEqual([200, 'alive\n'])
  expect(live.headers.get('cache-control')).toBe('no-store')
  const ready = await ask('/readyz')
  expect([ready.status, await ready.text()]).toEqual([503, 'not ready: why\n'])
  const metrics = await ask('/metrics')
  expect(metrics.headers.get('content-type')).toBe('text/plain; version=0.0.4')
  const head = await ask('/readyz', { method: 'HEAD' })
  expect([head.status, await head.text()]).toEqual([503, ''])
  expect(head.headers.get('content-length')).toBe('15')
})

test.each(['/', '/metrics/', '/Livez', '/constructor', '/__proto__', '/%6civez'])(
  'there is nothing at %s',
  async (path) => {
    const answer = await ask(path)
    expect([answer.status, await answer.text()]).toEqual([404, 'no such page\n'])
  },
)

test.each(['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])('%s is refused', async (method) => {
  const answer = await ask('/livez', { method })
  expect(answer.status).toBe(405)
  expect(answer.headers.get('allow')).toBe('GET, HEAD')
  expect(answer.headers.get('connection')).toBe('close')
})

test('what is no HTTP, or too long, or smuggles, is refused and cut', async () => {
  expect(await send('QUIT\r\n\r\n')).toMatch(/^HTTP\/1.1 400 /)
  expect(await send(`GET /${'x'.repeat(20_000)} HTTP/1.1\r\n`)).toMatch(/^HTTP\/1.1 431 /)
  const smuggled =
    'GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'
  expect(await send(smuggled)).toMatch(/^HTTP\/1.1 400 /)
})

test('a request that is begun and not ended is cut', async () => {
  const began = performance.now()
  expect(await send('GET /livez HTTP/1.1\r\nHost: a\r\n')).toMatch(/^HTTP\/1.1 408 |^$/)
  expect(performance.now() - began).toBeLessThan(15_000)
})

test('who asks again before the answer is cut; who waits for it may ask again', async () => {
  const get = 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n'
  const heard = await send(get.repeat(1_000))
  expect(heard.split('HTTP/1.1 200').length - 1).toBeLessThan(2)
  const socket = open()
  for (let nth = 0; nth < 3; nth++) {
    socket.write(get)
    const answer = await new Promise((done) => socket.once('data', (chunk) => done(String(chunk))))
    expect(answer).toMatch(/^HTTP\/1.1 200 .*a 1\n$/s)
  }
})

test('so many connections and no more', async () => {
  const first = Array.from({ length: 64 }, open)
  await Promise.all(first.map((socket) => new Promise((done) => socket.once('connect', done))))
  const dropped = open()
  dropped.on('error', () => {})
  await new Promise((done) => dropped.once('close', done))
  const [one] = first
  const answered = new Promise<string>((done) => one?.once('data', (chunk) => done(String(chunk))))
  one?.write('GET /livez HTTP/1.1\r\nHost: a\r\n\r\n')
  expect(await answered).toMatch(/^HTTP\/1.1 200 /)
})

test('on a Unix socket too, and nothing is left of it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'popgres-http-'))
  const path = join(folder, 'http')
  const unix = await startHttpServer([{ path }], PAGES)
  expect(unix.addresses).toEqual([`unix:${path}`])
  const status = await new Promise((done) => {
    request({ socketPath: path, path: '/livez', agent: false }, (answer) => {
      answer.resume()
      done(answer.statusCode)
    }).end()
  })
  expect(status).toBe(200)
  await unix.stop()
  rmdirSync(folder)
})

test('an address that is taken: nothing stays open', async () => {
  const [, port = '0'] = server.addresses[0]?.split(':') ?? []
  const addresses = [
    { host: '127.0.0.1', port: 0 },
    { host: '127.0.0.1', port: Number(port) },
  ]
  await expect(startHttpServer(addresses, PAGES)).rejects.toThrow('EADDRINUSE')
})
