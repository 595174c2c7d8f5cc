/**
 * A maildrop of 100,000 messages: how long until STAT, LIST and UIDL are answered, and what a
 * session holds meanwhile.
 */
import { BIG } from '../content.ts'
import { checkList, checkUniqueIds } from '../mailbox.ts'
import type { Pop3Client } from '../pop3-client.ts'
import { quit, type Stage } from '../stage.ts'

/** Session after session until the window is over, at least three. */
export async function listBig(stage: Stage): Promise<void> {
  const { job, window } = stage
  const big = job.bigUser ?? BIG
  const stat = Buffer.from(`${big.messages} ${big.messages * big.octets}`)
  window.begin()
  const sessions = async (): Promise<void> => {
    for (let session = 1; session <= 3 || !window.isDue; session++) {
      const began = performance.now()
      await listOnce(stage, big, stat)
      window.count(performance.now() - began)
    }
  }
  await window.until([sessions()])
}

async function listOnce(
  stage: Stage,
  big: typeof BIG | NonNullable<Stage['job']['bigUser']>,
  stat: Buffer,
): Promise<void> {
  const { job, window } = stage
  const client = stage.connect(job.pop3)
  let asked = 0
  const ask = (command: string): void => {
    asked = performance.now()
    client.write(`${command}\r\n`)
  }
  const took = (): number => performance.now() - asked
  const bodies = await new Promise<{ list: Buffer; uidl: Buffer }>((resolve) => {
    stage.logIn(client, big.localPart, (passMs) => {
      window.note('loginMs', passMs)
      client.expectOk(() => {
        window.note('statMs', took())
        window.note('loginToStatMs', passMs + took())
        client.expectListing((list) => {
          window.note('listMs', took())
          client.expectListing((uidl) => {
            window.note('uidlMs', took())
            resolve({ list, uidl })
          })
          ask('UIDL')
        })
        ask('LIST')
      }, stat)
      ask('STAT')
    })
  })
  checkList(bodies.list, big)
  checkUniqueIds(bodies.uidl, big.messages)
  await quit(client)
}

const FIRST_LISTINGS = 5

/** One session after another has warmed the server, listing as long as its memory is looked at. */
export async function listBigAgain(
  stage: Stage,
  onReady: (sessions: number) => Promise<void>,
): Promise<void> {
  const { job, window } = stage
  const big = job.bigUser ?? BIG
  const session = async (isEnough: (listings: number) => boolean): Promise<void> => {
    const client = await stage.openSession(job.pop3, big.localPart)
    for (let listings = 0; !isEnough(listings); listings++) {
      const asked = performance.now()
      const list = await listing(client, 'LIST')
      const uidl = await listing(client, 'UIDL')
      window.count(performance.now() - asked)
      checkList(list, big)
      checkUniqueIds(uidl, big.messages)
    }
    await quit(client)
  }
  await session((listings) => listings === FIRST_LISTINGS)
  await onReady(0)
  window.begin()
  await window.until([session((listings) => listings > 0 && window.isDue)])
}

function listing(client: Pop3Client, command: string): Promise<Buffer> {
  return new Promise((resolve) => {
    client.expectListing(resolve)
    client.write(`${command}\r\n`)
  })
}
