/**
 * The compose file on this machine's Docker: a copy of the clone in a directory of its own, a project
 * of its own, ports that nobody else has. Commands run as an operator types them.
 */
import { execFile, spawn } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { PROJECT } from '../support/node-process.ts'
import type { Doors } from './traffic.ts'

const PARTS = [
  ...['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json', 'src'],
  ...['migrations', 'Dockerfile', '.dockerignore', 'docker-compose.yml', 'deploy', 'monitoring'],
]
const COMMAND_MS = 240_000
const LINE_MS = 90_000

export class Stack {
  readonly directory: string
  /** Its name for Docker. */
  readonly project: string
  readonly #env: Record<string, string> = {
    PUBLISH_POP3: '0',
    PUBLISH_POP3S: '0',
    PUBLISH_LMTP: '0',
    PUBLISH_SMTP: '0',
    PUBLISH_PROMETHEUS: '0',
  }

  private constructor(directory: string) {
    this.directory = directory
    this.project = `popgres-test-${process.pid}`
    this.set('TAG', this.project)
  }

  static async open(): Promise<Stack> {
    const stack = new Stack(await mkdtemp(join(tmpdir(), 'popgres-compose-')))
    for (const part of PARTS)
      await cp(join(PROJECT, part), join(stack.directory, part), { recursive: true })
    return stack
  }

  /** For all commands from now on. */
  set(name: string, value: string): void {
    this.#env[name] = value
  }

  /**
   * @param line of a shell, in the clone
   * @returns standard output; @throws with all output if it fails
   */
  async run(line: string, limitMs = COMMAND_MS): Promise<string> {
    const env = { ...process.env, ...this.#env, COMPOSE_PROJECT_NAME: this.project }
    const child = promisify(execFile)('sh', ['-ec', line], {
      cwd: this.directory,
      env,
      timeout: limitMs,
      maxBuffer: 64 * 1024 * 1024,
    })
    try {
      return (await child).stdout
    } catch (error) {
      const { stdout, stderr } = error as { stdout: string; stderr: string }
      throw new Error(`failed: ${line}\n${stdout}\n${stderr}`)
    }
  }

  /** Where a service can be reached from here. */
  async port(service: string, port: number): Promise<string> {
    return (await this.run(`docker-compose port ${service} ${port}`)).trim()
  }

  async doors(): Promise<Doors> {
    const [pop3, pop3s, lmtp] = await Promise.all(
      [1110, 1995, 2424].map((port) => this.port('haproxy', port)),
    )
    if (pop3 === undefined || pop3s === undefined || lmtp === undefined) throw new Error('no ports')
    return { pop3, pop3s, lmtp }
  }

  /** Container ids of the nodes that run. */
  async nodes(): Promise<string[]> {
    const lines = await this.run(
      `docker ps -q --no-trunc --filter label=com.docker.compose.project=${this.project} ` +
        '--filter label=com.docker.compose.service=popgres --filter status=running',
    )
    return lines.split('\n').filter((id) => id !== '')
  }

  /** One line of SQL as the owner of the tables. */
  async sql(query: string): Promise<string> {
    const psql = `docker-compose exec -T postgres psql -U popgres -d popgres -tAc "${query}"`
    return (await this.run(psql)).trim()
  }

  /** Until a line that this command prints matches; the command is then ended. */
  async line(command: string, args: readonly string[], pattern: RegExp): Promise<string> {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    const timer = setTimeout(() => child.kill(), LINE_MS)
    try {
      for await (const line of createInterface({ input: child.stdout }))
        if (pattern.test(line)) return line
      throw new Error(`${command} ${args.join(' ')}: no line like ${pattern}`)
    } finally {
      clearTimeout(timer)
      child.kill()
    }
  }

  /** Until a service with one container has logged a line like this. */
  async logged(service: string, pattern: RegExp): Promise<string> {
    const id = (await this.run(`docker-compose ps -q ${service}`)).trim()
    return this.line('docker', ['logs', '-f', id], pattern)
  }

  /** Until each of these nodes has opened a maildrop that it was not asked for before. */
  async allServe(nodes: readonly string[]): Promise<void> {
    const follow = ['logs', '-f', '--since', new Date().toISOString()]
    await Promise.all(nodes.map((id) => this.line('docker', [...follow, id], /"msg":"login"/)))
  }

  /** What an upgrade brings: another image, and a migration that the nodes before it live with. */
  async addMigration(name: string): Promise<void> {
    const text = `-- lowest-node-version: 0.1.0\ncomment on table domains is '${name}';\n`
    await writeFile(join(this.directory, 'migrations', `${name}.sql`), text)
  }

  /** The shell lines of a section of the README, block by block. */
  async readme(heading: string): Promise<string[]> {
    const text = await readFile(join(PROJECT, 'README.md'), 'utf8')
    const [, section = ''] = text.split(`\n${heading}\n`)
    const [own = ''] = section.split(/\n#+ /)
    return [...own.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = '']) => block)
  }

  /** Leaves no container, volume, network or image of this project's. */
  async close(): Promise<void> {
    this.set('COMPOSE_PROFILES', 'admin,pgbouncer,postfix')
    await this.run('docker-compose down -v --remove-orphans')
    const images = `docker image ls -q --filter 'reference=popgres*:${this.project}*'`
    await this.run(`${images} | sort -u | xargs -r docker image rm -f`)
    await rm(this.directory, { recursive: true })
  }
}
