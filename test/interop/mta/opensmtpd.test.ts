/** OpenSMTPD with the files of deploy/mta/opensmtpd: its tables are in PostgreSQL. */
import { HOST } from '../server.ts'
import type { Lab } from './lab.ts'
import { deployed, describeMta, type MtaRoot } from './root.ts'
import { testMta } from './scenario.ts'

const TABLES = ['popgres-domains.conf', 'popgres-recipients.conf', 'popgres-full.conf']
const SMTPD_GROUP = 93

describeMta('opensmtpd', ['opensmtpd', 'opensmtpd-extras'], () => {
  testMta({
    name: 'opensmtpd',
    configure,
    start: (root) => root.start('/usr/sbin/smtpd', '-d'),
    flush: (root) => root.run('/usr/sbin/smtpctl', 'schedule', 'all'),
    log: (root) => root.told(),
    full: /^452 4\.2\.2 mailbox is full/,
    unknown: /^550 Invalid recipient/,
    foreign: /^550 Invalid recipient/,
    withoutPopgres: /^250/,
    concurrency: 20,
  })
})

function configure(root: MtaRoot, lab: Lab): void {
  const { port, name, user, password } = lab.database
  const text = deployed('opensmtpd/smtpd.conf', {
    'listen on 0.0.0.0 port 25': `listen on ${HOST} port ${lab.smtpPort}`,
    '127.0.0.1:2424': `127.0.0.1:${lab.lmtpPort}`,
  })
  root.write('etc/smtpd.conf', text)
  root.write('etc/mailname', 'mx.interop.test\n')
  for (const file of TABLES) {
    const changes = {
      "port='5432'": `port='${port}'`,
      "user='popgres_mta'": `user='${user}'`,
      'CHANGE-ME': password,
      "dbname='popgres'": `dbname='${name}'`,
    }
    root.write(`etc/opensmtpd/${file}`, deployed(`opensmtpd/${file}`, changes), SMTPD_GROUP)
  }
}
