/** A full event loop: a worker that runs, and does nothing. See blocked-loop.mjs. */
import { spawnSync } from 'node:child_process'
import { closeSync, constants, openSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { until } from './until.ts'

/**
 * @param directory that the node may read; one for all its processes
 * @returns the option of node itself that makes its processes blockable
 */
export function blockableLoop(directory: string): string {
  const preload = new URL('./blocked-loop.mjs', import.meta.url)
  preload.searchParams.set('directory', directory)
  return `--import=${preload}`
}

/**
 * @param pid of a process that was started with that option
 * @returns resolves when its loop is full, with what empties it
 */
export async function blockLoop(pid: number, directory: string): Promise<() => void> {
  const pipe = join(directory, String(pid))
  rmSync(pipe, { force: true })
  const { status, stderr } = spawnSync('mkfifo', ['-m', '600', pipe], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`no named pipe: ${stderr}`)
  process.kill(pid, 'SIGUSR2')
  const writer = await openForReader(pipe)
  return () => {
    closeSync(writer)
    rmSync(pipe, { force: true })
  }
}

/** Opens when there is somebody who reads. */
async function openForReader(pipe: string): Promise<number> {
  let writer: number | undefined
  await until('the loop is full', () => {
    try {
      writer = openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error
    }
    return writer !== undefined
  })
  return writer ?? 0
}
