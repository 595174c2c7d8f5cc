/** Password hashes that other programs made, with their passwords: see the head of the file. */
import { readFileSync } from 'node:fs'

export interface StoredVector {
  stored: string
  password: Buffer
}

export const STORED_HASHES: readonly StoredVector[] = readFileSync(
  new URL('stored-hashes.txt', import.meta.url),
  'utf8',
)
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [hex = ''] = line.split(' ', 1)
    return { stored: line.slice(hex.length + 1), password: Buffer.from(hex, 'hex') }
  })
