/** Postfix with the files of deploy/mta/postfix: domains and recipients come from PostgreSQL. */

import { HOST } from '../server.ts'
import type { Lab } from './lab.ts'
import { deployed, describeMta, type MtaRoot } from './root.ts'
import { testMta } from './scenario.ts'

const MAPS = ['popgres-domains.cf', 'popgres-recipients.cf', 'popgres-full.cf']

/** Debian's own settings, and what a machine of one's own has in its main.cf. */
const OWN = `compatibility_level = 3.6
myhostname = mx.interop.test
mydestination = localhost
mynetworks = 192.0.2.0/24
local_transport = error:no local delivery
alias_maps =
inet_interfaces = loopback-only
maillog_file = /var/log/mail.log
# Nothing waits long in a test.
queue_run_delay = 3s
minimal_backoff_time = 1s
maximal_backoff_time = 3s
`

/** What the package's installation does; sh is all that there is, so chown comes from outside. */
const QUEUE = ['active', 'bounce', 'corrupt', 'defer', 'deferred', 'flush', 'hold', 'incoming']
const SOCKETS = ['private', 'public', 'maildrop', 'saved', 'trace']
const [POSTFIX, POSTDROP] = [91, 90]

describeMta('postfix', ['postfix', 'postfix-pgsql'], () => {
  testMta({
    name: 'postfix',
    configure,
    start: (root) => root.start('/usr/lib/postfix/sbin/master', '-c', '/etc/postfix', '-d'),
    flush: (root) => root.run('/usr/sbin/postqueue', '-f'),
    log: (root) => root.read('var/log/mail.log'),
    full: /^452 4\.2\.2 .*mailbox is full/,
    unknown: /^550 5\.1\.1 .*User unknown/,
    foreign: /^454 4\.7\.1|^554 5\.7\.1 .*Relay access denied/,
    withoutPopgres: /^250/,
    remembersFailures: true,
    concurrency: 20,
  })
})

function configure(root: MtaRoot, lab: Lab): void {
  const { port, name, user, password } = lab.database
  root.makeDirectory('var/spool/postfix', 0o755, 0)
  root.makeDirectory('var/spool/postfix/pid', 0o755, 0)
  root.makeDirectory('var/lib/postfix', 0o755, POSTFIX)
  for (const queue of [...QUEUE, ...SOCKETS])
    root.makeDirectory(`var/spool/postfix/${queue}`, 0o710, POSTFIX, POSTDROP)
  const master = root.read('usr/share/postfix/master.cf.dist')
  root.write('etc/postfix/master.cf', master.replace(/^smtp {2,}/m, `${HOST}:${lab.smtpPort} `))
  root.write('etc/postfix/dynamicmaps.cf', root.read('usr/share/postfix/dynamicmaps.cf'))
  root.write(
    'etc/postfix/main.cf',
    OWN + deployed('postfix/main.cf', { '127.0.0.1:2424': `127.0.0.1:${lab.lmtpPort}` }),
  )
  for (const file of MAPS) {
    const changes = {
      '127.0.0.1:5432': `127.0.0.1:${port}`,
      'dbname = popgres': `dbname = ${name}`,
      'user = popgres_mta': `user = ${user}`,
      'CHANGE-ME': password,
    }
    root.write(`etc/postfix/${file}`, deployed(`postfix/${file}`, changes), POSTFIX)
  }
}
