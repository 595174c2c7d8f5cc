/**
 * Messages to test with, each a file with lines as a mail system keeps them (LF or CRLF): the set that
 * comes with the project, one for each oddity, and a larger one where there is one: in the directory
 * POPGRES_TEST_CORPUS, or `shared/corpus` beside the project.
 */
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const PROJECT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..')

export function corpusFiles(): { name: string; path: string }[] {
  const larger = process.env.POPGRES_TEST_CORPUS ?? join(PROJECT, '..', 'shared', 'corpus')
  const directories = [join(PROJECT, 'test', 'corpus'), larger].filter(existsSync)
  return directories.flatMap((directory) =>
    readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== 'MANIFEST.tsv')
      .map((entry) => ({ name: entry.name, path: join(directory, entry.name) }))
      .sort((one, other) => (one.name < other.name ? -1 : 1)),
  )
}
