/**
 * Aliases and domain aliases out of tables: PostfixAdmin's `alias` and `alias_domain`, or lists of
 * one's own. Of a row that stands for several addresses the commas are between them. What of it can
 * be kept is judged in admin/transfer/move-aliases.ts.
 */
import type { OldAlias, OldAliases } from '../../../admin/transfer/move-aliases.ts'
import type { OtherDatabase } from '../../../storage/postgres/other-database.ts'
import { isActive, pick, readTableFile, readTableRows, type TableRow } from './table.ts'

interface AliasTable {
  name: string
  wanted: { names: readonly string[]; targets: readonly string[] }
}

const ALIASES: AliasTable = {
  name: 'alias',
  wanted: { names: ['address', 'alias'], targets: ['goto', 'targets'] },
}
const DOMAIN_ALIASES: AliasTable = {
  name: 'alias_domain',
  wanted: { names: ['alias_domain', 'domain'], targets: ['target_domain', 'stands_for'] },
}

/** @throws {Failure} OPERATION_REFUSED if a file cannot be read or lacks a column */
export async function readAliasFiles(files: {
  aliases?: string | undefined
  domainAliases?: string | undefined
}): Promise<OldAliases> {
  const read = async (path: string | undefined, { wanted }: AliasTable) =>
    path === undefined ? [] : toAliases(readTableFile(path, wanted), wanted)
  return {
    addresses: await read(files.aliases, ALIASES),
    domains: await read(files.domainAliases, DOMAIN_ALIASES),
  }
}

/** Of PostfixAdmin's own database; an old one has no alias_domain. */
export async function readAliasTables(database: OtherDatabase): Promise<OldAliases> {
  const read = async ({ name, wanted }: AliasTable): Promise<OldAlias[]> => {
    for await (const { found } of database.rows('select to_regclass($1) as found', [name]))
      if (found === null) return []
    const rows = database.rows(`select * from ${name} order by ${wanted.names[0]}`)
    return toAliases(readTableRows(rows, wanted, name), wanted)
  }
  return { addresses: await read(ALIASES), domains: await read(DOMAIN_ALIASES) }
}

async function toAliases(
  rows: AsyncIterable<TableRow>,
  { names, targets }: AliasTable['wanted'],
): Promise<OldAlias[]> {
  const aliases: OldAlias[] = []
  for await (const row of rows) {
    if ('refusal' in row) aliases.push(row)
    else
      aliases.push({
        source: row.source,
        name: pick(row.columns, names).trim().toLowerCase(),
        targets: splitTargets(pick(row.columns, targets)),
        isOff: !isActive(row.columns),
      })
  }
  return aliases
}

function splitTargets(text: string): string[] {
  const targets = text.split(/[,\r\n]/).map((target) => target.trim().toLowerCase())
  return [...new Set(targets)].filter((target) => target !== '')
}
