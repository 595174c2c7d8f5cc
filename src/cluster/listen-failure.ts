/**
 * Why an address cannot be listened on, in one line: which address, why, and the setting that names
 * it. The operator reads it instead of listen(2)'s error.
 */
import { Failure } from '../base/failure.ts'
import { formatListenAddress } from '../base/network.ts'

const REASONS: Record<string, string> = {
  EADDRINUSE: 'it is in use already: stop what listens there',
  EACCES: 'this account may not: give it the right (a port below 1024 may need root)',
  EADDRNOTAVAIL: 'no interface of this machine has that address: give it one',
}

/**
 * @param setting that names the addresses
 * @throws {Failure} SETTINGS_INVALID for an error of listen(2); others as they are
 */
export async function explainListening<T>(setting: string, listening: Promise<T>): Promise<T> {
  try {
    return await listening
  } catch (error) {
    const { code, syscall, message } = error as NodeJS.ErrnoException
    if (code === undefined || syscall === undefined) throw error
    const reason = REASONS[code] ?? message
    const detail = `cannot listen on ${addressOf(error)}: ${reason}, or change ${setting}`
    throw new Failure('SETTINGS_INVALID', detail, error)
  }
}

function addressOf(error: unknown): string {
  const { address = '?', port = -1 } = error as { address?: string; port?: number }
  return formatListenAddress(port < 0 ? { path: address } : { host: address, port })
}
