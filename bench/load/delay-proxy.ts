/**
 * A TCP proxy in a process of its own that stands for a network: it adds `delayMs` to every round
 * trip, half of it each way, keeps order and throughput, and holds a bounded amount of what is on
 * the way. A timer of Node is a millisecond coarse; here the process naps for 50 µs at a time while
 * anything is on the way, which is late by 0.1 ms and leaves the core to others; where it may, it
 * goes before them, as a network would.
 *
 *     node delay-proxy.js <port of the target on 127.0.0.1> <delayMs>
 *
 * prints its own port, and ends with its standard input.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setPriority } from 'node:os'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** On the way in one direction of one connection; then its sender has to wait. */
const ON_THE_WAY_MAX_OCTETS = 4 * 1024 * 1024
const NAP_MS = 0.05
/** Below this a timer would be too late. */
const TIMER_MIN_MS = 2

interface Delayed {
  dueAt: number
  lane: Lane
  /** undefined: the sender has ended */
  chunk: Buffer | undefined
}

/** One direction of one connection. */
class Lane {
  readonly from: Socket
  readonly to: Socket
  #onTheWay = 0

  constructor(from: Socket, to: Socket, line: DelayLine) {
    this.from = from
    this.to = to
    from.on('data', (chunk: Buffer) => {
      this.#onTheWay += chunk.length
      line.put(this, chunk)
      this.#pace()
    })
    from.on('end', () => line.put(this, undefined))
    to.on('drain', () => this.#pace())
  }

  arrive(chunk: Buffer | undefined): void {
    if (this.to.destroyed) return
    if (chunk === undefined) {
      this.to.end()
      return
    }
    this.#onTheWay -= chunk.length
    this.to.write(chunk)
    this.#pace()
  }

  #pace(): void {
    const isFull = this.#onTheWay + this.to.writableLength > ON_THE_WAY_MAX_OCTETS
    if (isFull) this.from.pause()
    else if (this.from.isPaused()) this.from.resume()
  }
}

/** What is on the way, of all lanes: each takes as long, so first in is first out. */
class DelayLine {
  readonly #oneWayMs: number
  #queue: Delayed[] = []
  #next = 0
  #isAwake = false
  readonly #sleeper = new Int32Array(new SharedArrayBuffer(4))

  constructor(oneWayMs: number) {
    this.#oneWayMs = oneWayMs
  }

  put(lane: Lane, chunk: Buffer | undefined): void {
    this.#queue.push({ dueAt: performance.now() + this.#oneWayMs, lane, chunk })
    if (this.#isAwake) return
    this.#isAwake = true
    setImmediate(this.#turn)
  }

  /** Between two turns the event loop reads what has come in. */
  readonly #turn = (): void => {
    this.#deliverDue()
    const next = this.#queue[this.#next]
    if (next === undefined) {
      this.#queue = []
      this.#next = 0
      this.#isAwake = false
      return
    }
    const leftMs = next.dueAt - performance.now()
    if (leftMs >= TIMER_MIN_MS) {
      setTimeout(this.#turn, Math.floor(leftMs - 1))
      return
    }
    if (leftMs > 0) Atomics.wait(this.#sleeper, 0, 0, Math.min(leftMs, NAP_MS))
    setImmediate(this.#turn)
  }

  #deliverDue(): void {
    const now = performance.now()
    for (;;) {
      const first = this.#queue[this.#next]
      if (first === undefined || first.dueAt > now) break
      this.#next++
      first.lane.arrive(first.chunk)
    }
    if (this.#next < 1024) return
    this.#queue = this.#queue.slice(this.#next)
    this.#next = 0
  }
}

/** In this process. @returns its port, and what ends it */
export async function openDelayProxy(
  targetPort: number,
  delayMs: number,
): Promise<{ port: number; close(): void }> {
  const line = new DelayLine(delayMs / 2)
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true })
    target.setNoDelay(true)
    const cut = (): void => {
      client.destroy()
      target.destroy()
    }
    for (const socket of [client, target]) {
      sockets.add(socket)
      socket.on('error', cut).on('close', () => sockets.delete(socket))
    }
    new Lane(client, target, line)
    new Lane(target, client, line)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const close = (): void => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  return { port, close }
}

export interface DelayProxy {
  port: number
  pid: number
  stop(): Promise<void>
}

/** In a process of its own. */
export async function startDelayProxy(targetPort: number, delayMs: number): Promise<DelayProxy> {
  const file = fileURLToPath(import.meta.url)
  const child: ChildProcess = spawn(process.execPath, [file, `${targetPort}`, `${delayMs}`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const { stdin, stdout, pid } = child
  if (!stdin || !stdout || pid === undefined) throw new Error('the proxy did not start')
  const [port] = await once(createInterface({ input: stdout }), 'line')
  const stop = async (): Promise<void> => {
    stdin.end()
    if (child.exitCode === null) await once(child, 'exit')
  }
  return { port: Number(port), pid, stop }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [targetPort, delayMs] = process.argv.slice(2).map(Number)
  if (!(targetPort && delayMs !== undefined && delayMs >= 0)) {
    console.error('usage: delay-proxy <port of the target> <delayMs>')
    process.exit(2)
  }
  try {
    setPriority(-20)
  } catch {
    // Not root: on a busy machine it is late more often.
  }
  const proxy = await openDelayProxy(targetPort, delayMs)
  console.info(proxy.port)
  process.stdin.on('end', () => process.exit()).resume()
}
