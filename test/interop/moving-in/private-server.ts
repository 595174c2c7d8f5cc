/**
 * Old servers from the system's packages, each a private instance with configuration, sockets and
 * mail below a directory of the test's own: Dovecot's POP3 and IMAP, Courier's POP3. They change
 * users, so root is needed; Courier has its paths compiled in and gets a mount namespace.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** Of Debian's own: mail must belong to somebody who is not root. */
export const MAIL_OWNER = 'mail'

const START_DEADLINE_MS = 30_000
const STOP_DEADLINE_MS = 10_000

export interface OldServer {
  directory: string
  pop3Port: number
  imapPort: number
  stop(): Promise<void>
}

/** Readable: their processes are of several users. */
export function makePlace(name: string): string {
  const directory = mkdtempSync(join(tmpdir(), `popgres-${name}-`))
  chmodSync(directory, 0o755)
  return directory
}

/** Why Courier cannot run here; undefined: it can. */
export function whyNoCourier(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root'
  const programs = ['/usr/lib/courier/courier-authlib/authdaemond', '/usr/sbin/couriertcpd']
  const probe = programs.map((program) => `[ -x ${program} ]`).join(' && ')
  const has = (command: string) => spawnSync('sh', ['-c', command]).status === 0
  if (!has(`${probe} && command -v makeuserdb unshare fetchmail`))
    return 'not installed: courier-base, courier-authlib-userdb, fetchmail'
  return has('unshare --mount true') ? undefined : 'no right to a mount namespace'
}

/** @param passwd lines of its passwd-file */
export async function startDovecot(
  directory: string,
  passwd: string,
  settings = '',
): Promise<OldServer> {
  const [pop3Port = 0, imapPort = 0] = await freePorts(2)
  writeFileSync(join(directory, 'passwd'), passwd)
  const file = join(directory, 'dovecot.conf')
  writeFileSync(file, dovecotConfiguration(directory, pop3Port, imapPort) + settings)
  const log = openSync(join(directory, 'start.log'), 'a')
  const child = spawn('dovecot', ['-F', '-c', file], { stdio: ['ignore', log, log] })
  await greeted(child, pop3Port)
  await greeted(child, imapPort)
  return { directory, pop3Port, imapPort, stop: () => stopChild(child, 'SIGTERM') }
}

function dovecotConfiguration(directory: string, pop3Port: number, imapPort: number): string {
  const listener = (name: string, port: number) => `
service ${name}-login {
  inet_listener ${name} {
    address = 127.0.0.1
    port = ${port}
  }
  inet_listener ${name}s {
    port = 0
  }
  chroot =
}`
  return `
base_dir = ${join(directory, 'run')}
state_dir = ${join(directory, 'state')}
log_path = ${join(directory, 'log')}
instance_name = ${pop3Port}
protocols = pop3 imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
mail_uid = ${MAIL_OWNER}
mail_gid = ${MAIL_OWNER}
first_valid_uid = 1
first_valid_gid = 1
mail_privileged_group =
mail_location = maildir:~/Maildir
mail_max_userip_connections = 0
namespace inbox {
  inbox = yes
}
passdb {
  driver = passwd-file
  args = username_format=%u ${join(directory, 'passwd')}
}
userdb {
  driver = passwd-file
  args = username_format=%u ${join(directory, 'passwd')}
}
${listener('pop3', pop3Port)}
${listener('imap', imapPort)}
`
}

const COURIER_START = `
set -e
mount --bind "$PLACE/etc" /etc/courier
mount --bind "$PLACE/run" /run/courier
makeuserdb
set -a
. /etc/courier/authdaemonrc
/usr/lib/courier/courier-authlib/authdaemond &
until [ -S /run/courier/authdaemon/socket ]; do sleep 0.05; done
exec /usr/sbin/couriertcpd -address=127.0.0.1 -nodnslookup -noidentlookup -maxprocs=40 -maxperip=40 \
  $PORT $BIN/courierpop3login $BIN/courierpop3d Maildir
`

/** @param userdb lines of its userdb */
export async function startCourier(directory: string, userdb: string): Promise<OldServer> {
  const etc = join(directory, 'etc')
  mkdirSync(etc, { recursive: true })
  mkdirSync(join(directory, 'run/authdaemon'), { recursive: true })
  writeFileSync(join(etc, 'userdb'), userdb, { mode: 0o600 })
  writeFileSync(
    join(etc, 'authdaemonrc'),
    'authmodulelist=authuserdb\nauthmodulelistorig=authuserdb\n' +
      'daemons=2\nauthdaemonvar=/run/courier/authdaemon\nDEBUG_LOGIN=0\n',
  )
  const [pop3Port = 0] = await freePorts(1)
  const log = openSync(join(directory, 'log'), 'a')
  const child = spawn(
    'unshare',
    ['--mount', '--propagation', 'private', '/bin/sh', '-c', COURIER_START],
    {
      stdio: ['ignore', log, log],
      detached: true,
      env: {
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
        PLACE: directory,
        BIN: unpackCourier(directory),
        PORT: String(pop3Port),
      },
    },
  )
  await greeted(child, pop3Port)
  return { directory, pop3Port, imapPort: 0, stop: () => stopChild(child, 'group') }
}

/** courier-pop conflicts with Dovecot's package. @returns where its programs are */
function unpackCourier(directory: string): string {
  const script = resolve(import.meta.dirname, '../../support/unpack-courier.sh')
  return execFileSync('sh', [script, directory], { encoding: 'utf8' }).trim()
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

/** There is no event for it, so it is asked for until the deadline. */
async function greeted(child: ChildProcess, port: number): Promise<void> {
  const deadline = performance.now() + START_DEADLINE_MS
  while (performance.now() < deadline && child.exitCode === null) {
    const socket = connect(port, '127.0.0.1')
    const isGreeted = await once(socket, 'data').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (isGreeted) return
    await delay(50)
  }
  throw new Error(`the old server does not greet at port ${port}`)
}

/** @param how a signal, or its whole process group */
async function stopChild(child: ChildProcess, how: 'SIGTERM' | 'group'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  const kill = (signal: NodeJS.Signals): void => {
    if (how === 'group' && child.pid !== undefined) process.kill(-child.pid, signal)
    else child.kill(signal)
  }
  kill('SIGTERM')
  const timer = setTimeout(() => kill('SIGKILL'), STOP_DEADLINE_MS)
  await exit
  clearTimeout(timer)
}

export function removePlace(directory: string): void {
  rmSync(directory, { recursive: true, force: true })
}
