/**
 * EXTERNAL at the door (RFC 4422 appendix A): the client certificate says who it is. TLS has proved
 * that the client holds its key; whose it is, is a row of `credentials`. Who issued it does not
 * matter.
 */
import type { Database } from '../../../storage/postgres/database.ts'
import {
  type CertificateOwner,
  selectCertificateOwners,
} from '../../../storage/tenants/credentials.ts'
import { type LoginName, parseLoginName } from '../login-name.ts'
import { addressOf, type LoginPeer } from '../login-peer.ts'
import type { LoginReason } from './judgement.ts'

export type CertificateVerdict =
  | { kind: 'owned'; owner: CertificateOwner; name: LoginName }
  | { kind: 'refused'; reason: LoginReason; name: LoginName | undefined }

/**
 * @param name as the peer typed it, parsed; undefined: it typed none, or no address
 * @param wantsName the peer typed something
 */
export async function findCertificateOwner(
  db: Database,
  peer: LoginPeer,
  name: LoginName | undefined,
  wantsName: boolean,
): Promise<CertificateVerdict> {
  const refuse = (reason: LoginReason): CertificateVerdict => ({ kind: 'refused', reason, name })
  if (wantsName && name === undefined) return refuse('implausible name')
  if (peer.certificateDigest === undefined) return refuse('no client certificate')
  const all = await selectCertificateOwners(db, peer.certificateDigest, addressOf(peer.client))
  const owners = name === undefined ? all : all.filter((owner) => isOwner(owner, name))
  const [owner] = owners
  if (owner === undefined) return refuse('unknown client certificate')
  if (owners.length > 1) return refuse('client certificate of several users')
  const owned = parseLoginName(`${owner.localPart}@${owner.domainName}`, '')
  if (owned === undefined) return refuse('implausible name')
  return { kind: 'owned', owner, name: owned }
}

const isOwner = (owner: CertificateOwner, name: LoginName): boolean =>
  owner.domainName === name.domainName &&
  owner.localPart.toLowerCase() === name.localPart.toLowerCase()
