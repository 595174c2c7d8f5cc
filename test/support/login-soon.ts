/** A login to a node whose database has just come (back): each worker learns that for itself. */
import { Pop3Client } from './pop3-client.ts'

const DEADLINE_MS = 20_000

/** Tries again as long as the refusal is temporary. */
export async function loginSoon(
  address: string,
  user: string,
  password: string,
): Promise<Pop3Client> {
  const deadline = performance.now() + DEADLINE_MS
  for (;;) {
    try {
      return await Pop3Client.login(address, user, password)
    } catch (error) {
      if (!/SYS\/TEMP/.test(String(error)) || performance.now() > deadline) throw error
    }
  }
}
