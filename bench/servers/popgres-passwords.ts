/**
 * Passwords as an operator sets them: by what `popgres user passwd` does, so that a user has a hash
 * of its own and SCRAM keys. By itself the command would take a process a user.
 */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { addressOf, PASSWORD, type Seed } from '../load/content.ts'

/** As many as the hashing can use. */
const AT_ONCE = 4

/** What is used of the build under test. */
interface Build {
  openDatabase(options: object): { close(): Promise<void> }
  Keyring: new (keys: object[]) => object
  Secret: new (value: Buffer | string) => object
  changeCredentials(db: object, address: string, change: object): Promise<void>
}

async function loadBuild(dist: string): Promise<Build> {
  const files = [
    'storage/postgres/database.js',
    'base/keyring.js',
    'base/secret.js',
    'admin/operations/users.js',
  ]
  const modules = await Promise.all(
    files.map((file) => import(`${pathToFileURL(join(dist, file))}`)),
  )
  return Object.assign({}, ...modules)
}

/** @param secretKey hexadecimal, the one of the node */
export async function setPasswords(
  dist: string,
  url: string,
  secretKey: string,
  { users, coldFrom = users + 1 }: Seed,
): Promise<void> {
  if (coldFrom > users) return
  const { openDatabase, Keyring, Secret, changeCredentials } = await loadBuild(dist)
  const connection = { url: new Secret(url), applicationName: 'bench', connectionsMax: AT_ONCE }
  const db = openDatabase(connection)
  const keyring = new Keyring([new Secret(Buffer.from(secretKey, 'hex'))])
  const password = new Secret(PASSWORD)
  let next = coldFrom
  const loops = Array.from({ length: AT_ONCE }, async () => {
    while (next <= users)
      await changeCredentials(db, addressOf(next++), { password, apop: undefined, keyring })
  })
  await Promise.all(loops)
  await db.close()
}
