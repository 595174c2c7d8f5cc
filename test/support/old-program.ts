/**
 * This program as an earlier commit has it, built aside with the dependencies of today: a node of
 * yesterday for tests that let it run beside one of today.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { PROJECT } from './node-process.ts'

const HISTORY_MAX = 200

export interface Commit {
  hash: string
  migrations: readonly string[]
}

/** Newest first; empty where there is no history, as in a tarball. */
export function listCommits(): Commit[] {
  try {
    const hashes = git('rev-list', `--max-count=${HISTORY_MAX}`, 'HEAD').trim().split('\n')
    return hashes.map((hash) => ({ hash, migrations: migrationsOf(hash) }))
  } catch {
    return []
  }
}

/** The one before what lies here: HEAD, if this differs from it. */
export function previousCommit(commits: readonly Commit[]): Commit | undefined {
  const isCommitted = commits.length > 0 && git('status', '--porcelain', 'src', 'migrations') === ''
  return commits[isCommitted ? 1 : 0]
}

/**
 * It cuts all bodies anew, and nodes from before it cannot read them: it did not expand. They were
 * never released.
 */
const OLDEST = '0009_page_chunks.sql'

/** The newest that knows less of the schema than what lies here, and nothing else. */
export function commitBeforeMigrations(commits: readonly Commit[]): Commit | undefined {
  const today = readdirSync(join(PROJECT, 'migrations')).filter((name) => name.endsWith('.sql'))
  return commits.find(
    ({ migrations }) =>
      migrations.includes(OLDEST) &&
      migrations.length < today.length &&
      migrations.every((name) => today.includes(name)),
  )
}

/** What lies here, built as it is, in `directory`. */
export function copyThis(directory: string): void {
  mkdirSync(directory, { recursive: true })
  for (const part of ['dist', 'migrations', 'package.json'])
    cpSync(join(PROJECT, part), join(directory, part), { recursive: true })
  symlinkSync(join(PROJECT, 'node_modules'), join(directory, 'node_modules'))
}

/** A clone of that commit in `directory`, built. */
export function buildCommit({ hash }: Commit, directory: string): void {
  mkdirSync(directory, { recursive: true })
  const archive = execFileSync('git', ['archive', hash], {
    cwd: PROJECT,
    maxBuffer: 256 * 1024 * 1024,
  })
  execFileSync('tar', ['-x', '-C', directory], { input: archive })
  symlinkSync(join(PROJECT, 'node_modules'), join(directory, 'node_modules'))
  const tsc = join(PROJECT, 'node_modules', '.bin', 'tsc')
  // What it was written against may have moved on: it only has to run.
  execFileSync(tsc, ['-p', 'tsconfig.build.json', '--noEmitOnError', 'false', '--noCheck'], {
    cwd: directory,
  })
}

function migrationsOf(hash: string): string[] {
  const names = git('ls-tree', '--name-only', hash, 'migrations/').trim().split('\n')
  return names.map((name) => name.replace(/^migrations\//, '')).filter((name) => name !== '')
}

function git(...args: string[]): string {
  return execFileSync('git', ['--no-optional-locks', ...args], {
    cwd: PROJECT,
    encoding: 'utf8',
    stdio: 'pipe',
  })
}
