/**
 * Whether PostgreSQL got what a connection asks of it: a pooler drops it without a word, and then
 * one locked row holds up everybody, or a statement is planned each time. Asked once, when a node
 * starts.
 */
import { isTemporary } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { CITUS_SERVING_DEFAULTS, HAS_CITUS_SQL, SERVING_DEFAULTS } from './connection-settings.ts'
import type { Database, Statement } from './database.ts'
import { decodeBoolean, decodeText } from './decode.ts'

const NAMES = Object.keys(SERVING_DEFAULTS) as (keyof typeof SERVING_DEFAULTS)[]

const SELECT: Statement = {
  name: 'connection-settings',
  text: `select ${HAS_CITUS_SQL}, ${NAMES.map((name) => `current_setting('${name}')`).join(', ')}`,
}

export async function warnOfLostSettings(db: Database, log: Log): Promise<void> {
  const [[hasCitus, ...row] = []] = await db.hot(SELECT, []).catch((error) => {
    // The database has just gone: nothing is known, and the workers will say so.
    if (isTemporary(error)) return []
    throw error
  })
  const found = NAMES.flatMap((name, index) => {
    const field = row[index]
    return field ? [[name, decodeText(field)] as const] : []
  })
  const wanted = hasCitus && decodeBoolean(hasCitus) ? CITUS_SERVING_DEFAULTS : SERVING_DEFAULTS
  const lost = found.filter(([name, value]) => value !== wanted[name])
  if (lost.length === 0) return
  log.warn(
    { found: Object.fromEntries(lost), wanted },
    'a pooler drops what this node asks of its connections: give it to the role as its defaults',
  )
}
