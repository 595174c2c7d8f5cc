/**
 * Loaded into a node by `--import` with `?directory=…` behind it: at SIGUSR2 the process' event
 * loop is full, until whoever writes to the named pipe `<directory>/<pid>` closes it. Nothing else
 * of it stands still: threads go on, the kernel takes what peers send.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const directory = new URL(import.meta.url).searchParams.get('directory') ?? '/'

process.on('SIGUSR2', () => {
  readFileSync(join(directory, String(process.pid)))
})
