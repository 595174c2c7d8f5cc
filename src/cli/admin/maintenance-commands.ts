/** `popgres migrate`, `settings` and `check`: the server itself rather than its tenants. */
import type { Command } from 'commander'
import { type CheckReport, checkMail } from '../../admin/operations/check.ts'
import { parseSettings, SETTINGS, type SettingName } from '../../base/settings.ts'
import { migrate } from '../../storage/migrator.ts'
import { distribute } from '../../storage/postgres/citus.ts'
import { grantServing, setServingDefaults } from '../../storage/serving-role.ts'
import { type CommandContext, withBareDatabase, withDatabase } from '../command-context.ts'
import { type Column, formatCount, formatJson, formatTable } from '../output.ts'

/** Who owns the tables need not be who made the role. */
const NOT_SET = 'this role may not set its defaults; behind PgBouncer a superuser has to say:\n'

export function defineMaintenanceCommands(program: Command, context: CommandContext): void {
  program
    .command('migrate')
    .description('bring the tables of the database up to this version')
    .option('--serve-role <name>', 'let this role do what "popgres serve" does, and no more')
    .option('--citus', 'distribute the tables by domain, where the database has Citus')
    .addHelpText(
      'after',
      `
Safe to run on several machines at once and when there is nothing to do. Nodes of an older version
go on as long as the migration allows it; one that is too old says so and stops.

The role of DATABASE_URL becomes the owner of the tables. Nodes need not be the owner: make a role
for them (create role popgres_serve login password '…'), name it with --serve-role, each time, and
let "popgres serve" log in as that role. Whatever else it was granted on the tables is taken away.

--citus is for a database that one server no longer carries (docs/scaling.md): rows that are there
move to the servers of the cluster, which takes as long as copying them. Say it each time.

Examples:
  DATABASE_URL=postgres://popgres@db.example.com/popgres popgres migrate
  DATABASE_URL=postgres://popgres@db.example.com/popgres popgres migrate --serve-role popgres_serve
`,
    )
    .action((options: { serveRole?: string; citus?: boolean }) =>
      withBareDatabase(context, async ({ db, log }) => {
        log.level = 'warn' // what was applied is printed below
        const { applied } = await migrate(db, log)
        const lines = applied.map((name) => `applied ${name}\n`).join('')
        process.stdout.write(lines === '' ? 'nothing to apply: up to date\n' : lines)
        if (options.citus) {
          const { distributed, broughtBack } = await distribute(db)
          for (const name of broughtBack) process.stdout.write(`brought back ${name}\n`)
          for (const name of distributed) process.stdout.write(`distributed ${name}\n`)
        }
        if (options.serveRole === undefined) return
        await grantServing(db, options.serveRole)
        process.stdout.write(`granted to ${options.serveRole}\n`)
        const missing = await setServingDefaults(db, options.serveRole)
        if (missing.length > 0) process.stdout.write(`${NOT_SET}${missing.join(';\n')};\n`)
      }),
    )

  program
    .command('settings')
    .description('print every setting: value, default, unit and meaning')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Settings come from the environment and from a file .env in the working directory; the environment
wins. A secret is shown as [set] or [not set], and may be read from a file named by <NAME>_FILE.
Needs no database. Status 1 if a setting is wrong; the line on standard error says which.
`,
    )
    .action((options: { json?: boolean }) => {
      const rows = describeSettings(context.env)
      process.stdout.write(options.json ? formatJson(rows) : formatTable(SETTING_COLUMNS, rows))
      parseSettings(context.env)
    })

  program
    .command('check')
    .description('prove counters, unique-ids and bodies of all maildrops')
    .option('--domain <name>', 'only of this domain')
    .option('--repair', 'put right what can be put right')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Status 1 if something is wrong and was not repaired.

Examples:
  popgres check
  popgres check --domain example.com --repair
`,
    )
    .action((options: { domain?: string; repair?: boolean; json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const report = await checkMail(db, options.domain, options.repair === true)
        process.stdout.write(options.json ? formatJson(report) : formatReport(report))
        if (report.findings.some((finding) => !finding.isRepaired)) context.status = 1
      }),
    )
}

interface SettingRow {
  name: SettingName
  value: string
  default: string
  unit: string
  meaning: string
  isSecret: boolean
}

const orEmpty = (text: string): string => (text === '' ? '(empty)' : text)

const SETTING_COLUMNS: readonly Column<SettingRow>[] = [
  { title: 'SETTING', cell: (row) => row.name },
  { title: 'VALUE', cell: (row) => orEmpty(row.value) },
  { title: 'DEFAULT', cell: (row) => orEmpty(row.default) },
  { title: 'UNIT', cell: (row) => row.unit },
  { title: 'MEANING', cell: (row) => row.meaning },
]

/** @param env a wrong value is shown as it is, a secret never */
export function describeSettings(env: NodeJS.ProcessEnv): SettingRow[] {
  return (Object.keys(SETTINGS) as SettingName[]).map((name) => {
    const row: { default: string | (() => string); unit: string; meaning: string } = SETTINGS[name]
    const isSecret = 'isSecret' in SETTINGS[name]
    const byDefault = typeof row.default === 'function' ? row.default() : row.default
    const isSet = Boolean(env[name]) || Boolean(env[`${name}_FILE`])
    const value = isSecret ? (isSet ? '[set]' : '[not set]') : (env[name] ?? byDefault)
    return { name, value, default: byDefault, unit: row.unit, meaning: row.meaning, isSecret }
  })
}

const FINDING_COLUMNS: readonly Column<CheckReport['findings'][number]>[] = [
  { title: 'MAILDROP', cell: (finding) => finding.address ?? finding.domain },
  { title: 'WHAT', cell: (finding) => finding.kind },
  { title: 'REPAIRED', cell: (finding) => (finding.isRepaired ? 'yes' : 'no') },
  { title: 'DETAIL', cell: (finding) => finding.detail },
]

function formatReport(report: CheckReport): string {
  const { domainCount, findings } = report
  const checked = `checked ${formatCount(domainCount, 'domain')}: `
  if (findings.length === 0) return `${checked}nothing is wrong\n`
  const found = formatCount(findings.length, 'finding')
  return `${formatTable(FINDING_COLUMNS, findings)}${checked}${found}\n`
}
