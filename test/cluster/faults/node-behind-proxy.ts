/** A node of one worker whose way to PostgreSQL can be broken, and what its database holds. */

import { LineClient } from '../../support/line-client.ts'
import { putMessage } from '../../support/mail.ts'
import { NodeProcess } from '../../support/node-process.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { addUser, type TestDatabase } from '../../support/postgres.ts'
import { servingUrl } from '../../support/postgres-setup.ts'
import { DatabaseProxy } from '../../torture/database-proxy.ts'

export const PASSWORD = 'a password for faults'

export interface NodeBehindProxy {
  node: NodeProcess
  proxy: DatabaseProxy
  pop3: string
  lmtp: string
  stop(): Promise<void>
}

export interface NodeChanges {
  env?: Record<string, string>
  nodeOptions?: readonly string[]
}

/** @param url of the owner, over TCP or a socket */
export async function startBehindProxy(
  url: string,
  changes: NodeChanges = {},
): Promise<NodeBehindProxy> {
  const proxy = await DatabaseProxy.open(Number(new URL(url).port))
  const throughProxy = new URL(servingUrl(url))
  throughProxy.hostname = '127.0.0.1'
  throughProxy.port = String(proxy.port)
  const env = { DATABASE_URL: throughProxy.toString(), POPGRES_WORKERS: '1', ...changes.env }
  const node = new NodeProcess({ env, nodeOptions: changes.nodeOptions ?? [] })
  const stop = async (): Promise<void> => {
    proxy.heal()
    await node.destroy()
    await proxy.close()
  }
  try {
    const { pop3, lmtp } = await node.addresses()
    return { node, proxy, pop3, lmtp, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

export interface Owner {
  name: string
  domainId: number
  userId: number
}

/** With that many messages. */
export async function addOwner(
  { db }: Pick<TestDatabase, 'db'>,
  name: string,
  messages: number,
): Promise<Owner> {
  const user = await addUser(db, name, { password: PASSWORD })
  for (let nth = 1; nth <= messages; nth++)
    await putMessage(db, user.domainId, [user.userId], `Subject: ${nth}\r\n\r\nmessage ${nth}\r\n`)
  return { name, ...user }
}

export async function uidsIn(
  { db }: Pick<TestDatabase, 'db'>,
  table: 'messages' | 'trash',
  { domainId, userId }: Owner,
): Promise<number[]> {
  const rows = await db.kysely
    .selectFrom(table)
    .select('uid')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .orderBy('uid')
    .execute()
  return rows.map(({ uid }) => uid)
}

export const logIn = (address: string, { name }: Owner): Promise<Pop3Client> =>
  Pop3Client.login(address, name, PASSWORD)

/** What PASS is answered. */
export async function replyToLogin(address: string, { name }: Owner): Promise<string> {
  const client = await Pop3Client.connect(address)
  await client.line()
  await client.ask(`USER ${name}`)
  const reply = await client.ask(`PASS ${PASSWORD}`)
  client.socket.destroy()
  return reply
}

/** One message; the first reply that is not what a sender hopes for, or the last one. */
export async function deliver(address: string, owner: Owner, text: string): Promise<string> {
  const client = await LineClient.connect(address)
  try {
    const reply = await beginDelivery(client, owner)
    return reply.startsWith('354') ? await endDelivery(client, text) : reply
  } finally {
    client.destroy()
  }
}

/** @returns the reply to DATA, or an earlier one that is not what a sender hopes for */
export async function beginDelivery(client: LineClient, { name }: Owner): Promise<string> {
  await client.reply()
  for (const command of ['LHLO sender.test', 'MAIL FROM:<>', `RCPT TO:<${name}>`]) {
    const reply = await client.ask(command)
    if (!reply.startsWith('250')) return reply
  }
  return client.ask('DATA')
}

export async function endDelivery(client: LineClient, text: string): Promise<string> {
  client.send(`Subject: ${text.slice(0, 60)}\r\n\r\n${text}\r\n.\r\n`)
  return client.reply()
}
