/** Fetching mail: one RETR after the other, many in one write, with DELE, and one large message. */
import { DELETE, deleteUser, LARGE, messageOf, wireOf } from '../content.ts'
import type { Pop3Client } from '../pop3-client.ts'
import { quit, type Stage } from '../stage.ts'

const PIPELINED = 50
const SESSIONS = 16

/** A user's messages as RETR sends them; made before anything is measured. */
const wiresOf = (user: string): Buffer[] =>
  Array.from({ length: DELETE.messages }, (_, at) => wireOf(messageOf(user, at + 1, DELETE.octets)))

/** @returns the command, to be written */
function expectRetr(client: Pop3Client, wires: Buffer[], number: number, done: () => void): string {
  client.expectMessage(DELETE.octets, wires[number - 1] ?? Buffer.alloc(0), done)
  return `RETR ${number}\r\n`
}

/** @param size messages asked for in one write */
export async function retrieve(stage: Stage, size = 1): Promise<void> {
  const { job, window } = stage
  const users = Array.from({ length: SESSIONS }, (_, at) => deleteUser(at + 1))
  const mail = users.map(wiresOf)
  const clients = await Promise.all(users.map((user) => stage.openSession(job.pop3, user)))
  window.open()
  const loops = clients.map(
    (client, at) =>
      new Promise<void>((resolve) => {
        const wires = mail[at] ?? []
        let number = 0
        const next = (): void => {
          if (window.isOver) {
            resolve()
            return
          }
          const asked = performance.now()
          let text = ''
          for (let i = 1; i <= size; i++) {
            number = (number % DELETE.messages) + 1
            text += expectRetr(client, wires, number, () => {
              window.count(performance.now() - asked, DELETE.octets)
              if (i === size) next()
            })
          }
          client.write(text)
        }
        next()
      }),
  )
  await window.until(loops)
  await Promise.all(clients.map(quit))
}

export const retrievePipelined = (stage: Stage): Promise<void> => retrieve(stage, PIPELINED)

/** Everybody's 100 messages, RETR and DELE each, then QUIT; 16 users at once, each once. */
export async function retrieveAndDelete(stage: Stage): Promise<void> {
  const { job, window } = stage
  const count = job.deleteUsers ?? DELETE.users
  const mail = Array.from({ length: count }, (_, at) => {
    const user = deleteUser(at + 1)
    return { user, wires: wiresOf(user) }
  })
  const turns = mail.values()
  window.begin()
  const loops = Array.from({ length: Math.min(job.atOnce, SESSIONS) }, async () => {
    for (const { user, wires } of turns) {
      const client = await stage.openSession(job.pop3, user)
      await emptyMaildrop(stage, client, wires)
      const asked = performance.now()
      await new Promise<void>((resolve) => {
        client.quit(() => window.note('quitMs', performance.now() - asked), resolve)
      })
    }
  })
  await window.until(loops)
  for (let n = 1; n <= count; n += 8) {
    const client = await stage.openSession(job.pop3, deleteUser(n))
    await new Promise<void>((resolve) => {
      client.expectOk(resolve, Buffer.from('0 0'))
      client.write('STAT\r\n')
    })
    await quit(client)
  }
}

/** Everybody's 100 messages marked in one write, then QUIT, which alone is timed; one by one. */
export async function deleteAll(stage: Stage): Promise<void> {
  const { job, window } = stage
  const count = job.deleteUsers ?? DELETE.users
  window.begin()
  const loop = (async () => {
    for (let n = 1; n <= count; n++) {
      const client = await stage.openSession(job.pop3, deleteUser(n))
      await markAll(client)
      const asked = performance.now()
      await new Promise<void>((resolve) => {
        client.quit(() => {
          window.count(performance.now() - asked, 0)
          window.note('quitMs', performance.now() - asked)
        }, resolve)
      })
    }
  })()
  await window.until([loop])
}

function markAll(client: Pop3Client): Promise<void> {
  return new Promise((resolve) => {
    let text = ''
    for (let number = 1; number <= DELETE.messages; number++) {
      text += `DELE ${number}\r\n`
      client.expectOk(number === DELETE.messages ? resolve : () => {})
    }
    client.write(text)
  })
}

function emptyMaildrop(stage: Stage, client: Pop3Client, wires: Buffer[]): Promise<void> {
  return new Promise((resolve) => {
    const next = (number: number): void => {
      if (number > wires.length) {
        resolve()
        return
      }
      const asked = performance.now()
      const command = expectRetr(client, wires, number, () => {
        client.expectOk(() => {
          stage.window.count(performance.now() - asked, DELETE.octets)
          next(number + 1)
        })
        client.write(`DELE ${number}\r\n`)
      })
      client.write(command)
    }
    next(1)
  })
}

/** Again and again until the window is over, at least once. */
export async function retrieveLarge(stage: Stage): Promise<void> {
  const { job, window } = stage
  const wire = wireOf(messageOf(LARGE.localPart, 1, LARGE.octets))
  const client = await stage.openSession(job.pop3, LARGE.localPart)
  window.begin()
  await window.until([fetchLarge(stage, client, wire, () => window.isDue)])
  await quit(client)
}

/** One session after another has warmed the server, while its memory is looked at. */
export async function retrieveLargeAgain(
  stage: Stage,
  onReady: (sessions: number) => Promise<void>,
): Promise<void> {
  const { job, window } = stage
  const wire = wireOf(messageOf(LARGE.localPart, 1, LARGE.octets))
  const session = async (isEnough: () => boolean): Promise<void> => {
    const client = await stage.openSession(job.pop3, LARGE.localPart)
    await fetchLarge(stage, client, wire, isEnough)
    await quit(client)
  }
  await session(() => true)
  await onReady(0)
  window.begin()
  await window.until([session(() => window.isDue)])
}

async function fetchLarge(
  { window }: Stage,
  client: Pop3Client,
  wire: Buffer,
  isEnough: () => boolean,
): Promise<void> {
  do {
    const asked = performance.now()
    await new Promise<void>((resolve) => {
      client.expectMessage(LARGE.octets, wire, resolve)
      client.write('RETR 1\r\n')
    })
    window.count(performance.now() - asked, LARGE.octets)
  } while (!isEnough())
}
