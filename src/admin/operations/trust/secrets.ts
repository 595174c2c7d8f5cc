/**
 * Changing POPGRES_SECRET_KEY while nodes run: every node gets the new key in front of the old one,
 * then everything is sealed anew, then the old key goes. What is sealed opens all the while, and no
 * session ends. It may be stopped and begun again at any time: what is done is passed over.
 */
import type { Keyring } from '../../../base/keyring.ts'
import { apopUse } from '../../../mail/auth/apop-secret.ts'
import { oauthUse } from '../../../mail/auth/bearer/introspection.ts'
import { scramSealUse } from '../../../mail/auth/proofs/scram.ts'
import { certificateUse } from '../../../server/tls/kept-key-pair.ts'
import type { Database } from '../../../storage/postgres/database.ts'
import {
  countSealed,
  SEALED_KINDS,
  type SealedKind,
  type SealedRow,
  selectSealed,
  updateSealed,
} from '../../../storage/tenants/sealed.ts'
import { refused } from '../../refusal.ts'

/** How many rows of one kind are sealed under one key. */
export interface SealedUnder {
  kind: SealedKind
  /** The first octets of the key's SHA-256, in hexadecimal. */
  keyId: string
  rows: number
  /** `current`: it seals what is new; `old`: it only opens; `missing`: it is not in the setting. */
  key: 'current' | 'old' | 'missing'
}

export interface Rotation {
  kind: SealedKind
  /** Sealed anew. */
  resealed: number
  /** Under the current key already, or changed by a node meanwhile. */
  passed: number
  /** SCRAM keys of a password that has changed since: taken away, the next login derives others. */
  dropped: number
  /** They stay as they are: their key is missing, or they are damaged. */
  unreadable: number
}

/** LIMIT: rows in memory at a time. */
const BATCH_ROWS = 500

export async function listSecrets(
  db: Database,
  keyring: Keyring | undefined,
): Promise<SealedUnder[]> {
  const found: SealedUnder[] = []
  for (const kind of SEALED_KINDS)
    for (const { keyId, rows } of await countSealed(db, kind)) {
      const id = Buffer.from(keyId, 'hex')
      const key = keyring?.isCurrent(id) ? 'current' : keyring?.isKnown(id) ? 'old' : 'missing'
      found.push({ kind, keyId, rows, key })
    }
  return found
}

/** @throws {Failure} OPERATION_REFUSED without a keyring */
export async function rotateSecrets(
  db: Database,
  keyring: Keyring | undefined,
): Promise<Rotation[]> {
  if (keyring === undefined)
    throw refused('there is no secret key: set POPGRES_SECRET_KEY to "NEW OLD", as on every node')
  const done: Rotation[] = []
  for (const kind of SEALED_KINDS) done.push(await rotate(db, keyring, kind))
  return done
}

async function rotate(db: Database, keyring: Keyring, kind: SealedKind): Promise<Rotation> {
  const rotation: Rotation = { kind, resealed: 0, passed: 0, dropped: 0, unreadable: 0 }
  let rows: SealedRow[] = []
  do {
    rows = await selectSealed(db, kind, rows.at(-1)?.key, BATCH_ROWS)
    for (const row of rows) rotation[await renew(db, keyring, kind, row)] += 1
  } while (rows.length === BATCH_ROWS)
  return rotation
}

async function renew(
  db: Database,
  keyring: Keyring,
  kind: SealedKind,
  row: SealedRow,
): Promise<Exclude<keyof Rotation, 'kind'>> {
  const opened = keyring.open(useOf(kind, row), row.sealed)
  if (opened.kind === 'damaged' && kind === 'scram')
    return (await updateSealed(db, kind, row, null)) ? 'dropped' : 'passed'
  if (opened.kind !== 'opened') return 'unreadable'
  if (keyring.isCurrent(row.sealed)) return 'passed'
  const resealed = keyring.reseal(useOf(kind, row), row.sealed)
  if (resealed === undefined) return 'unreadable'
  return (await updateSealed(db, kind, row, resealed)) ? 'resealed' : 'passed'
}

/** What each was sealed for: it opens for nothing else. */
function useOf(kind: SealedKind, { key, passwordHash }: SealedRow): string {
  const [first = '', second = ''] = key
  switch (kind) {
    case 'apop':
      return apopUse(Number(first), Number(second))
    case 'scram':
      return scramSealUse(Number(first), Number(second), passwordHash ?? '')
    case 'certificate':
      return certificateUse(String(first))
    case 'oauth':
      return oauthUse(Number(first))
  }
}
