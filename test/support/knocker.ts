/**
 * Clients that come to an address one after the other, without a pause, and go again: what a node that
 * must refuse nobody is watched with. Who is not greeted is counted, with why.
 */
import { connect, type Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'

export interface Knocks {
  /** Greeted, and answered when they said QUIT. */
  served: number
  /** Why the others were not. */
  failures: string[]
  /** Last words of the server, each once, in the order in which they were first heard. */
  farewells: string[]
}

export class Knocker {
  readonly #loops: Promise<void>[] = []
  readonly #knocks: Knocks = { served: 0, failures: [], farewells: [] }
  #isOver = false
  #wake = (): void => {}

  /** `atOnce` clients at a time at this address (host:port or unix:/path), from now on. */
  knockAt(address: string, atOnce: number, isTls = false): void {
    for (let nth = 0; nth < atOnce; nth++) this.#loops.push(this.#loop(address, isTls))
  }

  /** Resolves when so many more have been served; a failure ends the wait too. */
  async more(count: number): Promise<void> {
    const wanted = this.#knocks.served + count
    const isDone = (): boolean =>
      this.#knocks.served >= wanted || this.#knocks.failures.length > 0 || this.#isOver
    while (!isDone())
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
  }

  /** When those who are there have gone. */
  async stop(): Promise<Knocks> {
    this.#isOver = true
    this.#wake()
    await Promise.all(this.#loops)
    return this.#knocks
  }

  async #loop(address: string, isTls: boolean): Promise<void> {
    const { failures, farewells } = this.#knocks
    while (!this.#isOver) {
      const { farewell, failure } = await knock(address, isTls)
      if (failure !== undefined) failures.push(`${address}: ${failure}`)
      else this.#knocks.served++
      if (farewell !== undefined && !farewells.includes(farewell)) farewells.push(farewell)
      this.#wake()
    }
  }
}

function knock(
  address: string,
  isTls: boolean,
): Promise<{ farewell: string | undefined; failure: string | undefined }> {
  return new Promise((resolve) => {
    const socket = open(address, isTls)
    const lines: string[] = []
    let rest = ''
    let error: string | undefined
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => {
      const parts = (rest + text).split('\r\n')
      rest = parts.pop() ?? ''
      if (lines.length === 0 && parts.length > 0) socket.write('QUIT\r\n')
      lines.push(...parts)
    })
    socket.on('error', ({ message }) => {
      error = message
    })
    socket.once('close', () => {
      const isServed = lines.length === 2 && lines.every((line) => /^(\+OK|2\d\d) /.test(line))
      const failure = isServed ? undefined : (error ?? `closed after ${JSON.stringify(lines)}`)
      resolve({ farewell: lines[1], failure })
    })
  })
}

function open(address: string, isTls: boolean): Socket {
  if (address.startsWith('unix:')) return connect(address.slice('unix:'.length))
  const colon = address.lastIndexOf(':')
  const place = { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) }
  return isTls ? tlsConnect({ ...place, rejectUnauthorized: false }) : connect(place)
}
