/** Exim with the file of deploy/mta/exim: each RCPT is asked of Popgres by LMTP. */
import type { Lab } from './lab.ts'
import { deployed, describeMta, type MtaRoot } from './root.ts'
import { testMta } from './scenario.ts'

const EXIM_GROUP = 92

describeMta('exim4', ['exim4-daemon-heavy'], () => {
  testMta({
    name: 'exim4',
    configure,
    start: (root) => root.start('/usr/sbin/exim4', '-bdf', '-q1m'),
    flush: (root) => root.run('/usr/sbin/exim4', '-qff'),
    log: (root) => root.read('var/log/exim4/mainlog') + root.read('var/log/exim4/paniclog'),
    full: /^452 4\.2\.2 mailbox is full/,
    unknown: /^550.*no such user here/s,
    foreign: /^550.*relay not permitted/s,
    withoutPopgres: /^451/,
    concurrency: 20,
  })
})

function configure(root: MtaRoot, lab: Lab): void {
  const { port, name, user, password } = lab.database
  const server = `127.0.0.1::${port}/${name}/${user}/${password}`
  for (const directory of ['spool', 'log', 'lib'])
    root.makeDirectory(`var/${directory}/exim4`, 0o750, EXIM_GROUP)
  const text = deployed('exim/exim.conf', {
    '127.0.0.1::5432/popgres/popgres_mta/CHANGE-ME': server,
    'daemon_smtp_ports = 25': `daemon_smtp_ports = ${lab.smtpPort}\nlocal_interfaces = 127.0.0.1`,
    'port = 2424': `port = ${lab.lmtpPort}`,
  })
  root.write('etc/exim4/exim4.conf', `primary_hostname = mx.interop.test\n${text}`, EXIM_GROUP)
}
