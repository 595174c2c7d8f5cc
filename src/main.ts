#!/usr/bin/env node
/**
 * The program: the command line and the environment (with .env beneath it) go to a command of cli/,
 * its exit status comes back. Nothing else happens here.
 */
import { config } from 'dotenv'
import { runCommand } from './cli/commands.ts'

config({ quiet: true })
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The reader of a pipe went away (`popgres user list … | head`): nobody is left to write for.
  if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0)
  throw error
})
process.exitCode = await runCommand(process.argv.slice(2), process.env)
