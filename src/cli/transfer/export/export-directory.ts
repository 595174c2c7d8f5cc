/**
 * The directory that an export makes: users.json, one directory a user, and last of all
 * export.json, the closing report; without it the export was cut. All of it is readable by its
 * owner alone. What a file system might misread in a name (a local part may hold "/") is %hex.
 */
import { mkdir, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { refused } from '../../../admin/refusal.ts'
import type { SnapshotMessage } from '../../../storage/tenants/maildrops/maildrop-snapshot.ts'

/** @throws {Failure} OPERATION_REFUSED unless it is empty or not there yet */
export async function openDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const names = await readdir(directory)
  if (names.length > 0)
    throw refused(
      `${directory} is not empty: name one that is, or remove what an earlier export left there`,
    )
}

export function fileNameOf(text: string): string {
  return text.replace(/[^A-Za-z0-9._+=@-]|^\./g, (character) =>
    Array.from(Buffer.from(character, 'utf8'))
      .map((octet) => `%${octet.toString(16).padStart(2, '0')}`)
      .join(''),
  )
}

export async function writeJson(file: string, value: unknown): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    await handle.writeFile(`${JSON.stringify(value, null, 2)}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** A file that holds one message, and was changed when the message was received. */
export async function writeMessageFile(file: string, message: SnapshotMessage): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    for await (const piece of message.pieces()) await handle.write(piece)
    await handle.utimes(message.receivedAt, message.receivedAt)
  } catch (error) {
    await rm(file, { force: true })
    throw error
  } finally {
    await handle.close()
  }
}

export async function makeDirectories(directory: string, names: readonly string[]): Promise<void> {
  await mkdir(directory, { mode: 0o700 })
  for (const name of names) await mkdir(join(directory, name), { mode: 0o700 })
}
