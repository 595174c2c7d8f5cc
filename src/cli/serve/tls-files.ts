/**
 * What is set for TLS, looked at before anything is started: a node that shows no certificate, or
 * not those of its hosts, is found out by its operator and not by its clients. Later, when files
 * are renewed under a running node, nothing stops it any more: see server/tls/certificates.ts.
 */
import { readFile, stat } from 'node:fs/promises'
import { Failure, isTemporary } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { Secret } from '../../base/secret.ts'
import type { SettingName, Settings } from '../../base/settings.ts'
import type { TlsFiles } from '../../cluster/worker-messages.ts'
import { checkKey, openKeyPair, readCertificate, reasonOf } from '../../server/tls/key-pair.ts'
import { hasCertificates } from '../../storage/certificates.ts'
import type { Database } from '../../storage/postgres/database.ts'

/**
 * @returns the certificate for clients that ask for no other host; undefined: none is set
 * @throws {Failure} SETTINGS_INVALID, naming the setting and its file
 */
export async function checkTlsFiles(settings: Settings): Promise<TlsFiles | undefined> {
  const { POPGRES_TLS_CERT: certFile, POPGRES_TLS_KEY: keyFile } = settings
  const { POPGRES_TLS_DIRECTORY: directory } = settings
  if (directory !== undefined)
    await explain('POPGRES_TLS_DIRECTORY', directory, async () => {
      if (!(await stat(directory)).isDirectory())
        throw new Failure('SETTINGS_INVALID', NO_DIRECTORY)
    })
  if (certFile === undefined || keyFile === undefined) return undefined
  const chain = await explain('POPGRES_TLS_CERT', certFile, () => readFile(certFile, 'utf8'))
  const certificate = await explain('POPGRES_TLS_CERT', certFile, () => readCertificate(chain))
  const key = await explain('POPGRES_TLS_KEY', keyFile, async () => {
    const found = new Secret(await readFile(keyFile))
    checkKey(found, certificate)
    return found
  })
  await explain('POPGRES_TLS_CERT', certFile, () => openKeyPair({ chain, key }))
  return { certFile, keyFile }
}

/**
 * POP3S listens even so, because a certificate may come from the database any time. Into a
 * POPGRES_TLS_DIRECTORY nobody looks here: who sets one means to have them there.
 * @returns true: nobody can be served over TLS yet, which has been logged
 */
export async function warnWithoutCertificate(
  settings: Settings,
  db: Database,
  log: Log,
): Promise<boolean> {
  const { POPGRES_TLS_CERT: certFile, POPGRES_TLS_DIRECTORY: directory } = settings
  const isListening = settings.POPGRES_POP3S_LISTEN.length > 0
  if (!isListening || certFile !== undefined || directory !== undefined) return false
  try {
    if (await hasCertificates(db)) return false
  } catch (error) {
    // The database has just gone: nothing is known, and the workers will say so.
    if (isTemporary(error)) return false
    throw error
  }
  log.warn('POP3S has no certificate yet: its clients are dropped until there is one')
  return true
}

const NO_DIRECTORY = 'it is not a directory'

async function explain<T>(name: SettingName, file: string, look: () => T | Promise<T>): Promise<T> {
  try {
    return await look()
  } catch (error) {
    const what = error instanceof Failure ? error.message : `cannot be read (${reasonOf(error)})`
    throw new Failure('SETTINGS_INVALID', `${name}: ${file}: ${what}`, error)
  }
}
