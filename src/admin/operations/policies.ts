/**
 * What an operator does with policies: LOGIN-DELAY, EXPIRE, what a second login meets, and how a
 * domain takes mail. The subject is a domain, or the address of a user who differs from its domain.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { countDueMessages, countDueTrash } from '../../storage/retention.ts'
import {
  type DomainPolicy,
  selectDomainPolicy,
  selectUserPolicy,
  type UserPolicy,
  updateDomainPolicy,
  updateUserPolicy,
} from '../../storage/tenants/policies.ts'
import { refused, refusing } from '../refusal.ts'
import { requireDomain, showDomain } from './domains.ts'
import { requireUser, showUser } from './users.ts'

/** LIMIT: beyond it nobody asks for the exact number, and counting would take long. */
const DUE_MAX = 100_000
/** As the constraints on domains and users have it. */
const DAYS_MAX = 36_500

/** Of a domain, always. */
type MailPolicy = Pick<
  DomainPolicy,
  'areAliasesAllowed' | 'isCatchAllAllowed' | 'separator' | 'overQuota'
>

export interface Policy extends Omit<MailPolicy, 'separator'> {
  /** least seconds between two logins of a user */
  loginDelaySeconds: number
  /** days after which messages go to the trash; null: never */
  expireDays: number | null
  /** of the domain, always */
  secondLogin: DomainPolicy['secondLogin']
  /** how long deleted messages can be restored; of the domain, always */
  trashDays: number
  /** of alice+tag; null: there is no such thing */
  separator: string | null
  /** those that a user has from its domain */
  inherited: ('loginDelaySeconds' | 'expireDays')[]
}

/** What is missing stays. `inherit` is for users: as the domain has it. */
export interface PolicyChange extends Partial<Omit<MailPolicy, 'separator'>> {
  loginDelaySeconds?: number | 'inherit'
  expireDays?: number | 'never' | 'inherit'
  secondLogin?: DomainPolicy['secondLogin']
  trashDays?: number
  separator?: string | undefined
}

/** What a change of policy will do to what is there already. */
export interface PolicyEffect {
  /** undefined: messages never expire, or nothing was said about it */
  expiry: Due | undefined
  trash: Due | undefined
  /** how long what expires can then be restored */
  trashDays: number
}

export interface Due {
  days: number
  /** so many are older; those under a legal hold are not counted */
  due: number
  /** there may be more than `due` */
  isMore: boolean
  /** of all */
  total: number
}

/** @param subject a domain or an address */
export async function showPolicy(db: Database, subject: string): Promise<Policy> {
  if (!subject.includes('@')) {
    const { domainId } = await requireDomain(db, subject)
    return toPolicy(await selectDomainPolicy(db, domainId), undefined)
  }
  const { domainId, userId } = (await requireUser(db, subject)).row
  const domain = await selectDomainPolicy(db, domainId)
  return toPolicy(domain, await selectUserPolicy(db, domainId, userId))
}

/**
 * Takes effect at the next login; EXPIRE within an hour and a half.
 * @param subject a domain or an address
 * @throws {Failure} OPERATION_REFUSED
 */
export async function changePolicy(
  db: Database,
  subject: string,
  change: PolicyChange,
): Promise<void> {
  if (Object.keys(change).length === 0)
    throw refused('nothing to set: see "popgres policy set --help"')
  if (subject.includes('@')) await changeUserPolicy(db, subject, change)
  else await changeDomainPolicy(db, subject, change)
}

/**
 * What `changePolicy` would do at once; it changes nothing, and refuses nothing that is not about
 * the subject.
 * @throws {Failure} OPERATION_REFUSED
 */
export async function foreseePolicy(
  db: Database,
  subject: string,
  { expireDays, trashDays }: PolicyChange,
): Promise<PolicyEffect> {
  const user = subject.includes('@') ? (await requireUser(db, subject)).row : undefined
  const { domainId } = user ?? (await requireDomain(db, subject))
  const domain = await selectDomainPolicy(db, domainId)
  const shown = user ? await showUser(db, subject) : await showDomain(db, subject)
  const days = user !== undefined && expireDays === 'inherit' ? domain.expireDays : expireDays
  const whose = { domainId, userId: user?.userId }
  return {
    // A user's 0 is its own "never", a domain's is refused when it is set, as is what is too large.
    expiry:
      typeof days === 'number' && days > 0 && days <= DAYS_MAX
        ? toDue(days, shown.messageCount, await countDueMessages(db, whose, days, DUE_MAX))
        : undefined,
    trash:
      user === undefined && trashDays !== undefined && trashDays <= DAYS_MAX
        ? toDue(trashDays, shown.trashCount, await countDueTrash(db, domainId, trashDays, DUE_MAX))
        : undefined,
    trashDays: trashDays ?? domain.trashDays,
  }
}

const toDue = (days: number, total: number, due: number): Due => ({
  ...{ days, due, total },
  isMore: due === DUE_MAX,
})

async function changeUserPolicy(
  db: Database,
  address: string,
  { loginDelaySeconds, expireDays, secondLogin, trashDays, ...mail }: PolicyChange,
): Promise<void> {
  if (secondLogin !== undefined)
    throw refused('what a second login meets is set for a whole domain, not for a user')
  if (trashDays !== undefined)
    throw refused('how long the trash is kept is set for a whole domain, not for a user')
  if (Object.keys(mail).length > 0)
    throw refused('how mail is taken is set for a whole domain, not for a user')
  const { domainId, userId } = (await requireUser(db, address)).row
  const change: Partial<UserPolicy> = {}
  if (loginDelaySeconds !== undefined) change.loginDelaySeconds = orInherited(loginDelaySeconds)
  if (expireDays !== undefined)
    change.expireDays = expireDays === 'never' ? 0 : orInherited(expireDays)
  await refusing(() => updateUserPolicy(db, domainId, userId, change))
}

async function changeDomainPolicy(
  db: Database,
  name: string,
  { loginDelaySeconds, expireDays, secondLogin, trashDays, ...mail }: PolicyChange,
): Promise<void> {
  if (loginDelaySeconds === 'inherit' || expireDays === 'inherit')
    throw refused('only users inherit: a domain has values of its own')
  const { domainId } = await requireDomain(db, name)
  const change: Partial<DomainPolicy> = { ...mail }
  if (loginDelaySeconds !== undefined) change.loginDelaySeconds = loginDelaySeconds
  if (expireDays !== undefined) change.expireDays = expireDays === 'never' ? undefined : expireDays
  if (secondLogin !== undefined) change.secondLogin = secondLogin
  if (trashDays !== undefined) change.trashDays = trashDays
  await refusing(() => updateDomainPolicy(db, domainId, change))
}

const orInherited = (value: number | 'inherit'): number | undefined =>
  value === 'inherit' ? undefined : value

/** @param user undefined: the domain's own policy is asked for */
function toPolicy(domain: DomainPolicy, user: UserPolicy | undefined): Policy {
  const inherited = (['loginDelaySeconds', 'expireDays'] as const).filter(
    (name) => user !== undefined && user[name] === undefined,
  )
  return {
    loginDelaySeconds: user?.loginDelaySeconds ?? domain.loginDelaySeconds,
    // A user's 0 is its own "never".
    expireDays: (user?.expireDays ?? domain.expireDays) || null,
    secondLogin: domain.secondLogin,
    trashDays: domain.trashDays,
    areAliasesAllowed: domain.areAliasesAllowed,
    isCatchAllAllowed: domain.isCatchAllAllowed,
    separator: domain.separator ?? null,
    overQuota: domain.overQuota,
    inherited,
  }
}
