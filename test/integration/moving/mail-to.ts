/** A message that was delivered here, as LMTP does it in the end. */
import { newBodyId } from '../../../src/storage/bodies.ts'
import { deliver } from '../../../src/storage/deliveries.ts'
import { selectRecipients } from '../../../src/storage/tenants/recipients.ts'
import type { TestDatabase } from '../../support/postgres.ts'

export async function mailTo(
  { db }: TestDatabase,
  domainId: number,
  address: string,
  text: string,
): Promise<void> {
  const at = address.lastIndexOf('@')
  const [user] = await selectRecipients(db, address.slice(at + 1), address.slice(0, at))
  if (user === undefined) throw new Error(`there is no ${address}`)
  const content = Buffer.from(text)
  await deliver(db, {
    domainId,
    bodyId: newBodyId(),
    bodyOctets: content.length,
    content,
    recipients: [{ userId: user.userId, prefix: Buffer.alloc(0) }],
  })
}
