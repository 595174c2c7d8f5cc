/**
 * `popgres secret …`: what is sealed under which key. The operations are in
 * admin/operations/trust/secrets.ts.
 */
import type { Command } from 'commander'
import {
  listSecrets,
  type Rotation,
  rotateSecrets,
  type SealedUnder,
} from '../../../admin/operations/trust/secrets.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { type Column, formatJson, formatTable } from '../../output.ts'

const WHAT: Readonly<Record<SealedUnder['kind'], string>> = {
  apop: 'APOP secrets',
  scram: 'SCRAM keys',
  certificate: 'TLS keys',
  oauth: 'OAuth client secrets',
}

const KEYS: readonly Column<SealedUnder>[] = [
  { title: 'WHAT', cell: ({ kind }) => WHAT[kind] },
  { title: 'KEY', cell: ({ keyId }) => keyId },
  { title: 'ROWS', cell: ({ rows }) => rows, isRight: true },
  { title: 'THE KEY IS', cell: ({ key }) => key },
]

const ROTATIONS: readonly Column<Rotation>[] = [
  { title: 'WHAT', cell: ({ kind }) => WHAT[kind] },
  { title: 'RESEALED', cell: ({ resealed }) => resealed, isRight: true },
  { title: 'PASSED', cell: ({ passed }) => passed, isRight: true },
  { title: 'DROPPED', cell: ({ dropped }) => dropped, isRight: true },
  { title: 'UNREADABLE', cell: ({ unreadable }) => unreadable, isRight: true },
]

const ON_ROTATING = `
How to change the key while nodes run:
  1. Make a key (openssl rand -hex 32) and put it behind the old one in POPGRES_SECRET_KEY,
     separated by a blank, on every node; restart them one by one. Now all can open it.
  2. Swap the two, so that the new one seals, and restart the nodes one by one.
  3. popgres secret rotate
  4. When popgres secret list shows no row under the old key, remove it everywhere.
A single node can begin with the second step. In embedded mode the keys are the lines of the file
secret-key in POPGRES_DATA_DIR.

Sessions go on meanwhile. Rotating may be stopped and begun again. "Passed" are rows that were under
the first key already, or that a node changed meanwhile. "Dropped" are SCRAM keys of a password that
was changed by SQL; the next login derives others. "Unreadable" are rows whose key is missing, or
that are damaged: they stay.
`

export function defineSecretCommands(program: Command, context: CommandContext): void {
  const secret = program
    .command('secret')
    .description('see what is sealed under POPGRES_SECRET_KEY, and change the key')

  secret
    .command('list')
    .description('count what is sealed, by key')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      withDatabase(context, async ({ db, keyring }) => {
        const found = await listSecrets(db, keyring)
        process.stdout.write(options.json ? formatJson(found) : formatTable(KEYS, found))
      }),
    )

  secret
    .command('rotate')
    .description('seal everything anew under the first key')
    .option('--json', 'print JSON')
    .addHelpText('after', ON_ROTATING)
    .action((options: { json?: boolean }) =>
      withDatabase(context, async ({ db, keyring }) => {
        const done = await rotateSecrets(db, keyring)
        process.stdout.write(options.json ? formatJson(done) : formatTable(ROTATIONS, done))
        if (done.some(({ unreadable }) => unreadable > 0)) context.status = 1
      }),
    )
}
