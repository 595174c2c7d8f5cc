/** Rows as a running node would have them, and questions to the tables behind the program. */
import { randomUUID } from 'node:crypto'
import type { LoginPeer } from '../../../src/mail/auth/login-peer.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'

export interface Ids {
  domainId: number
  userId: number
}

/** For logins that look whether an operation did what it says. */
export const LOCAL_PEER: LoginPeer = {
  client: '127.0.0.1',
  isEncrypted: false,
  hostDomain: undefined,
  certificateDigest: undefined,
}

/** A session of a node that is alive. @returns its id */
export async function putSession(db: Database, ids: Ids, client = '192.0.2.1'): Promise<string> {
  const nodeId = randomUUID()
  const sessionId = randomUUID()
  await db.kysely
    .insertInto('nodes')
    .values({ node_id: nodeId, hostname: 'pop1.example', pid: 4711, version: '0.1.0' })
    .execute()
  await db.kysely
    .insertInto('sessions')
    .values({
      domain_id: ids.domainId,
      user_id: ids.userId,
      session_id: sessionId,
      node_id: nodeId,
      client,
      since: new Date(),
    })
    .execute()
  return sessionId
}

export async function sessionCount(db: Database, ids: Ids): Promise<number> {
  const rows = await db.kysely
    .selectFrom('sessions')
    .select('session_id')
    .where('domain_id', '=', ids.domainId)
    .where('user_id', '=', ids.userId)
    .execute()
  return rows.length
}

/** What is stored of a user's credentials. */
export function credentialsOf(
  db: Database,
  ids: Ids,
): Promise<{ password_hash: string | null; apop_secret: Buffer | null }> {
  return db.kysely
    .selectFrom('users')
    .select(['password_hash', 'apop_secret'])
    .where('domain_id', '=', ids.domainId)
    .where('user_id', '=', ids.userId)
    .executeTakeFirstOrThrow()
}
