/**
 * The first start of an embedded database: a demo domain with one user and some mail, so that
 * there is something to fetch. The messages go through the same delivery as all mail. Passwords
 * are made up each time: the demo user must not become a door when the node later listens to a
 * network.
 */
import { addDomain, listDomains, removeDomain } from '../admin/operations/domains.ts'
import { addUser } from '../admin/operations/users.ts'
import { generatePassword } from '../admin/password.ts'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import type { Keyring } from '../base/keyring.ts'
import type { Secret } from '../base/secret.ts'
import { deliverMessage } from '../mail/delivery/delivery.ts'
import { DeliveryQueue } from '../mail/delivery/delivery-queue.ts'
import { Ingest } from '../mail/delivery/ingest.ts'
import { serializeTraceHeaders } from '../mail/delivery/trace-headers.ts'
import type { Database } from '../storage/postgres/database.ts'
import { selectRecipients } from '../storage/tenants/recipients.ts'
import { makeDemoMessages } from './quickstart/demo-messages.ts'

const DOMAIN = 'example.test'
const LOCAL_PART = 'demo'
const MESSAGE_MAX_OCTETS = 1_048_576

export interface Demo {
  address: string
  /** For APOP as well. */
  password: Secret
}

/** Makes domain, user and messages; what an interrupted first start left of them is replaced. */
export async function makeDemo(db: Database, keyring: Keyring): Promise<Demo> {
  const isLeftOver = (await listDomains(db)).some((domain) => domain.name === DOMAIN)
  if (isLeftOver) await removeDomain(db, DOMAIN)
  await addDomain(db, DOMAIN)
  const address = `${LOCAL_PART}@${DOMAIN}`
  const password = generatePassword()
  await addUser(db, address, {
    password,
    // CLIENT: curl takes APOP wherever it is offered, with the one password it was given.
    apopSecret: password,
    keyring,
    quotaOctets: undefined,
  })
  for (const message of makeDemoMessages(address, new Date())) await deliverDemo(db, message)
  return { address, password }
}

async function deliverDemo(
  db: Database,
  message: { sender: string; content: Buffer; receivedAt: Date },
): Promise<void> {
  const [recipient] = await selectRecipients(db, DOMAIN, LOCAL_PART)
  assert(recipient !== undefined, 'the demo user was just added')
  const ingest = new Ingest(db, {
    domainIds: [recipient.domainId],
    maxOctets: MESSAGE_MAX_OCTETS,
  })
  await ingest.write(message.content)
  const trace = {
    sender: message.sender,
    heloName: 'mail.example.net',
    clientAddress: '127.0.0.1',
    protocol: 'LMTP',
    hostname: 'localhost',
    transactionId: 'demo',
    receivedAt: message.receivedAt,
  } as const
  const prefix = serializeTraceHeaders(trace, recipient, `${LOCAL_PART}@${DOMAIN}`)
  const [result] = await deliverMessage(new DeliveryQueue(db), await ingest.finish(), [
    { recipient, prefix },
  ])
  if (result?.kind === 'failed') throw result.error
  if (result?.kind !== 'delivered')
    throw new Failure('OPERATION_REFUSED', `the demo mail could not be delivered: ${result?.kind}`)
}
