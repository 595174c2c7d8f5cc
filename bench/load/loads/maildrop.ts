/**
 * A maildrop of 100,000 messages: how long until STAT, LIST and UIDL are answered, and what a
 * session holds meanwhile.
 */
import { BIG } from '../content.ts'
import { listOf } from '../mailbox.ts'
import type { Pop3Client } from '../pop3-client.ts'
import { quit, type Stage } from '../stage.ts'

/** Session after session until the window is over, at least three. */
export async function listBig(stage: Stage): Promise<void> {
  const { job, window } = stage
  const { messages, octets } = job.bigUser ?? BIG
  const stat = Buffer.from(`${messages} ${messages * octets}`)
  const askBoth = listings(stage)
  window.begin()
  const sessions = async (): Promise<void> => {
    for (let session = 1; session <= 3 || !window.isDue; session++) {
      const began = performance.now()
      await listOnce(stage, stat, askBoth)
      window.count(performance.now() - began)
    }
  }
  await window.until([sessions()])
}

async function listOnce(
  stage: Stage,
  stat: Buffer,
  askBoth: ReturnType<typeof listings>,
): Promise<void> {
  const { job, window } = stage
  const client = stage.connect(job.pop3)
  await new Promise<void>((resolve) => {
    stage.logIn(client, (job.bigUser ?? BIG).localPart, (passMs) => {
      window.note('loginMs', passMs)
      const asked = performance.now()
      client.expectOk(() => {
        const statMs = performance.now() - asked
        window.note('statMs', statMs)
        window.note('loginToStatMs', passMs + statMs)
        askBoth(client, (listMs, uidlMs) => {
          window.note('listMs', listMs)
          window.note('uidlMs', uidlMs)
          resolve()
        })
      }, stat)
      client.write('STAT\r\n')
    })
  })
  await quit(client)
}

const FIRST_LISTINGS = 5

/** One session after another has warmed the server, listing as long as its memory is looked at. */
export async function listBigAgain(
  stage: Stage,
  onReady: (sessions: number) => Promise<void>,
): Promise<void> {
  const { job, window } = stage
  const askBoth = listings(stage)
  const session = async (isEnough: (listings: number) => boolean): Promise<void> => {
    const client = await stage.openSession(job.pop3, (job.bigUser ?? BIG).localPart)
    for (let listings = 0; !isEnough(listings); listings++)
      await new Promise<void>((resolve) => {
        askBoth(client, (listMs, uidlMs) => {
          window.count(listMs + uidlMs)
          resolve()
        })
      })
    await quit(client)
  }
  await session((listings) => listings === FIRST_LISTINGS)
  await onReady(0)
  window.begin()
  await window.until([session((listings) => listings > 0 && window.isDue)])
}

/** LIST, then UIDL; how long each took. */
function listings({ job, mailboxes }: Stage) {
  const { localPart, ...contents } = job.bigUser ?? BIG
  const list = listOf(contents)
  return (client: Pop3Client, done: (listMs: number, uidlMs: number) => void): void => {
    const asked = performance.now()
    client.expectKnown(list, 'another LIST than was stored', () => {
      const listed = performance.now()
      mailboxes.askUidl(client, localPart, contents.messages, () => {
        done(listed - asked, performance.now() - listed)
      })
    })
    client.write('LIST\r\n')
  }
}
