/**
 * A JSON file of an export, read and looked at. What is wrong with it is told without its words:
 * they may be hashes.
 */
import { readFile } from 'node:fs/promises'
import type { z } from 'zod'
import { describeReadError } from '../../../admin/read-error.ts'
import { refused } from '../../../admin/refusal.ts'

/**
 * @param what it should be
 * @throws {Failure} OPERATION_REFUSED if it cannot be read, or is something else
 */
export async function readJson<T>(file: string, schema: z.ZodType<T>, what: string): Promise<T> {
  const { success, data } = schema.safeParse(parse(await readText(file)))
  if (!success) throw refused(`${file} is not ${what}`)
  return data
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const reason = describeReadError(error)
    throw reason === undefined ? error : refused(`cannot read ${file}: ${reason}`, error)
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
