/**
 * `popgres health`: asks the node of this machine, or of this container, how it is, where there is
 * no curl to ask with. One line and a status: what a container's health check wants.
 */
import { request } from 'node:http'
import type { Command } from 'commander'
import { refused } from '../../admin/refusal.ts'
import { formatListenAddress, type ListenAddress } from '../../base/network.ts'
import { parseSettings } from '../../base/settings.ts'
import type { CommandContext } from '../command-context.ts'
import { harmlessLine } from '../output.ts'

/** A node that is well answers within milliseconds. */
const ANSWER_MS = 3_000
const LINE_MAX_LENGTH = 200

export function defineHealthCommand(program: Command, context: CommandContext): void {
  program
    .command('health')
    .description('ask the node that runs here whether it serves')
    .option('--live', 'ask only whether its process should be left alone')
    .addHelpText(
      'after',
      `
Asks /readyz, or /livez, at the first address of POPGRES_HTTP_LISTEN, from this machine. Prints the
answer; status 1 if the node is not well, does not answer, or none is there. Needs no database.

Examples:
  popgres health
  popgres health --live
`,
    )
    .action(async (options: { live?: boolean }) => {
      const [address] = parseSettings(context.env).POPGRES_HTTP_LISTEN
      if (address === undefined) throw refused('POPGRES_HTTP_LISTEN is empty: nobody can be asked')
      if ('port' in address && address.port === 0)
        throw refused(
          'POPGRES_HTTP_LISTEN has port 0, which is another at each start: give it one that stays',
        )
      const { isWell, line } = await ask(address, options.live ? '/livez' : '/readyz')
      process.stdout.write(`${line}\n`)
      if (!isWell) context.status = 1
    })
}

/** Never fails: who does not answer is not well. */
function ask(address: ListenAddress, path: string): Promise<{ isWell: boolean; line: string }> {
  return new Promise((resolve) => {
    const nobody = (reason: string): void => {
      const where = formatListenAddress(address)
      resolve({ isWell: false, line: `no answer at ${where}: ${reason}` })
    }
    const asked = request(
      { ...whereToAsk(address), path, agent: false, timeout: ANSWER_MS },
      (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (piece: string) => {
          text = (text + piece).slice(0, LINE_MAX_LENGTH)
        })
        answer.on('end', () => {
          resolve({ isWell: answer.statusCode === 200, line: harmlessLine(text.trim()) })
        })
      },
    )
    asked.on('timeout', () => asked.destroy(new Error(`not within ${ANSWER_MS / 1_000} s`)))
    asked.on('error', ({ message }) => nobody(harmlessLine(message)))
    asked.end()
  })
}

/** Who listens everywhere listens here. */
function whereToAsk(address: ListenAddress): object {
  if ('path' in address) return { socketPath: address.path }
  const { host, port } = address
  const here: Record<string, string> = { '0.0.0.0': '127.0.0.1', '::': '::1' }
  return { host: here[host] ?? host, port }
}
