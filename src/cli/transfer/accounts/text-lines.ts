/**
 * The lines of a list that somebody keeps by hand: without comments and empty ones, each with where
 * it stands.
 */
import { readFile } from 'node:fs/promises'
import { describeReadError } from '../../../admin/read-error.ts'
import { refused } from '../../../admin/refusal.ts'

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read */
export async function readLines(path: string): Promise<{ text: string; source: string }[]> {
  const text = await readFile(path, 'utf8').catch((error) => {
    const reason = describeReadError(error)
    throw reason === undefined ? error : refused(`cannot read ${path}: ${reason}`, error)
  })
  return text
    .split(/\r?\n/)
    .map((line, index) => ({ text: line, source: `${path} line ${index + 1}` }))
    .filter((line) => line.text.trim() !== '' && !line.text.startsWith('#'))
}
