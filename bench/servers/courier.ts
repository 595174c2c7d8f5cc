/**
 * Courier's pop3d from Debian's packages (courier-authdaemon, courier-authlib-userdb, courier-base;
 * courier-pop conflicts with Dovecot's, so it is unpacked into the bench's place). Its paths are
 * compiled in: it runs in a mount namespace where /etc/courier and /run/courier are the bench's.
 * Root is needed for that and since its processes change users.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { accountsOf, PASSWORD, type Seed } from '../load/content.ts'
import { ProcessGroup } from '../measure/processes.ts'
import { type Certificate, makeCertificate } from './certificate.ts'
import { MAIL_OWNER } from './dovecot-configuration.ts'
import { letOthersThrough, MailCopy } from './mail-copy.ts'
import { writeMaildir } from './maildir.ts'
import { pollEach } from './poll-each.ts'
import { freePorts, waitForGreeting } from './ports.ts'
import type { BenchServer } from './server.ts'

const MAX_CONNECTIONS = 8_000
const COURIER = 'courier'

const CANNOT = new Map([
  ['lmtp', 'takes mail from its own MTA only'],
  ['mixed-day', 'takes mail from its own MTA only'],
  ['poll-tls-resumed', 'resumes no session of this client, though its cache is on'],
])

const START = `
set -e
mount --bind "$PLACE/etc" /etc/courier
mount --bind "$PLACE/run" /run/courier
makeuserdb
set -a
. /etc/courier/authdaemonrc
/usr/lib/courier/courier-authlib/authdaemond &
until [ -S /run/courier/authdaemon/socket ]; do sleep 0.1; done
TCPD="/usr/sbin/couriertcpd -address=127.0.0.1 -nodnslookup -noidentlookup"
TCPD="$TCPD -maxprocs=${MAX_CONNECTIONS} -maxperip=${MAX_CONNECTIONS}"
SESSION="$BIN/courierpop3login $BIN/courierpop3d Maildir"
POP3_TLS=1 $TCPD $POP3S /usr/bin/couriertls -server -tcpd -user=${COURIER} $SESSION &
exec $TCPD $POP3 $SESSION
`

/** @returns where its programs are */
function unpack(place: string): string {
  const packages = join(place, 'packages')
  if (!existsSync(packages)) {
    mkdirSync(packages)
    const options = { cwd: packages, stdio: 'ignore' } as const
    execFileSync('apt-get', ['download', '-o', 'APT::Sandbox::User=root', 'courier-pop'], options)
    execFileSync('/bin/sh', ['-c', 'dpkg-deb -x courier-pop_*.deb .'], options)
  }
  return join(packages, 'usr/lib/courier/courier')
}

/** Accounts, their passwords and the certificate, as it will find them in /etc/courier. */
function configure(place: string, seed: Seed, mail: string, certificate: Certificate): void {
  const etc = join(place, 'etc')
  mkdirSync(etc, { recursive: true })
  mkdirSync(join(place, 'run/authdaemon'), { recursive: true })
  const hash = `{SHA512}${createHash('sha512').update(PASSWORD).digest('base64')}`
  const idOf = (option: string): string =>
    execFileSync('id', [option, MAIL_OWNER], { encoding: 'utf8' }).trim()
  const owner = `uid=${idOf('-u')}|gid=${idOf('-g')}`
  const lines = [...accountsOf(seed)].map(({ address }) => {
    const home = join(mail, address)
    return `${address}\t${owner}|home=${home}|mail=${home}/Maildir|systempw=${hash}\n`
  })
  writeFileSync(join(etc, 'userdb'), lines.join(''), { mode: 0o600 })
  const daemons = 2 * cpus().length
  writeFileSync(
    join(etc, 'authdaemonrc'),
    'authmodulelist=authuserdb\nauthmodulelistorig=authuserdb\n' +
      `daemons=${daemons}\nauthdaemonvar=/run/courier/authdaemon\nDEBUG_LOGIN=0\n`,
  )
  const { certFile, keyFile } = certificate
  writeFileSync(join(etc, 'pop3d.pem'), readFileSync(keyFile, 'utf8') + readFileSync(certFile))
  writeFileSync(join(etc, 'sessions'), '')
  execFileSync('chown', [COURIER, join(etc, 'pop3d.pem'), join(etc, 'sessions')])
}

function writeMail(mail: string, seed: Seed): void {
  mkdirSync(mail)
  for (const account of accountsOf(seed))
    writeMaildir(join(mail, account.address, 'Maildir'), account, { hasCrlf: false })
  execFileSync('chown', ['-R', `${MAIL_OWNER}:${MAIL_OWNER}`, mail])
}

async function run(place: string, bin: string) {
  const [pop3 = 0, pop3s = 0] = await freePorts(2)
  const group = new ProcessGroup('courier')
  const log = openSync(join(place, 'log'), 'a')
  group.spawn('unshare', ['--mount', '--propagation', 'private', '/bin/sh', '-c', START], {
    stdio: ['ignore', log, log],
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      PLACE: place,
      BIN: bin,
      POP3: String(pop3),
      POP3S: String(pop3s),
      TLS_CERTFILE: '/etc/courier/pop3d.pem',
      TLS_VERIFYPEER: 'NONE',
      TLS_CACHEFILE: '/etc/courier/sessions',
      TLS_CACHESIZE: '524288',
    },
  })
  await waitForGreeting(pop3)
  return { group, pop3, pop3s }
}

/** @param bench place of the bench, where the certificate is */
export async function startCourier(bench: string, seed: Seed): Promise<BenchServer> {
  const place = join(bench, 'courier')
  letOthersThrough(place)
  const mail = join(place, 'mail')
  const isNew = !existsSync(mail)
  if (isNew) writeMail(mail, seed)
  configure(place, seed, mail, await makeCertificate(bench))
  const { group, pop3, pop3s } = await run(place, unpack(place))
  if (isNew) {
    // Sizes are counted in the first session, and then kept in a file.
    const accounts = [...accountsOf(seed)]
    await pollEach(
      pop3,
      accounts.map(({ address }) => address),
    )
  }
  const copy = new MailCopy(mail)
  return {
    name: 'courier',
    pop3: { host: '127.0.0.1', port: pop3, tls: false },
    pop3s: { host: '127.0.0.1', port: pop3s, tls: true },
    cannot: CANNOT,
    cachesLogins: false,
    pids: () => ({ server: group.pids(), database: [] }),
    reset: async (workload) => copy.restoreAfter(workload),
    stop: () => group.close(),
  }
}
