/**
 * Messages to test with, each a file with lines as a mail system keeps them (LF or CRLF). The
 * directory: POPGRES_TEST_CORPUS, else `../shared/corpus` beside the project, else the small set
 * that comes with the project.
 */
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const PROJECT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..')

export function corpusFiles(): { name: string; path: string }[] {
  const places = [
    process.env.POPGRES_TEST_CORPUS,
    join(PROJECT, '..', 'shared', 'corpus'),
    join(PROJECT, 'test', 'corpus'),
  ]
  const directory = places.find((place) => place !== undefined && existsSync(place))
  if (directory === undefined) throw new Error('there is no corpus: set POPGRES_TEST_CORPUS')
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'MANIFEST.tsv')
    .map((entry) => ({ name: entry.name, path: join(directory, entry.name) }))
    .sort((one, other) => (one.name < other.name ? -1 : 1))
}
