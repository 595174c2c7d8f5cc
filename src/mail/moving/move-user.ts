/**
 * Moves one user whose password the old server has just taken: under the lease of the maildrop, so
 * that no other node does it too and nobody reads it half full, and crash by crash further: only
 * the last step, which keeps the password, makes the user one who has moved.
 *
 * Mail that was delivered here before the move stays where it is, before what is copied; what comes
 * meanwhile or later is behind that, or between. Uids only say in which order messages came here.
 */
import { Failure } from '../../base/failure.ts'
import type { Pop3Client } from '../../remote/pop3-client.ts'
import { type LoginAccount, selectLoginAccount } from '../../storage/accounts.ts'
import {
  keepPassword,
  type MigratingDomain,
  makeMovingUser,
} from '../../storage/tenants/old-servers.ts'
import { hashPassword } from '../auth/argon2.ts'
import { type Maildrop, type MaildropContext, openMaildrop } from '../maildrop/maildrop.ts'
import type { FirstLogin } from './first-logins.ts'
import { copyMaildrop } from './maildrop-copy.ts'

/** `known`: there is a password here by now, be it this one or another. */
export type MoveResult = 'moved' | 'known' | 'in use' | 'unknown user'

/** LIMIT: whatever the setting for new mail says, old mail comes along; a body has an integer. */
const MESSAGE_MAX_OCTETS = 2 ** 30

/**
 * @param client logged in as the user
 * @throws {Failure} temporary, or OPERATION_REFUSED if the quota here is too small
 */
export async function moveUser(
  context: MaildropContext,
  domain: MigratingDomain,
  login: FirstLogin,
  client: Pop3Client,
): Promise<MoveResult> {
  const { password, asker, name } = login
  const account = login.account ?? (await makeAccount(context, domain, login))
  if (account === undefined) return 'unknown user'
  if (account.passwordHash !== undefined) return 'known'
  // The session that follows refuses who is suspended: nothing is moved for them.
  if (account.isSuspended) return 'moved'
  const passwordHash = await hashPassword(password, { ...asker, signal: undefined })
  const opened = await openMaildrop(context, withoutManners(account), {
    client: login.client,
    credentialId: undefined,
    // Copying is no idleness: nobody takes the maildrop over.
    idleMs: () => 0,
    end: () => client.close(),
  })
  if (opened.kind !== 'opened') return 'in use'
  const { maildrop } = opened
  try {
    await fill(context, maildrop, name.address, client)
    const isKept = await keepPassword(context.db, maildrop.lease, passwordHash)
    if (!isKept) throw new Failure('LEASE_LOST', 'the maildrop was taken while it was copied')
  } finally {
    await maildrop.close()
  }
  return 'moved'
}

async function fill(
  { db, log }: MaildropContext,
  { lease: { domainId, userId } }: Maildrop,
  user: string,
  client: Pop3Client,
): Promise<void> {
  const began = performance.now()
  const request = { domainId, userId, messageMaxOctets: MESSAGE_MAX_OCTETS }
  const { skipped, isFull, ...counts } = await copyMaildrop(db, client, request)
  if (isFull)
    throw new Failure('OPERATION_REFUSED', `the quota of ${user} is too small for the old mail`)
  for (const { source, reason } of skipped)
    log.warn({ user, source, reason }, 'a message of the old server was left there')
  const seconds = (performance.now() - began) / 1_000
  log.info({ user, ...counts, skipped: skipped.length, seconds }, 'a user has moved here')
}

/** @returns undefined: an alias or a tagged address is nobody's own, and no user is made of it */
async function makeAccount(
  { db, log }: MaildropContext,
  { domainId }: MigratingDomain,
  { name }: FirstLogin,
): Promise<LoginAccount | undefined> {
  await makeMovingUser(db, domainId, name.localPart)
  const account = await selectLoginAccount(db, name.domainName, name.localPart)
  const user = name.address
  if (account !== undefined) log.info({ user }, 'a user who has moved here was made')
  else
    log.warn(
      { user },
      'the old server lets in who is an alias or a tagged address here: no user is made of it',
    )
  return account
}

/** The client's own login comes after this one: it must not be too soon, nor wait for itself. */
function withoutManners(account: LoginAccount): LoginAccount {
  return { ...account, loginDelaySeconds: 0, secondLogin: 'refuse' }
}
