/**
 * Addresses and domain names as operators write them, brought into the form the tables keep: the
 * domain in lower case (and in its ASCII form, if it was written in letters of another script), the
 * local part as written. The tables' constraints refuse the same things; here it is said in words.
 */
import { domainToASCII } from 'node:url'
import { refused } from './refusal.ts'

export interface Address {
  localPart: string
  domainName: string
}

const LABEL = '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?'
const DOMAIN_NAME = new RegExp(`^${LABEL}(\\.${LABEL})*$`)
const ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
const LOCAL_PART = new RegExp(`^${ATOM}(\\.${ATOM})*$`)

/** @throws {Failure} OPERATION_REFUSED */
export function parseDomainName(text: string): string {
  // An address of pure ASCII stays itself: domainToASCII would turn "1" into an IP address.
  const ascii = /^[\x21-\x7e]*$/.test(text) ? text : domainToASCII(text)
  const name = ascii.toLowerCase()
  if (name.length > 253 || !DOMAIN_NAME.test(name))
    throw refused(`${JSON.stringify(text)} is not a domain name: write it like example.com`)
  return name
}

/** @throws {Failure} OPERATION_REFUSED */
export function parseAddress(text: string): Address {
  const at = text.lastIndexOf('@')
  const localPart = text.slice(0, Math.max(at, 0))
  if (at < 0)
    throw refused(`${JSON.stringify(text)} has no domain: write it like alice@example.com`)
  if (localPart.length > 64 || !LOCAL_PART.test(localPart))
    throw refused(
      `${JSON.stringify(text)} is not an address: before the @ go at most 64 letters, digits, ` +
        "single dots and !#$%&'*+/=?^_`{|}~-",
    )
  return { localPart, domainName: parseDomainName(text.slice(at + 1)) }
}

export function formatAddress(address: Address): string {
  return `${address.localPart}@${address.domainName}`
}
