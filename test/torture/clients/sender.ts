/**
 * A client that delivers by LMTP: a few transactions a connection, one or several recipients of one or
 * several domains, and now and then it goes away or pauses where it should not.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { LineClient } from '../../support/line-client.ts'
import type { Node } from '../cluster.ts'
import type { Random } from '../random.ts'
import { type Content, makeContent } from './content.ts'
import { MAILDROPS, Patience, type Stage, visitNodes } from './stage.ts'

const RECIPIENTS_MAX = 5

export async function runSender(stage: Stage, random: Random): Promise<void> {
  await visitNodes(stage, random, 150, (node, { lmtp }) => connection(stage, random, node, lmtp))
}

async function connection(
  stage: Stage,
  random: Random,
  node: Node,
  address: string,
): Promise<void> {
  const client = await LineClient.connect(address)
  const patience = new Patience(random, client.socket)
  try {
    await client.reply()
    patience.greeted()
    await client.ask('LHLO sender.outside.test')
    for (let left = random.integer(1, 5); left > 0 && !stage.stopping.aborted; left--) {
      await transaction(stage, random, node, client)
      await delay(random.integer(0, 60))
      patience.renew()
    }
    if (random.chance(0.8)) await client.ask('QUIT')
  } finally {
    patience.end()
    client.destroy()
  }
}

async function transaction(
  { history, nextNumber }: Stage,
  random: Random,
  node: Node,
  client: LineClient,
): Promise<void> {
  const content = makeContent(random, `t${nextNumber()}`)
  const { token, digest, octets } = content
  const count = random.chance(0.6) ? 1 : random.integer(2, RECIPIENTS_MAX)
  const recipients = random.sample(MAILDROPS, count)
  history.note({
    type: 'delivery',
    token,
    recipients,
    digest,
    octets: octets.length,
    node: node.name,
  })
  await client.ask('MAIL FROM:<sender@outside.test>')
  const accepted: string[] = []
  for (const recipient of recipients) {
    const code = Number.parseInt(await client.ask(`RCPT TO:<${recipient}>`), 10)
    history.note({ type: 'delivery-told', token, recipient, stage: 'rcpt', code })
    if (code === 250) accepted.push(recipient)
  }
  if (accepted.length === 0) {
    await client.ask('RSET')
    return
  }
  const reply = await client.ask('DATA')
  if (!reply.startsWith('354')) return
  await send(random, client, content)
  for (const recipient of accepted) {
    const code = Number.parseInt(await client.reply(), 10)
    history.note({ type: 'delivery-told', token, recipient, stage: 'data', code })
  }
}

/** The message with its dots stuffed and the dot at the end; or less, and then the end. */
async function send(random: Random, client: LineClient, { octets }: Content): Promise<void> {
  const wire = octets.toString('latin1').replace(/(^|\r\n)\./g, '$1..')
  const cut = random.integer(0, wire.length)
  client.send(wire.slice(0, cut))
  if (random.chance(0.05)) await delay(random.integer(100, 3_000))
  if (random.chance(0.03)) {
    client.destroy()
    return
  }
  client.send(`${wire.slice(cut)}.\r\n`)
  if (!random.chance(0.04)) return
  await delay(random.integer(0, 10))
  client.destroy()
}
