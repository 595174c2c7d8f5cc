#!/usr/bin/env node
/**
 * The program: the command line and the environment (with .env beneath it) go to a command of cli/,
 * its exit status comes back. Nothing else happens here.
 */
import { config } from 'dotenv'
import { runCommand } from './cli/commands.ts'

const own = { ...process.env }
config({ quiet: true })

/** As at the start: what the process was given wins over .env, which is read anew. */
function readEnvironment(): NodeJS.ProcessEnv {
  const env = { ...own }
  const { error } = config({ quiet: true, processEnv: env })
  if (error !== undefined && error.code !== 'ENOENT') throw error
  return env
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The reader of a pipe went away (`popgres user list … | head`): nobody is left to write for.
  if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0)
  throw error
})
process.exitCode = await runCommand(process.argv.slice(2), process.env, readEnvironment)
