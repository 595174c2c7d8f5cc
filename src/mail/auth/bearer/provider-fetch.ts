/**
 * How a provider is spoken to: one request of bounded time, an answer of bounded size, and no
 * redirect followed, as it would lead tokens and trust to an address that nobody has set.
 */
import { Failure } from '../../../base/failure.ts'

/** LIMIT: a key set or an introspection is a few KiB. */
const ANSWER_MAX_OCTETS = 65_536

/** From the connection to the last octet of the answer. */
const PROVIDER_TIMEOUT_MS = 5_000

/**
 * @returns the JSON of the answer
 * @throws {Failure} AUTH_PROVIDER_AWAY for any other answer than 200 with JSON, and for none; its
 *   message names the address and what happened, never what was sent
 */
export async function fetchJson(
  url: string,
  init: RequestInit = {},
  timeoutMs = PROVIDER_TIMEOUT_MS,
): Promise<unknown> {
  try {
    const signal = AbortSignal.timeout(timeoutMs)
    const response = await fetch(url, { ...init, redirect: 'error', signal })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new Error(`it answered with status ${response.status}`)
    }
    return JSON.parse(await readBounded(response))
  } catch (error) {
    throw new Failure('AUTH_PROVIDER_AWAY', `the OAuth provider at ${url}: ${describe(error)}`)
  }
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let octets = 0
  for await (const chunk of response.body ?? []) {
    octets += chunk.length
    if (octets > ANSWER_MAX_OCTETS) throw new Error('its answer is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** What fetch throws is "fetch failed"; why is in its cause. */
function describe(error: unknown): string {
  if (error instanceof SyntaxError) return 'its answer is not JSON'
  const { cause = error } = error as Error
  const { message, code } = Object(cause) as { message?: string; code?: unknown }
  return message || String(code)
}
