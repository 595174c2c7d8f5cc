/** What every load is given: its job, its window, what is right, and ways to open sessions. */
import type { Endpoint } from '../servers/server.ts'
import type { User } from './content.ts'
import type { Job } from './job.ts'
import { Mailboxes, PASS, userCommand } from './mailbox.ts'
import { Pop3Client, type TlsMemory } from './pop3-client.ts'
import type { Window } from './window.ts'

export class Stage {
  readonly job: Job
  readonly window: Window
  readonly mailboxes: Mailboxes

  constructor(job: Job, window: Window) {
    this.job = job
    this.window = window
    this.mailboxes = new Mailboxes(job.seed)
  }

  get pop3s(): Endpoint {
    if (this.job.pop3s === undefined) throw new Error('this load needs a TLS port')
    return this.job.pop3s
  }

  get lmtp(): Endpoint {
    if (this.job.lmtp === undefined) throw new Error('this load needs an LMTP port')
    return this.job.lmtp
  }

  connect(endpoint: Endpoint, tls?: TlsMemory): Pop3Client {
    return new Pop3Client(endpoint, this.window.fail, tls)
  }

  /**
   * Greeting, USER, PASS.
   * @param onIn is told how long PASS took
   */
  logIn(client: Pop3Client, user: User, onIn: (passMs: number) => void): void {
    client.expectOk(() => {
      client.expectOk(() => {
        const asked = performance.now()
        client.expectOk(() => {
          this.window.countSession()
          onIn(performance.now() - asked)
        })
        client.write(PASS)
      })
      client.write(userCommand(user))
    })
  }

  openSession(endpoint: Endpoint, user: User): Promise<Pop3Client> {
    return new Promise((resolve) => {
      const client = this.connect(endpoint)
      this.logIn(client, user, () => resolve(client))
    })
  }
}

export const quit = (client: Pop3Client): Promise<void> =>
  new Promise((resolve) => client.quit(() => {}, resolve))
