/**
 * The real program as a child process, as an operator runs it: arguments, standard input, and an
 * environment that holds nothing but what is given. The working directory is an empty one, so that
 * no .env and no embedded server of the developer's is found.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const PROGRAM = fileURLToPath(new URL('../../../dist/main.js', import.meta.url))

export interface Outcome {
  status: number | null
  stdout: string
  stderr: string
}

export interface Program {
  /** The empty working directory. */
  directory: string
  run(args: readonly string[], input?: string): Promise<Outcome>
  /** Its standard output as JSON; fails unless the status is 0. */
  json<T>(args: readonly string[]): Promise<T>
  close(): void
}

/** @param env DATABASE_URL and settings */
export function openProgram(env: NodeJS.ProcessEnv): Program {
  const directory = mkdtempSync(join(tmpdir(), 'popgres-admin-'))
  const run = (args: readonly string[], input = ''): Promise<Outcome> => {
    const child = spawn(process.execPath, [PROGRAM, ...args], {
      cwd: directory,
      env: { PATH: process.env.PATH, HOME: directory, ...env },
      stdio: 'pipe',
    })
    child.stdin.on('error', () => {}) // one that reads no input may be gone before it is written
    child.stdin.end(input)
    return outcomeOf(child)
  }
  return {
    directory,
    run,
    async json(args) {
      const { status, stdout, stderr } = await run([...args, '--json'])
      if (status !== 0) throw new Error(`status ${status}: ${stderr}`)
      return JSON.parse(stdout)
    },
    close: () => rmSync(directory, { recursive: true, force: true }),
  }
}

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  const text = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name]?.setEncoding('utf8').on('data', (chunk) => {
      text[name] += chunk
    })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status) => resolve({ status, ...text }))
  })
}
